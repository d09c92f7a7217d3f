"""A backend asks the house's own models: in the caller's name, on the caller's configuration, within their limits."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import msgspec
import pytest

from tests import wire
from tests.backends.scenes import TABLE, describing
from tests.exchange import Exchange
from tests.gateway.conftest import ADMIN_KEY
from tests.http import error_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import tell

MESHES = "/v1/3d/generations"
QUICK = "import gateway.app as app; app.RELOAD_S = 0.05"
KEYS = {
    name: f"{name}-key-canary-0123456789"
    for name in ("app", "single", "thrifty", "talker", "builder", "outsider", "modest")
}
USAGE = wire.USAGE


def config(provider_url: str, described_by: str = "up/artist") -> dict[str, Any]:
    keys: list[dict[str, Any]] = [{"name": name, "key": key} for name, key in KEYS.items()]
    named = {one["name"]: one for one in keys}
    named["builder"]["models"] = ["scene/*"]
    named["outsider"]["backends"] = ["scene"]
    return {
        "backends": {
            "up": {"kind": "openai", "base_url": provider_url, "api_key": "upstream-key-canary-3381"},
            "scene": {"kind": "scene", "model": "smart"},
            "loop": {"kind": "scene", "model": "loop/loop"},
            "chain": {"kind": "scene", "model": "scene/smart"},
            "lost": {"kind": "scene", "model": "nowhere"},
        },
        "models": {"smart": {"routes": [described_by]}, "auto": {"routes": [described_by]}},
        "prices": {"up/*": {"input": 1000, "output": 1000}},
        "limits": {
            "keys": {
                "single": {"requests_per_minute": 1, "concurrent": 1},
                "thrifty": {"budget_usd_per_day": 0.001},
                "talker": {"tokens_per_minute": 100},
                "modest": {"budget_usd_per_day": 1000},
            }
        },
        "auth": {"mode": "api_key", "keys": [*keys, {"name": "root", "key": ADMIN_KEY, "scopes": ["admin"]}]},
    }


@pytest.fixture(scope="module")
def running_house(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("asking"), config(running_provider.url), prelude=QUICK) as running:
        yield running


@pytest.fixture
def house(running_house: Gateway, upstream: Provider) -> Gateway:
    upstream.scripts["artist"] = describing(TABLE)
    return running_house


def build(house: Gateway, key: str = "app", model: str = "scene/smart", **headers: str) -> httpx2.Response:
    asked = {"model": model, "prompt": "a table", "response_format": "b64_json"}
    head = {"authorization": f"Bearer {KEYS[key]}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(house.url + MESHES, json=asked, headers=head, timeout=60)


def rows(house: Gateway, answer: httpx2.Response) -> list[dict[str, Any]]:
    """The usage rows of a request and what was asked for it, in the order in which they were over."""
    id_ = answer.headers["x-request-id"]

    def found() -> list[dict[str, Any]]:
        listed = httpx2.get(f"{house.url}/v1/usage?limit=50", headers={"authorization": f"Bearer {ADMIN_KEY}"}).json()
        return [row for row in reversed(listed["data"]) if row["request_id"].startswith(id_)]

    return until(lambda: [*found()] if len(found()) > 1 else None)


def test_what_is_asked_is_a_row_of_its_own(house: Gateway, upstream: Provider) -> None:
    answer = build(house)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["mesh"]["watertight"] is True
    assert upstream.asked().json["messages"][1]["content"] == "a table"
    by_route = {row["route"]: row for row in rows(house, answer)}
    asked, mesh = by_route["ask"], by_route[MESHES]
    assert (asked["backend"], asked["model"], asked["requested_model"]) == ("up", "artist", "smart")
    assert (asked["input_tokens"], asked["output_tokens"]) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert asked["cost_usd"] == pytest.approx(0.021)
    assert (asked["key"], asked["status"], asked["streamed"]) == ("app", 200, True)
    assert (mesh["backend"], mesh["model"], mesh["cost_usd"]) == ("scene", "smart", 0)
    assert mesh["input_tokens"] is None
    assert asked["request_id"].startswith(mesh["request_id"] + "_")


def test_it_counts_as_no_further_request(house: Gateway) -> None:
    assert build(house, "single").status_code == 200
    refused = build(house, "single")
    assert refused.status_code == 429
    assert error_of(refused)["type"] == "requests"


def test_its_price_counts_for_the_caller_s_budget(house: Gateway, upstream: Provider) -> None:
    refused = build(house, "thrifty")
    assert refused.status_code == 429
    assert error_of(refused)["code"] == "budget_exceeded"
    assert not upstream.seen
    assert build(house, "modest").status_code == 200


def test_its_tokens_count_for_the_caller_s_limit(house: Gateway, upstream: Provider) -> None:
    refused = build(house, "talker")
    assert refused.status_code == 429
    assert error_of(refused)["type"] == "tokens"
    assert not upstream.seen


def test_a_key_for_meshes_may_have_them_described_but_not_by_a_backend_it_may_not_use(house: Gateway) -> None:
    assert build(house, "builder").status_code == 200
    refused = build(house, "outsider")
    assert (refused.status_code, error_of(refused)["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("loop/loop/loop", 400, "leads back to that backend"),
        ("chain/scene/smart", 400, "does not do text"),
        ("lost/nowhere", 400, "leads back to that backend"),  # which is the only one that has such a model
    ],
)
def test_one_that_asks_itself_or_nobody_is_refused(house: Gateway, model: str, status: int, words: str) -> None:
    answer = build(house, model=model)
    assert answer.status_code == status
    assert words in error_of(answer)["message"]


def test_what_the_request_allows_holds_for_what_it_asks(house: Gateway, upstream: Provider) -> None:
    refused = build(house, x_gateway_selection_mode="local_only")
    assert refused.status_code == 400
    assert "local_only" in error_of(refused)["message"]
    assert not upstream.seen
    assert build(house, x_request_timeout="0.3").status_code in (200, 504)


def test_the_provider_s_trouble_is_told(house: Gateway, upstream: Provider) -> None:
    async def busy(x: Exchange) -> None:
        x.answer(wire.error("Slow down."), "429 Too Many Requests", retry_after="30")

    upstream.scripts["artist"] = busy
    refused = build(house)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert len(upstream.seen) == 1


def test_whoever_leaves_stops_what_is_asked(house: Gateway, upstream: Provider) -> None:
    async def endless(x: Exchange) -> None:
        x.begin()
        while True:
            x.send(wire.word(" ", None))
            await asyncio.sleep(0.01)

    upstream.scripts["artist"] = endless
    asked = {"model": "scene/smart", "prompt": "a table"}
    with (
        httpx2.Client(base_url=house.url, headers={"authorization": f"Bearer {KEYS['app']}"}) as http,
        pytest.raises(httpx2.TimeoutException),
    ):
        http.post(MESHES, json=asked, timeout=httpx2.Timeout(10, read=0.5))
    assert upstream.asked().left_within(1.0, time.monotonic())


def test_it_goes_on_with_the_configuration_it_began_with(house: Gateway, upstream: Provider) -> None:
    reloaded = threading.Event()

    async def first_badly(x: Exchange) -> None:
        if len(upstream.seen) == 1:
            await asyncio.to_thread(reloaded.wait, 10)
            await tell(x, wire.stream(["A table."], include_usage=x.wants_usage))
        else:
            await describing(TABLE)(x)

    upstream.scripts["artist"] = first_badly
    path = house.folder / "config.yaml"
    before = path.read_bytes()
    try:
        with ThreadPoolExecutor() as pool:
            building = pool.submit(build, house)
            upstream.asked()
            mark = len(house.log)
            tree = msgspec.yaml.decode(before)
            tree["models"]["smart"]["routes"] = ["up/stranger"]
            fresh = path.with_suffix(".new")
            fresh.write_bytes(msgspec.yaml.encode(tree))
            fresh.replace(path)
            house.wait_for("config_reloaded", since=mark)
            reloaded.set()
            assert building.result().status_code == 200
        assert [x.model for x in upstream.seen] == ["artist", "artist"]
        assert build(house).status_code == 404, "and the next one with the new"
        assert upstream.seen[-1].model == "stranger"
    finally:
        mark = len(house.log)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(before)
        fresh.replace(path)
        house.wait_for("config_reloaded", since=mark)


def test_the_secrets_of_what_is_asked_are_in_no_log(house: Gateway) -> None:
    assert build(house).status_code == 200
    assert "canary-3381" not in json.dumps(house.log)
