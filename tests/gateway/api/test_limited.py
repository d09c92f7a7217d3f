"""What a key may use, and how many requests a backend takes at once: as clients meet both."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import speaking
from tests.http import CHAT, chat, error_of, metric, post, raw, until
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import events, stall

PER_MINUTE, TOKENS, AT_ONCE = 8, 1200, 2
USED = wire.USAGE["prompt_tokens"] + wire.USAGE["completion_tokens"]  # type: ignore[operator]
MESSAGES = "/v1/messages"
KEYS = ("requests", "other", "tokens", "settled", "failed", "long", "streams", "left", "anthropic", "sdk", "huge")
"""One for each test: what one has used up, another has not."""
QUEUE_MAX = 2


def key_of(name: str) -> str:
    return f"{name}-limited-canary-64c1"


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = {
        "auth": {"mode": "api_key", "keys": [{"name": name, "key": key_of(name)} for name in KEYS]},
        "limits": {
            "default": {"requests_per_minute": PER_MINUTE, "tokens_per_minute": TOKENS, "concurrent": AT_ONCE},
        },
        "backends": {"up": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"}},
    }
    with gateway(tmp_path_factory.mktemp("limited"), tree) as house:
        yield house


@pytest.fixture
def limited(running: Gateway, upstream: Provider) -> Gateway:
    return running


def speaker(house: Gateway, key: str) -> httpx2.Client:
    return speaking(house, {"authorization": f"Bearer {key_of(key)}"})


def refusal(answer: httpx2.Response, type_: str) -> int:
    """Seconds to wait, of an answer that says a limit was reached."""
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (429, type_, "rate_limit_exceeded")
    assert answer.headers["retry-after"].isdecimal()
    assert answer.headers.get("x-should-retry") != "false", "it is the client that has to wait"
    return int(answer.headers["retry-after"])


def small(**fields: Any) -> dict[str, Any]:
    return chat("up/answer", "Hi", max_tokens=5, **fields)


# --- What a key may use -----------------------------------------------------------------------------


def test_requests_a_minute(limited: Gateway, upstream: Provider) -> None:
    with speaker(limited, "requests") as http, speaker(limited, "other") as other:
        for _ in range(PER_MINUTE):
            http.post(CHAT, json=small()).raise_for_status()
        refused = http.post(CHAT, json=small())
        assert 1 <= refusal(refused, "requests") <= 60 / PER_MINUTE + 1
        assert str(PER_MINUTE) in error_of(refused)["message"]
        assert len(upstream.seen) == PER_MINUTE
        other.post(CHAT, json=small()).raise_for_status()
        assert http.get("/v1/models").status_code == 403, "only generating is limited"


def test_tokens_a_minute_are_reserved(limited: Gateway, upstream: Provider) -> None:
    with speaker(limited, "tokens") as http:
        with ThreadPoolExecutor(2) as pool:
            upstream.scripts["held"], release = held()
            first = pool.submit(http.post, CHAT, json=chat("up/held", max_tokens=TOKENS - 100))
            upstream.asked()
            wait_s = refusal(http.post(CHAT, json=chat("up/answer", max_tokens=600)), "tokens")
            assert 10 <= wait_s <= 40, "until so many are there, and no longer"
            release()
            first.result().raise_for_status()
        # Settled: of all that was reserved, little was used.
        http.post(CHAT, json=chat("up/answer", max_tokens=600)).raise_for_status()


def test_what_was_used_is_settled(limited: Gateway, upstream: Provider) -> None:
    async def costly(x: Exchange) -> None:
        usage = wire.dump(wire.USAGE | {"prompt_tokens": 1500, "completion_tokens": 900, "total_tokens": 2400})
        if x.streams:
            x.begin()
            for frame in (wire.opening(), wire.word("a"), wire.finish(), wire.chunk(b"[]", usage), wire.DONE):
                x.send(frame)
            x.end()
        else:
            x.answer(wire.completion().replace(wire.dump(wire.USAGE), usage))

    upstream.scripts["costly"] = costly
    with speaker(limited, "settled") as http:
        body = chat("up/costly", max_tokens=5, stream=True)
        http.post(CHAT, json=body).raise_for_status()
        assert 50 <= refusal(http.post(CHAT, json=body), "tokens") <= 120, "it owes twice what a minute gives"


def test_a_request_that_nobody_worked_on_costs_no_tokens(limited: Gateway, upstream: Provider) -> None:
    with speaker(limited, "failed") as http:
        for _ in range(3):
            assert http.post(CHAT, json=chat("up/status:400", max_tokens=TOKENS)).status_code == 400
            assert http.post(CHAT, json=chat("nowhere/x", max_tokens=TOKENS)).status_code == 404
        http.post(CHAT, json=chat("up/answer", max_tokens=TOKENS)).raise_for_status()


def test_a_request_larger_than_the_limit_is_not_locked_out(limited: Gateway, upstream: Provider) -> None:
    with speaker(limited, "long") as http:
        http.post(CHAT, json=chat("up/answer", max_tokens=100 * TOKENS)).raise_for_status()


@pytest.mark.parametrize("number", ["9" * 30, "9" * 400, "9" * 5000, "1e999999999"])
def test_a_bound_without_end_is_only_a_large_one(limited: Gateway, upstream: Provider, number: str) -> None:
    body = json.dumps(small()).replace(": 5", f": {number}").encode()
    with speaker(limited, "huge") as http:
        within = body.replace(b'"Hi"', b'"base64", "name": %b' % number.encode())
        for sent in (body, body.replace(b'"max_tokens"', b'"n"'), within):
            answer = http.post(CHAT, content=sent, headers={"content-type": "application/json"})
            assert answer.status_code in (200, 429), answer.text


def test_a_stream_holds_its_place_until_it_ends(limited: Gateway, upstream: Provider) -> None:
    upstream.scripts["held"], release = held()
    with speaker(limited, "streams") as http:
        with ExitStack() as streams:
            body = chat("up/held", max_tokens=5, stream=True)
            opened = [streams.enter_context(http.stream("POST", CHAT, json=body)) for _ in range(AT_ONCE)]
            refused = http.post(CHAT, json=small())
            assert refusal(refused, "requests") == 1
            assert "at once" in error_of(refused)["message"]
            release()
            for stream in opened:
                assert stream.read().endswith(b"data: [DONE]\n\n")
        http.post(CHAT, json=small()).raise_for_status()


def test_a_client_that_leaves_gives_its_place_back(limited: Gateway, upstream: Provider) -> None:
    upstream.scripts["stalling"] = stall
    asking = post(
        CHAT,
        json.dumps(chat("up/stalling", max_tokens=5, stream=True)).encode(),
        f"authorization: Bearer {key_of('left')}",
        "content-type: application/json",
    )
    with speaker(limited, "left") as http:
        with raw(limited.port, asking), raw(limited.port, asking):
            upstream.asked(count=AT_ONCE)
            refusal(http.post(CHAT, json=small()), "requests")
        until(lambda: http.post(CHAT, json=small()).status_code == 200)


def test_an_anthropic_client_reads_it_in_its_own_shape(limited: Gateway, upstream: Provider) -> None:
    with anthropic.Anthropic(base_url=limited.url, auth_token=key_of("anthropic"), max_retries=0) as client:

        def ask() -> anthropic.types.Message:
            return client.messages.create(model="up/answer", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])

        for _ in range(PER_MINUTE):
            ask()
        with pytest.raises(anthropic.RateLimitError) as refused:
            ask()
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
    assert body["request_id"] == refused.value.response.headers["request-id"]
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 120


def test_an_openai_client_reads_it(limited: Gateway, upstream: Provider) -> None:
    with openai.OpenAI(base_url=f"{limited.url}/v1", api_key=key_of("sdk"), max_retries=0) as client:
        for _ in range(PER_MINUTE):
            client.chat.completions.create(**small())
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**small(), stream=True)
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 120


# --- What a user, a tenant and a model may use, and how a client stands -----------------------------


PROVIDERS_HEADERS = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-reset-tokens": "6m0s",
}


@pytest.fixture(scope="module")
def running_governed(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = [
        {"name": name, "key": key_of(name), "tenant": "rivals" if name == "other" else "acme"}
        for name in ("requests", "tokens", "streams", "sdk", "other", "anthropic")
    ]
    tree = {
        "auth": {"mode": "api_key", "keys": keys},
        "limits": {
            "keys": {"tokens": {"tokens_per_minute": 100_000, "requests_per_minute": 500}},
            "users": {"requests": {"requests_per_minute": 2}},
            "tenants": {"acme": {"requests_per_minute": 1000}, "rivals": {"concurrent": 1}},
            "models": {"up/answer:rare": {"requests_per_minute": 1}, "up/sco*": {"tokens_per_minute": 50}},
        },
        "backends": {"up": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"}},
    }
    with gateway(tmp_path_factory.mktemp("governed"), tree) as house:
        yield house


@pytest.fixture
def governed(running_governed: Gateway, upstream: Provider) -> Gateway:
    return running_governed


def test_a_refusal_says_whose_limit_it_is_and_no_more(governed: Gateway, upstream: Provider) -> None:
    async def rare(x: Exchange, *_: str) -> None:
        x.answer(wire.completion())

    upstream.scripts["answer:rare"] = rare
    with speaker(governed, "requests") as http, speaker(governed, "sdk") as other:
        for _ in range(2):
            http.post(CHAT, json=small()).raise_for_status()
        refused = http.post(CHAT, json=small())
        assert 1 <= refusal(refused, "requests") <= 30
        assert error_of(refused)["message"].startswith("This user may make 2 requests a minute. Try again in ")
        assert refused.headers["x-ratelimit-limit-requests"] == "2"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"][-1] == "s"

        other.post(CHAT, json=small() | {"model": "up/answer:rare"}).raise_for_status()
        refused = other.post(CHAT, json=small() | {"model": "up/answer:rare"})
        assert refusal(refused, "requests") > 1
        assert error_of(refused)["message"].startswith("Everybody together, with this model, may make 1 requests")
        assert "acme" not in refused.text
        other.post(CHAT, json=small()).raise_for_status()


def test_a_client_is_told_how_it_stands(governed: Gateway, upstream: Provider) -> None:
    async def limited(x: Exchange) -> None:
        x.answer(wire.completion(), **PROVIDERS_HEADERS)

    upstream.scripts["limited"] = limited
    with speaker(governed, "tokens") as http, speaker(governed, "streams") as other:
        got = http.post(CHAT, json=chat("up/limited", max_tokens=500)).headers
        assert (got["x-ratelimit-limit-requests"], got["x-ratelimit-limit-tokens"]) == ("500", "100000")
        assert got["x-ratelimit-remaining-requests"] == "499"
        assert 99_000 < int(got["x-ratelimit-remaining-tokens"]) < 99_500
        assert got["x-ratelimit-reset-requests"] == "120ms"
        assert len(got.get_list("x-ratelimit-limit-requests")) == 1, "ours alone"
        with http.stream("POST", CHAT, json=chat("up/answer", stream=True)) as stream:
            assert stream.headers["x-ratelimit-remaining-requests"] in ("498", "499")
        got = http.post(CHAT, json=chat("up/status:500")).headers
        assert got["x-ratelimit-limit-requests"] == "500", "on errors as well"
        # Where the gateway does not limit tokens, the provider's word passes.
        got = other.post(CHAT, json=chat("up/limited")).headers
        assert (got["x-ratelimit-limit-requests"], got["x-ratelimit-limit-tokens"]) == ("1000", "2000000")


def test_an_anthropic_client_is_told_in_its_own_way(governed: Gateway) -> None:
    with anthropic.Anthropic(base_url=governed.url, auth_token=key_of("tokens"), max_retries=0) as client:
        raw_answer = client.messages.with_raw_response.create(
            model="up/answer", max_tokens=5, messages=[{"role": "user", "content": "Hi"}]
        )
    got = raw_answer.headers
    assert got["anthropic-ratelimit-requests-limit"] == "500"
    assert int(got["anthropic-ratelimit-requests-remaining"]) < 500
    assert int(got["anthropic-ratelimit-tokens-remaining"]) < 100_000
    at = datetime.fromisoformat(got["anthropic-ratelimit-requests-reset"])
    assert abs((at - datetime.now(UTC)).total_seconds()) < 30
    assert not any(name.startswith("x-ratelimit") for name in got)


def test_counting_tokens_uses_a_request_and_no_tokens(governed: Gateway) -> None:
    with speaker(governed, "tokens") as http:
        body = {"model": "up/answer", "messages": [{"role": "user", "content": "Hi " * 2000}]}
        before = {row["unit"]: row["remaining"] for row in http.get("/v1/limits").json()["data"] if row["of"] == "key"}
        http.post("/v1/messages/count_tokens", json=body)
        after = {row["unit"]: row["remaining"] for row in http.get("/v1/limits").json()["data"] if row["of"] == "key"}
    assert after["tokens_per_minute"] >= before["tokens_per_minute"]


def test_what_binds_a_caller_can_be_looked_up(governed: Gateway) -> None:
    with speaker(governed, "other") as http:
        assert http.get("/v1/limits").json() == {
            "object": "list",
            "next_cursor": None,
            "data": [
                {
                    "object": "limit",
                    "of": "tenant",
                    "name": "rivals",
                    "unit": "concurrent",
                    "limit": 1,
                    "remaining": 1,
                    "resets_at": None,
                }
            ],
        }
        rows = http.get("/v1/limits", params={"model": "up/scored"}).json()["data"]
        assert [(row["of"], row["name"], row["unit"]) for row in rows] == [
            ("tenant", "rivals", "concurrent"),
            ("model", "up/sco*", "tokens_per_minute"),
        ]
        assert error_of(http.get("/v1/limits", params={"model": "none/such"}))["code"] == "model_not_found"


def test_limits_that_change_go_on_from_what_was_used(running_provider: Provider, tmp_path: Path) -> None:
    def tree(most: int) -> dict[str, Any]:
        return {
            "data_dir": str(tmp_path / "data"),
            "limits": {"default": {"requests_per_minute": most}},
            "backends": {"up": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"}},
        }

    with gateway(tmp_path, tree(1000)) as house, speaking(house) as http:
        for _ in range(5):
            http.post(CHAT, json=small()).raise_for_status()
        seen = len(house.lines)
        port = {"server": {"port": 0}}
        (tmp_path / "config.yaml").write_bytes(msgspec.yaml.encode(tree(6) | port))
        house.wait_for("config_reloaded", since=seen)
        assert http.post(CHAT, json=small()).headers["x-ratelimit-limit-requests"] == "6"


# --- What a backend takes at once -------------------------------------------------------------------


@pytest.fixture(scope="module")
def running_narrow(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    url = running_provider.url
    tree = {
        "auth": {"mode": "api_key", "keys": [{"name": name, "key": key_of(name)} for name in ("requests", "other")]},
        "backends": {
            "narrow": {"kind": "openai", "base_url": url, "api_key": "k", "concurrent": 1, "queue_max": QUEUE_MAX},
            "slow": {"kind": "openai", "base_url": url, "api_key": "k", "concurrent": 1},
            "wide": {"kind": "openai", "base_url": url, "api_key": "k"},
        },
        "models": {
            "long": {"routes": ["slow/held"], "retries": 0},
            "long or else": {"routes": ["slow/held", "wide/answer"], "retries": 0},
            "once": {"routes": ["narrow/held"], "retries": 0},
            "either": {"routes": ["narrow/held", "wide/answer"], "retries": 0},
        },
    }
    with gateway(tmp_path_factory.mktemp("narrow"), tree) as house:
        yield house


class Crowd:
    """Clients before a backend that has one place."""

    def __init__(self, house: Gateway, upstream: Provider, pool: ThreadPoolExecutor) -> None:
        self.house = house
        self.upstream = upstream
        self._pool = pool
        self.upstream.scripts["held"], self.release = held()

    def ask(self, text: str, key: str = "requests", model: str = "once", **headers: str) -> "Future[httpx2.Response]":
        return self._pool.submit(self._ask, text, key, model, {k.replace("_", "-"): v for k, v in headers.items()})

    def _ask(self, text: str, key: str, model: str, headers: dict[str, str]) -> httpx2.Response:
        with speaker(self.house, key) as http:
            return http.post(CHAT, json=chat(model, text), headers=headers)

    def wait(self, count: int) -> None:
        """Until so many are in the queue."""
        until(lambda: metric(self.house.url, "pluggably_waiting", backend="narrow") == count)

    @property
    def served(self) -> list[str]:
        return [str(x.json["messages"][0]["content"]) for x in self.upstream.seen if x.model == "held"]


@pytest.fixture
def crowd(running_narrow: Gateway, upstream: Provider) -> Iterator[Crowd]:
    with ThreadPoolExecutor(8) as pool:
        crowd = Crowd(running_narrow, upstream, pool)
        try:
            yield crowd
        finally:
            crowd.release()
    crowd.wait(0)


def held() -> tuple[Any, Any]:
    """A script whose answers end when they are let go, and what lets them."""
    go = threading.Event()

    async def hold(x: Exchange) -> None:
        if x.streams:
            x.begin()
            x.send(wire.opening())
            x.send(wire.word("word0 "))
        while not go.is_set():
            await asyncio.sleep(0.01)
        if not x.streams:
            await events(x)
            return
        for frame in (wire.finish(), wire.totals(), wire.DONE):
            x.send(frame)
        x.end()

    return hold, go.set


def test_requests_wait_in_a_queue_that_is_fair_and_bounded(crowd: Crowd) -> None:
    first = crowd.ask("first")
    crowd.upstream.asked("first")
    second = crowd.ask("second")
    crowd.wait(1)
    third = crowd.ask("third")
    crowd.wait(2)

    refused = crowd.ask("too many").result()
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["code"]) == (503, "server_error", "queue_full")
    assert 1 <= int(refused.headers["retry-after"]) <= 120

    elsewhere = crowd.ask("elsewhere", model="either").result()
    assert elsewhere.status_code == 200
    assert elsewhere.headers["x-gateway-model"] == "wide/answer"

    # Another key's first request comes before this one's second, and takes the last one's place.
    other = crowd.ask("other", key="other")
    displaced = third.result()
    assert (displaced.status_code, error_of(displaced)["code"]) == (503, "queue_full")

    crowd.release()
    assert "x-gateway-queue-position" not in first.result().headers
    assert second.result().headers["x-gateway-queue-position"] == "0"
    assert other.result().headers["x-gateway-queue-position"] == "1"
    assert crowd.served == ["first", "second", "other"]


def test_who_would_wait_too_long_is_told_at_once(crowd: Crowd) -> None:
    first = crowd.ask("how long it takes", model="long")
    crowd.upstream.asked("how long")
    time.sleep(2.0)
    crowd.release()
    first.result().raise_for_status()

    crowd.upstream.scripts["held"], crowd.release = held()
    crowd.ask("holds the place", model="long")
    crowd.upstream.asked("holds")
    began = time.monotonic()
    refused = crowd.ask("in a hurry", model="long", x_request_timeout="1.3").result()
    assert time.monotonic() - began < 1.2, "it was told before its time was up"
    assert (refused.status_code, error_of(refused)["code"]) == (503, "server_is_overloaded")
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert len(crowd.served) == 2
    assert crowd.ask("in a hurry", model="long or else", x_request_timeout="1.3").result().status_code == 200


def test_who_leaves_the_queue_makes_room(crowd: Crowd) -> None:
    first = crowd.ask("first")
    crowd.upstream.asked("first")
    second = crowd.ask("second")
    crowd.wait(1)
    leaving = post(
        CHAT,
        json.dumps(chat("once", "leaving")).encode(),
        f"authorization: Bearer {key_of('requests')}",
        "content-type: application/json",
    )
    with raw(crowd.house.port, leaving):
        crowd.wait(2)
    crowd.wait(1)
    third = crowd.ask("third")
    crowd.wait(2)
    crowd.release()
    assert [asked.result().status_code for asked in (first, second, third)] == [200, 200, 200]
    assert crowd.served == ["first", "second", "third"]


def test_a_stream_keeps_its_place_until_its_client_leaves(crowd: Crowd) -> None:
    with (
        speaker(crowd.house, "other") as http,
        http.stream("POST", CHAT, json=chat("once", "streamed", stream=True)) as stream,
    ):
        assert stream.status_code == 200
        crowd.upstream.asked("streamed")
        second = crowd.ask("second")
        crowd.wait(1)
    crowd.wait(0)
    crowd.upstream.asked("second")
    crowd.release()
    assert second.result().status_code == 200
