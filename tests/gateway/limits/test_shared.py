"""Counting on a server, by the same arithmetic as in one process: held against a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from compat.canonical.error import LimitReached
from gateway.limits import shared
from gateway.limits.binding import Account, bindings
from gateway.limits.counters import OWED_MAX, Refused
from gateway.limits.shared import Away, Held, Shared
from gateway.settings import Limit, Limits
from tests.gateway.limits.desk import grant
from tests.valkey import Server, valkey_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey_server() as running:
        yield running


@asynccontextmanager
async def counting(server: Server) -> AsyncIterator[Shared]:
    """As one process does."""
    store = Shared(server.url)
    try:
        yield store
    finally:
        await store.aclose()


def account(
    name: str, requests: int | None = None, tokens: int | None = None, concurrent: int | None = None
) -> Account:
    limit = Limit(requests_per_minute=requests, tokens_per_minute=tokens, concurrent=concurrent)
    return bindings(Limits(default=limit), grant(name))[0]


async def try_in(store: Shared, accounts: Sequence[Account], tokens: float = 0.0) -> Held | LimitReached:
    try:
        return await store.enter(accounts, tokens)
    except Refused as e:
        return e.error


async def entered(stores: Sequence[Shared], accounts: Sequence[Account], count: int) -> list[Held]:
    """Those let in of so many at once, spread over processes."""
    asking = (try_in(stores[n % len(stores)], accounts) for n in range(count))
    return [one for one in await asyncio.gather(*asking) if isinstance(one, Held)]


def is_up(store: Shared) -> bool:
    return store.up


async def test_requests_are_exact_over_processes(server: Server) -> None:
    one = account("exact", requests=50)
    async with counting(server) as first, counting(server) as second:
        began = time.monotonic()
        let_in = len(await entered([first, second], [one], 300))
        assert 50 <= let_in <= 50 + (time.monotonic() - began) * 50 / 60
        refused = await try_in(first, [one])
        assert isinstance(refused, LimitReached)
        assert refused.retry_after_s is not None
        assert 0 < refused.retry_after_s <= 60 / 50
        await asyncio.sleep(refused.retry_after_s + 0.01)
        assert isinstance(await try_in(second, [one]), Held), "the wait it names is enough"


async def test_requests_at_once_are_exact_over_processes(server: Server) -> None:
    one = account("at once", concurrent=10)
    async with counting(server) as first, counting(server) as second:
        held = await entered([first, second], [one], 40)
        assert len(held) == 10
        assert [(await store.look([one]))[0][2] for store in (first, second)] == [10, 10]
        for n, place in enumerate(held):
            (first, second)[n % 2].leave(place, 0.0)
        await asyncio.sleep(0.1)
        assert len(await entered([second], [one], 40)) == 10


async def test_tokens_are_reserved_and_then_settled(server: Server) -> None:
    one = account("tokens", tokens=10_000)
    async with counting(server) as store:

        async def left() -> float:
            return (await store.look([one]))[0][1]

        held = await store.enter([one], 4000.0)
        assert held.tokens_level is not None
        assert held.tokens_level.left == pytest.approx(6000, abs=200)
        store.leave(held, 1000.0)
        assert await left() == pytest.approx(9000, abs=500)
        store.leave(await store.enter([one], 5000.0), None)
        assert await left() == pytest.approx(4000, abs=900), "nobody knows what was used"
        store.undo(await store.enter([one], 3000.0))
        assert await left() == pytest.approx(4000, abs=1200)
        store.leave(await store.enter([one], 1000.0), 20_000.0)
        assert await left() < -10_000, "what was used above is owed"
        refused = await try_in(store, [one], 100.0)
        assert isinstance(refused, LimitReached)
        assert refused.type == "tokens"


async def test_nonsense_about_usage_locks_nobody_out_for_long(server: Server) -> None:
    one = account("nonsense", requests=10, tokens=10_000)
    async with counting(server) as store:
        for held in [await store.enter([one], 100.0) for _ in range(3)]:
            store.leave(held, 1e9)
        (requests, tokens, _) = (await store.look([one]))[0]
    assert requests == pytest.approx(7, abs=1)
    assert tokens == pytest.approx(-OWED_MAX * 10_000, abs=1000)


async def test_a_request_is_entered_in_all_of_its_accounts_or_in_none(server: Server) -> None:
    several = [account("all", requests=100), account("few", requests=5, tokens=1000), account("at all", concurrent=50)]
    async with counting(server) as store:
        assert len(await entered([store], several, 50)) == 5
        standing = await store.look(several)
        assert standing[0][0] == pytest.approx(95, abs=3)
        assert standing[2][2] == 5
        with pytest.raises(Refused, match="5 requests a minute") as refused:
            await store.enter(several, 0.0)
        requests, _ = refused.value.levels
        assert requests is not None
        assert requests.size == 5


async def test_a_limit_that_changes_goes_on_from_what_was_used(server: Server) -> None:
    async with counting(server) as store:
        assert len(await entered([store], [account("grows", requests=5)], 20)) == 5
        assert len(await entered([store], [account("grows", requests=12)], 20)) in (7, 8)


async def test_places_of_a_process_that_was_killed_run_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LEASE_S", 2)
    monkeypatch.setattr(shared, "RENEW_S", 0.3)
    one = account("leases", concurrent=2)
    async with counting(server) as alive, counting(server) as killed:
        kept = await alive.enter([one], 0.0)
        await killed.enter([one], 0.0)
        assert killed._renewing is not None
        killed._renewing.cancel()
        assert isinstance(await try_in(alive, [one]), LimitReached)
        await asyncio.sleep(2.5)
        assert isinstance(await try_in(alive, [one]), Held)
        assert isinstance(await try_in(alive, [one]), LimitReached), "the other one's place is renewed"
        alive.leave(kept, 0.0)
        await asyncio.sleep(0.1)
        assert isinstance(await try_in(alive, [one]), Held)


async def test_who_leaves_while_waiting_holds_nothing(server: Server) -> None:
    one = account("cancelled", concurrent=50, requests=1000)
    async with counting(server) as store:
        await store.look([one])
        asking = [asyncio.create_task(store.enter([one], 0.0)) for _ in range(40)]
        for n, task in enumerate(asking):
            if n % 5 == 0:
                await asyncio.sleep(0)
            task.cancel()
        got = await asyncio.gather(*asking, return_exceptions=True)
        for held in got:
            if isinstance(held, Held):
                store.leave(held, 0.0)
        await asyncio.sleep(0.2)
        assert (await store.look([one]))[0][2] == 0


async def test_a_server_that_is_lost_is_noticed_once_and_found_again() -> None:
    one = account("lost", requests=1000)
    with valkey_server() as server:
        async with counting(server) as store:
            await store.enter([one], 0.0)
            server.stop()
            with pytest.raises(Away):
                await store.enter([one], 0.0)
            assert not is_up(store)
            server.start()
            async with asyncio.timeout(20):
                while not is_up(store):
                    await asyncio.sleep(0.05)
            assert isinstance(await store.enter([one], 0.0), Held), "although it has forgotten everything"


async def test_a_server_that_forgot_its_scripts_is_taught_them_again(server: Server) -> None:
    one = account("taught", requests=100)
    async with counting(server) as store:
        await store.enter([one], 0.0)
        assert store._client is not None
        await store._client.script_flush()
        assert len(await entered([store], [one], 20)) == 20
        assert store.up
