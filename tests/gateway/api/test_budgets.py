"""Budgets as clients meet them: exact under a crowd, over several gateways, after a restart and after kill -9."""

import asyncio
import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import speaking
from tests.gateway.db.postgres import cluster, programs
from tests.http import CHAT, chat, error_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider

CROWD, BUDGET = 300, 150
KEYS = ("spender", "thrifty", "poor", "tokens", "leaver", "counter", "broken", "resumed", "asking", "told")
DAY_S = 86_400
EXPLAIN = {"x-gateway-explain": "true"}


def key_of(name: str) -> str:
    return f"{name}-budget-canary-22e1"


def config(provider_url: str, **limits: Any) -> dict[str, Any]:
    return {
        "auth": {"mode": "api_key", "keys": [{"name": name, "key": key_of(name), "tenant": "acme"} for name in KEYS]},
        "limits": limits,
        "prices": {
            "paid/*": {"request": 1.0},
            "asked/*": {"request": 1.0},
            "metered/*": {"input": 1_000_000, "output": 2_000_000},
            "gone/*": {"input": 1_000_000, "output": 2_000_000},
        },
        "backends": {
            "paid": {"kind": "fake"},
            "metered": {"kind": "openai", "base_url": provider_url, "api_key": "k"},
            "asked": {"kind": "openai", "base_url": provider_url, "api_key": "k"},
            "gone": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k"},
            "unpriced": {"kind": "openai", "base_url": provider_url, "api_key": "k"},
            "free": {"kind": "openai", "base_url": provider_url, "price": "free"},
        },
        "models": {
            "either": {"routes": ["unpriced/answer", "metered/answer"], "retries": 0},
            "failing": {"routes": ["metered/status:500"], "retries": 0},
            "second": {"routes": ["metered/reset", "free/answer"], "retries": 0},
            "resumed": {"routes": ["metered/tear:3", "free/events:10"], "retries": 0, "stream_guard": "resume"},
            "held": {"routes": ["metered/tear:3"], "retries": 0, "stream_guard": "buffer"},
        },
    }


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key_of(key)}"}


def crowd(*urls: str, key: str = "spender") -> list[httpx2.Response]:
    """What so many get who ask all at once."""

    async def ask() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=CROWD, max_keepalive_connections=CROWD)
        async with httpx2.AsyncClient(headers=headers(key), timeout=60, verify=False, limits=limits) as http:
            asking = (http.post(urls[n % len(urls)] + CHAT, json=chat("paid/fake")) for n in range(CROWD))
            return list(await asyncio.gather(*asking))

    return asyncio.run(ask())


def settled(http: httpx2.Client, unit: str = "budget_usd_per_day") -> float:
    """What is left of a budget, once nothing is under way any more."""
    seen: list[float] = []

    def quiet() -> bool:
        seen.append(left(http, unit))
        return len(seen) > 3 and len(set(seen[-3:])) == 1

    until(quiet, 20)
    return seen[-1]


def left(http: httpx2.Client, unit: str = "budget_usd_per_day") -> float:
    rows = http.get("/v1/limits").raise_for_status().json()["data"]
    return float(next(row["remaining"] for row in rows if row["unit"] == unit))


def check_crowd(answers: list[httpx2.Response]) -> None:
    assert Counter(answer.status_code for answer in answers) == {200: BUDGET, 429: CROWD - BUDGET}
    refused = next(answer for answer in answers if answer.status_code == 429)
    error = error_of(refused)
    assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")
    assert error["message"].startswith("This API key may spend $150.00 a day, of which $0.00 is left")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    if DAY_S - time.time() % DAY_S > 180:
        assert refused.headers["x-should-retry"] == "false", "no client waits until tomorrow"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if not programs():
        pytest.skip("PostgreSQL is not installed")
    with cluster() as url:
        yield url


def test_exactly_the_budget_is_spent_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    tree = config("http://127.0.0.1:9/v1", default={"budget_usd_per_day": BUDGET})
    with gateway(tmp_path, tree) as house:
        check_crowd(crowd(house.url))
    with gateway(tmp_path, tree) as house, speaking(house, headers("spender")) as http:
        assert http.post(CHAT, json=chat("paid/fake")).status_code == 429, "it is spent for today"
        assert left(http) == 0
        with speaking(house, headers("thrifty")) as other:
            assert other.post(CHAT, json=chat("paid/fake")).status_code == 200, "each key has its own"


def test_two_gateways_on_one_database_share_the_budget(tmp_path: Path, postgresql: str) -> None:
    tree = config("http://127.0.0.1:9/v1", default={"budget_usd_per_day": BUDGET}) | {"database": {"url": postgresql}}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as running:
        first, second = [running.enter_context(gateway(folder, tree)) for folder in folders]
        check_crowd(crowd(first.url, key="spender"))
        check_crowd(crowd(first.url, second.url, key="thrifty"))
        with speaking(second, headers("spender")) as http:
            assert left(http) == 0, "each knows what the other has spent"


# --- One gateway for the rest -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(
        running_provider.url,
        default={"budget_usd_per_day": 10_000, "requests_per_minute": 1000},
        keys={"poor": {"budget_usd_per_month": 0}, "told": {"budget_usd_per_month": 0, "requests_per_minute": 3}},
    )
    with gateway(tmp_path_factory.mktemp("budgets"), tree) as house:
        yield house


@pytest.fixture
def house(running: Gateway, upstream: Provider) -> Gateway:
    return running


USED = int(wire.USAGE["prompt_tokens"]) + 2 * int(wire.USAGE["completion_tokens"])  # type: ignore[call-overload]
"""Dollars that the provider's answer costs at the prices of `metered`."""


def test_what_an_answer_costs_is_what_is_spent(house: Gateway) -> None:
    with speaking(house, headers("tokens")) as http:
        body = chat("metered/answer", max_tokens=50)
        for stream in (False, True):
            before = left(http)
            http.post(CHAT, json=body | {"stream": stream}).raise_for_status()
            assert settled(http) == pytest.approx(before - USED)
        before = left(http)
        assert http.post(CHAT, json=chat("failing", max_tokens=50)).status_code == 502
        assert http.post(CHAT, json=chat("free/answer", max_tokens=50)).status_code == 200
        assert settled(http) == before, "nobody worked on one, and the other is free"
        refused = http.post(CHAT, json=chat("metered/answer", max_tokens=50_000))
        assert error_of(refused)["code"] == "budget_exceeded"
        assert "this request may cost up to $10" in error_of(refused)["message"]
        assert "a lower limit of output tokens, or a bigger budget" in error_of(refused)["message"]
        assert (refused.headers["x-should-retry"], "retry-after" in refused.headers) == ("false", False)
        assert settled(http) == before
        assert refused.headers["x-ratelimit-limit-requests"] == "1000", "it says how the client stands otherwise"
        http.post(CHAT, json=body).raise_for_status()


def test_a_model_that_nobody_knows_the_price_of_is_refused(house: Gateway, upstream: Provider) -> None:
    with speaking(house, headers("tokens")) as http:
        refused = http.post(CHAT, json=chat("unpriced/answer"), headers=EXPLAIN)
        error = error_of(refused)
        assert (refused.status_code, error["code"], error["param"]) == (403, "price_unknown", "model")
        assert "prices.unpriced/answer" in error["message"]
        assert not upstream.seen
        told = json.loads(refused.headers["x-gateway-explain"])
        left_out = "its price is unknown, and there is a budget"
        assert told["reason"] == "addressed as BACKEND/MODEL"
        assert told["routes"] == [{"route": "unpriced/answer", "outcome": left_out}]
        answer = http.post(CHAT, json=chat("either", max_tokens=5), headers=EXPLAIN)
        first, _ = json.loads(answer.headers["x-gateway-explain"])["routes"]
        assert first == {"route": "unpriced/answer", "outcome": left_out}
        assert answer.headers["x-gateway-model"] == "metered/answer", "a route with a price serves"


def test_a_budget_of_nothing_lets_only_through_what_is_free(house: Gateway) -> None:
    with speaking(house, headers("poor")) as http:
        assert error_of(http.post(CHAT, json=chat("paid/fake")))["code"] == "budget_exceeded"
        assert http.post(CHAT, json=chat("free/answer")).status_code == 200


def test_who_leaves_while_a_provider_works_pays_for_what_was_reserved(house: Gateway, upstream: Provider) -> None:
    go = threading.Event()

    async def slow(x: Exchange) -> None:
        while not go.is_set():
            await asyncio.sleep(0.01)
        x.answer(wire.completion())

    upstream.scripts["slow"] = slow
    with speaking(house, headers("leaver")) as http:
        before = left(http)
        with ThreadPoolExecutor(1) as pool, speaking(house, headers("leaver")) as leaving:
            asking = pool.submit(leaving.post, CHAT, json=chat("metered/slow", max_tokens=100), timeout=1.0)
            upstream.asked()
            held = left(http)
            assert held < before - 200
            with pytest.raises(httpx2.TimeoutException):
                asking.result()
        go.set()
        assert settled(http) == held


def last_cost(http: httpx2.Client) -> float | None:
    """What the usage row of the last request says."""
    found: float | None = http.get("/v1/usage", params={"limit": 1}).raise_for_status().json()["data"][0]["cost_usd"]
    return found


@pytest.mark.parametrize(
    "model", ["metered/silent", "metered/reset", "metered/cut", "metered/tear:3", "held", "second"]
)
def test_what_a_provider_may_have_worked_on_keeps_what_was_reserved(house: Gateway, model: str) -> None:
    with speaking(house, headers("broken")) as http:
        before = left(http)
        stream = model in ("metered/tear:3", "held")
        body = chat(model, max_tokens=100, stream=stream)
        http.post(CHAT, json=body, headers={"x-request-timeout": "1"} if "silent" in model else None)
        assert settled(http) < before - 200
        assert last_cost(http) is None


@pytest.mark.parametrize("model", ["metered/status:429", "metered/status:503", "metered/error_in_200", "gone/x"])
def test_what_nobody_worked_on_costs_nothing(house: Gateway, model: str) -> None:
    with speaking(house, headers("broken")) as http:
        before = left(http)
        assert http.post(CHAT, json=chat(model, max_tokens=100)).is_error
        assert settled(http) == before


def test_a_route_that_began_an_answer_is_paid_when_another_went_on(house: Gateway) -> None:
    with speaking(house, headers("resumed")) as http:
        before = left(http)
        answer = http.post(CHAT, json=chat("resumed", max_tokens=100, stream=True))
        assert "[DONE]" in answer.text
        assert settled(http) < before - 200
        assert last_cost(http) is None


@pytest.mark.parametrize("model", ["asked/tear:2", "asked/reset"])
def test_a_price_by_request_is_paid_when_the_answer_breaks(house: Gateway, model: str) -> None:
    with speaking(house, headers("asking")) as http:
        before = settled(http)
        http.post(CHAT, json=chat(model, stream=True))
        assert settled(http) == before - 1, "once, however many attempts"
        assert last_cost(http) == 1


def test_who_is_refused_for_a_budget_has_used_no_request(house: Gateway) -> None:
    with speaking(house, headers("told")) as http:
        refused = http.post(CHAT, json=chat("paid/fake"))
        assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "3")


def test_counting_tokens_costs_nothing(house: Gateway) -> None:
    with speaking(house, headers("counter")) as http:
        body = {"model": "metered/answer", "messages": [{"role": "user", "content": "Hi"}]}
        http.post("/v1/messages/count_tokens", json=body)
        assert settled(http) == 10_000


def test_what_was_reserved_when_a_gateway_was_killed_stays_spent(tmp_path: Path, upstream: Provider) -> None:
    async def never(x: Exchange) -> None:
        await asyncio.sleep(60)

    upstream.scripts["never"] = never
    tree = config(upstream.url, default={"budget_usd_per_day": 10_000})
    with gateway(tmp_path, tree) as house, speaking(house, headers("spender")) as http:
        http.post(CHAT, json=chat("metered/answer", max_tokens=50)).raise_for_status()
        settled(http)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(http.post, CHAT, json=chat("metered/never", max_tokens=1000))
            upstream.asked("never")
            house.stop(signal.SIGKILL)
            with pytest.raises(httpx2.HTTPError):
                asking.result()
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.db")) as database:
        (spent,) = database.execute("SELECT spent_nanousd FROM budgets").fetchone()
    assert spent >= (USED + 2000) * 10**9
    with gateway(tmp_path, tree) as house, speaking(house, headers("spender")) as http:
        assert left(http) == pytest.approx(10_000 - spent / 10**9)
