"""Free quotas through the front door: learned from a provider's headers, heeded, shown, and known after a restart."""

import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, READER_KEY, UPSTREAM_KEY, speaking
from tests.http import CHAT, chat, error_of, metric, until
from tests.process import Gateway, gateway
from tests.provider import Provider

FREE_ONLY = {"x-gateway-selection-mode": "free_only", "x-gateway-explain": "true"}
MESSAGES = "/v1/messages"


def config(provider: str) -> dict[str, Any]:
    to = {"kind": "openai", "base_url": provider, "api_key": UPSTREAM_KEY}
    keys = [*AUTH["keys"], {"name": "narrow", "key": NARROW_KEY, "scopes": ["models:read"], "backends": ["shop"]}]
    return {
        "auth": AUTH | {"keys": keys},
        "backends": {
            "gift": to | {"price": "free"},
            "other": to | {"price": "free", "own_keys": "refused"},
            "shop": to | {"price": "paid"},
        },
        "models": {
            "mixed": {"routes": ["gift/telling", "shop/answer"], "retries": 0},
            "free": {"routes": ["gift/telling"], "retries": 0},
            "refused": {"routes": ["gift/refusing", "shop/answer"], "retries": 0},
            "brief": {"routes": ["gift/brief"], "retries": 2},
        },
    }


NARROW_KEY = "narrow-key-canary-4d1e"


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("quotas"), config(running_provider.url)) as one:
        yield one


@pytest.fixture
def http(running: Gateway, upstream: Provider) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {APP_KEY}"}) as client:
        yield client


def telling(upstream: Provider, remaining: int, reset: str = "3600") -> None:
    """Have the provider's answers say how many requests of the day are left."""

    async def tell(x: Exchange) -> None:
        x.answer(
            wire.completion("told"),
            x_ratelimit_limit_requests_day="50",
            x_ratelimit_remaining_requests_day=str(remaining),
            x_ratelimit_reset_requests_day=reset,
        )

    upstream.scripts["telling"] = tell


def refusing(upstream: Provider, model: str, **headers: str) -> None:
    async def refuse(x: Exchange) -> None:
        x.answer(wire.error("Too many.", "requests", "rate_limit_exceeded"), "429 Too Many Requests", **headers)

    upstream.scripts[model] = refuse


def kept(folder: Path) -> bool:
    """Whether the day's quota is in the database."""
    with closing(sqlite3.connect(folder / "data" / "gateway.db", timeout=10)) as database:
        return bool(database.execute("SELECT * FROM quotas WHERE span = 'day'").fetchall())


def provider_of(http: httpx2.Client, id_: str) -> dict[str, Any]:
    answer = http.get("/v1/providers")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = next(one for one in answer.json()["data"] if one["id"] == id_)
    return found


def test_a_quota_is_learned_heeded_and_shown(running: Gateway, http: httpx2.Client, upstream: Provider) -> None:
    telling(upstream, 1)
    assert http.post(CHAT, json=chat("mixed")).headers["x-gateway-backend"] == "gift"
    [quota] = [one for one in provider_of(http, "gift")["quotas"] if one["window"] == "day"]
    resets_at = quota.pop("resets_at")
    assert resets_at.endswith("Z")
    assert quota == {"model": "telling", "unit": "requests", "window": "day", "limit": 50, "remaining": 1}
    telling(upstream, 0)
    assert http.post(CHAT, json=chat("free"), headers=FREE_ONLY).status_code == 200
    asked = len(upstream.seen)

    answer = http.post(CHAT, json=chat("mixed"), headers={"x-gateway-explain": "true"})
    assert answer.headers["x-gateway-backend"] == "shop"
    assert re.search(r'"outcome":"free quota used up until \S*\d\d:\d\dZ"', answer.headers["x-gateway-explain"])
    assert metric(running.url, "pluggably_quota_remaining", backend="gift", unit="requests_day") == 0
    assert len(upstream.seen) == asked + 1

    refused = http.post(CHAT, json=chat("free"), headers=FREE_ONLY)
    assert refused.status_code == 429
    assert error_of(refused)["code"] == "rate_limit_exceeded"
    assert "used up until" in error_of(refused)["message"]
    assert refused.headers["retry-after"] == "120"
    assert "x-gateway-attempts" not in refused.headers
    message = {"model": "free", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    in_messages = http.post(MESSAGES, json=message, headers=FREE_ONLY)
    assert (in_messages.status_code, in_messages.json()["error"]["type"]) == (429, "rate_limit_error")
    assert len(upstream.seen) == asked + 1, "nobody was asked"

    # Whoever does not insist on what is free has it asked: the provider knows better.
    telling(upstream, 9)
    assert http.post(CHAT, json=chat("free")).status_code == 200
    assert http.post(CHAT, json=chat("free"), headers=FREE_ONLY).status_code == 200


def test_a_refusal_of_a_day_is_remembered_longer_than_a_route_rests(http: httpx2.Client, upstream: Provider) -> None:
    refusing(upstream, "refusing", retry_after="7200")
    assert http.post(CHAT, json=chat("refused")).headers["x-gateway-backend"] == "shop"
    answer = http.post(CHAT, json=chat("refused"), headers={"x-gateway-explain": "true"})
    assert "free quota used up until" in answer.headers["x-gateway-explain"]
    [quota] = [one for one in provider_of(http, "gift")["quotas"] if one["unit"] is None]
    assert (quota["model"], quota["remaining"], quota["limit"]) == ("refusing", 0, None)
    assert quota["resets_at"]


def test_the_drafts_headers_are_learned_and_passed_on(http: httpx2.Client, upstream: Provider) -> None:
    said = {"ratelimit": '"d";r=7;t=900', "ratelimit_policy": '"d";q=10;w=86400'}

    async def tell(x: Exchange) -> None:
        x.answer(wire.completion("told"), **said)

    upstream.scripts["draft"] = tell
    answer = http.post(CHAT, json=chat("other/draft"))
    assert (answer.headers["ratelimit"], answer.headers["ratelimit-policy"]) == tuple(said.values())
    found = [one for one in provider_of(http, "other")["quotas"] if one["window"] == "day"]
    assert [(one["model"], one["limit"], one["remaining"]) for one in found] == [("draft", 10, 7)]


def test_a_short_refusal_is_waited_for_as_ever(http: httpx2.Client, upstream: Provider) -> None:
    async def refuse_once(x: Exchange) -> None:
        if sum(one.model == "brief" for one in upstream.seen) == 1:
            x.answer(wire.error("Too many."), "429 Too Many Requests", retry_after="1")
        else:
            x.answer(wire.completion("well"))

    upstream.scripts["brief"] = refuse_once
    assert http.post(CHAT, json=chat("brief"), headers=FREE_ONLY).status_code == 200


def test_providers_are_described_without_addresses_or_secrets(running: Gateway, http: httpx2.Client) -> None:
    answer = http.get("/v1/providers")
    listed = {one.pop("id"): one for one in answer.json()["data"]}
    assert set(listed) == {"gift", "other", "shop"}
    del listed["other"]["models"], listed["other"]["quotas"]
    assert listed["other"] == {
        "object": "provider", "kind": "openai", "price": "free", "own_keys": "refused", "status": "ready",
        "trouble": None, "routes_left_alone": 0,
        "dialects": ["chat", "completions", "embeddings", "image_edits", "images", "rerank"],
    }  # fmt: skip
    assert (listed["shop"]["price"], listed["shop"]["own_keys"]) == ("paid", "allowed")
    http.get("/v1/models")
    assert provider_of(http, "gift")["models"] > 0
    assert "127.0.0.1" not in answer.text
    assert UPSTREAM_KEY not in answer.text
    with speaking(running, {"x-api-key": NARROW_KEY}) as narrow:
        assert [one["id"] for one in narrow.get("/v1/providers").json()["data"]] == ["shop"]
    for key, status in ((READER_KEY, 200), (ADMIN_KEY, 200), ("nonsense", 401)):
        assert http.get("/v1/providers", headers={"authorization": f"Bearer {key}"}).status_code == status


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_quota_is_known_after_a_restart(tmp_path: Path, upstream: Provider, sig: signal.Signals) -> None:
    tree = config(upstream.url) | {"auth": {"mode": "local"}}
    telling(upstream, 0, "7200")
    with gateway(tmp_path, tree) as one:
        assert httpx2.post(one.url + CHAT, json=chat("free"), verify=False).status_code == 200
        if sig == signal.SIGKILL:
            until(lambda: kept(tmp_path))  # what came in the last second may be lost
        one.stop(sig)
    asked = len(upstream.seen)
    with gateway(tmp_path, tree) as two, speaking(two) as http:
        refused = http.post(CHAT, json=chat("free"), headers=FREE_ONLY)
        assert refused.status_code == 429, refused.text
        assert http.post(CHAT, json=chat("mixed")).headers["x-gateway-backend"] == "shop"
        assert provider_of(http, "gift")["quotas"][0]["remaining"] == 0
        assert len(upstream.seen) == asked + 1
        until(lambda: metric(two.url, "pluggably_quota_remaining", backend="gift") == 0)
