"""Two gateways that count together in Valkey: exact, also when one is killed, and serving when Valkey is gone."""

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.exchange import Exchange
from tests.gateway.conftest import speaking
from tests.http import CHAT, chat, error_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.valkey import Server, valkey_server

KEYS = ("crowd", "places", "local")
PER_MINUTE, AT_ONCE, CROWD = 30, 3, 90
HURRIED = "import gateway.limits.shared as shared; shared.LEASE_S, shared.RENEW_S = 3, 0.5"
"""Places of a gateway that was killed are free again after seconds, not most of a minute."""


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}-valkey-canary-90c2"}


def config(provider_url: str, store: str) -> dict[str, Any]:
    return {
        "auth": {"mode": "api_key", "keys": [{"name": key, "key": f"{key}-valkey-canary-90c2"} for key in KEYS]},
        "limits": {
            "keys": {"crowd": {"requests_per_minute": PER_MINUTE}, "places": {"concurrent": AT_ONCE}},
            "tenants": {"*": {"requests_per_minute": 100_000, "tokens_per_minute": 100_000_000}},
            "store": store,
        },
        "backends": {"up": {"kind": "openai", "base_url": provider_url, "api_key": "k"}},
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey_server() as running:
        yield running


@pytest.fixture(scope="module")
def running(
    server: Server, running_provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Gateway]]:
    with ExitStack() as stack:
        first, second = [
            stack.enter_context(
                gateway(tmp_path_factory.mktemp("pair"), config(running_provider.url, server.url), prelude=HURRIED)
            )
            for _ in range(2)
        ]
        yield first, second


@pytest.fixture
def pair(running: tuple[Gateway, Gateway], upstream: Provider) -> tuple[Gateway, Gateway]:
    """Two gateways on one server; the last test may kill the first."""
    return running


def crowd(*houses: Gateway) -> list[int]:
    """The statuses that so many get who ask all at once."""

    async def ask() -> list[int]:
        async with httpx2.AsyncClient(headers=headers("crowd"), timeout=60, verify=False) as http:
            asking = (http.post(houses[n % len(houses)].url + CHAT, json=chat("up/answer")) for n in range(CROWD))
            return [answer.status_code for answer in await asyncio.gather(*asking)]

    return asyncio.run(ask())


def test_two_gateways_count_as_one(pair: tuple[Gateway, Gateway], upstream: Provider, server: Server) -> None:
    first, second = pair
    began = time.monotonic()
    statuses = crowd(first, second)
    let_in = statuses.count(200)
    assert PER_MINUTE <= let_in <= PER_MINUTE + (time.monotonic() - began) * PER_MINUTE / 60
    assert len(upstream.seen) == let_in
    assert let_in + statuses.count(429) == CROWD
    with speaking(second, headers("crowd")) as http:
        refused = http.post(CHAT, json=chat("up/answer"))
        if refused.status_code == 429:
            assert error_of(refused)["code"] == "rate_limit_exceeded"
            assert refused.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        (row, *_) = http.get("/v1/limits").json()["data"]
        assert (row["unit"], row["limit"]) == ("requests_per_minute", PER_MINUTE)
        assert row["remaining"] < PER_MINUTE

        # Gone: each gateway counts for itself, nobody waits, and nobody is refused for it.
        server.stop()
        assert [http.post(CHAT, json=chat("up/answer")).status_code for _ in range(PER_MINUTE)] == [200] * PER_MINUTE
        second.wait_for("limits_store_lost")
        server.start()
        second.wait_for("limits_store_back", 20)
        assert sum(line.get("event") == "limits_store_lost" for line in second.log) == 1
        assert http.post(CHAT, json=chat("up/answer")).headers["x-ratelimit-remaining-requests"] == str(PER_MINUTE - 1)


def test_places_of_a_gateway_that_was_killed_are_free_again(pair: tuple[Gateway, Gateway], upstream: Provider) -> None:
    async def never(x: Exchange) -> None:
        await asyncio.sleep(60)

    upstream.scripts["never"] = never
    killed, alive = pair
    with (
        ThreadPoolExecutor(AT_ONCE) as pool,
        speaking(killed, headers("places")) as http,
        speaking(alive, headers("places")) as other,
    ):
        asking = [pool.submit(http.post, CHAT, json=chat("up/never", f"number {n}")) for n in range(AT_ONCE)]
        for n in range(AT_ONCE):
            upstream.asked(f"number {n}")
        time.sleep(4)
        refused = other.post(CHAT, json=chat("up/answer"))
        assert refused.status_code == 429, "a place is renewed while its request is under way"
        assert "3 requests under way" in error_of(refused)["message"]
        killed.stop(signal.SIGKILL)
        until(lambda: other.post(CHAT, json=chat("up/answer")).status_code == 200, 15)
        for one in asking:
            with pytest.raises(httpx2.HTTPError):
                one.result()
