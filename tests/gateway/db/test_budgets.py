"""Budgets: exact however many reserve at once, in one process or several, on every database the gateway runs on."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from compat.canonical.error import BudgetReached, Overloaded
from gateway.db.budgets import BudgetRows
from gateway.db.engine import connect, upgrade
from gateway.limits.binding import NANO, Account
from gateway.limits.budgets import Ask, Budgets, Lack, Line, Reservation, Scope, Unsettled, begins_anew, lines
from gateway.settings import Limit

NOW = 1_795_305_600.0
"""2026-11-22, 00:00 UTC."""


def account(name: str = "app", day: float | None = 150, month: float | None = None) -> Account:
    limit = Limit(budget_usd_per_day=day, budget_usd_per_month=month)
    return Account(id=f"key:{name}", kind="key", name=name, tenant="acme", owner="ann", limit=limit)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Budgets]:
    """Budgets as one process has them."""
    engine = connect(url)
    await upgrade(engine)
    budgets = Budgets()
    budgets.open(BudgetRows(engine))
    try:
        yield budgets
    finally:
        await budgets.aclose()
        await engine.dispose()


async def total(budgets: Budgets, of: Sequence[Line]) -> list[int]:
    spent = await budgets.spent([line.scope for line in of])
    return [spent[line.scope] for line in of]


async def attempt(budgets: Budgets, of: tuple[Line, ...], need: int = NANO) -> Reservation | None:
    try:
        return await budgets.reserve(of, need)
    except BudgetReached:
        return None


def test_the_periods_of_a_moment() -> None:
    found = lines([account(month=1000)], NOW)
    assert [(line.scope.period, line.most) for line in found] == [
        ("2026-11-22", 150 * NANO),
        ("2026-11", 1000 * NANO),
    ]
    assert [line.scope.period for line in lines([account(month=1)], NOW - 0.001)] == ["2026-11-21", "2026-11"]
    assert begins_anew("2026-11-22").isoformat() == "2026-11-23T00:00:00+00:00"
    assert begins_anew("2026-12").isoformat() == "2027-01-01T00:00:00+00:00"
    assert begins_anew("2028-02").isoformat() == "2028-03-01T00:00:00+00:00"


@pytest.mark.parametrize("processes", [1, 3])
async def test_exactly_as_many_as_a_budget_has_get_through(url: str, processes: int) -> None:
    of = lines([account(), account("wide", 1000, 5000)], NOW)
    async with opened(url) as first, opened(url) as second, opened(url) as third:
        several = [first, second, third][:processes]
        done = await asyncio.gather(*(attempt(several[n % processes], of) for n in range(300)))
        assert sum(one is not None for one in done) == 150
        assert await total(first, of) == [150 * NANO] * 3, "who is refused by one budget reserves in none"


async def test_what_is_left_over_is_free_again_and_what_is_spent_stays(url: str) -> None:
    of = lines([account(day=10)], NOW)
    async with opened(url) as budgets:
        held = [one for one in [await attempt(budgets, of, 5 * NANO) for _ in range(3)] if one is not None]
        assert len(held) == 2
        budgets.settle(held[0], NANO)
        budgets.settle(held[1], 5 * NANO)
        assert await total(budgets, of) == [6 * NANO], "also before it is written"
        with pytest.raises(BudgetReached) as refused:
            await budgets.reserve(of, 5 * NANO)
        assert refused.value.message.startswith(
            "This API key may spend $10.00 a day, of which $4.00 is left, and this request may cost up to $5.00."
        )
        assert "begins anew at 2026-11-23T00:00:00Z" in refused.value.message
        budgets.settle(await budgets.reserve(of, 4 * NANO), 3 * NANO)
    async with opened(url) as budgets:
        assert await total(budgets, of) == [9 * NANO], "closing has written what was left"
        assert await attempt(budgets, of, NANO + 1) is None
        assert await attempt(budgets, of, NANO) is not None
        assert await attempt(budgets, lines([account(day=10)], NOW + 86_400), 10 * NANO) is not None, "another day"


async def test_what_costs_more_than_was_reserved_is_owed(url: str) -> None:
    of = lines([account(day=10)], NOW)
    async with opened(url) as budgets:
        budgets.settle(await budgets.reserve(of, NANO), 12 * NANO)
        assert await attempt(budgets, of, 1) is None
        assert await total(budgets, of) == [12 * NANO]


async def test_nothing_fits_in_no_budget(url: str) -> None:
    async with opened(url) as budgets:
        assert await attempt(budgets, lines([account(day=0)], NOW), 1) is None


async def test_who_leaves_while_waiting_reserves_nothing(url: str) -> None:
    of = lines([account(day=1000)], NOW)
    async with opened(url) as budgets:
        asking = [asyncio.create_task(budgets.reserve(of, NANO)) for _ in range(100)]
        for n, task in enumerate(asking):
            if n % 10 == 0:
                await asyncio.sleep(0.002)
            task.cancel()
        got = [one for one in await asyncio.gather(*asking, return_exceptions=True) if isinstance(one, Reservation)]
        for reservation in got:
            budgets.settle(reservation, 0)
    async with opened(url) as budgets:
        assert await total(budgets, of) == [0]


async def test_several_settle_and_reserve_at_once_and_the_sum_is_right(url: str) -> None:
    of = lines([account(day=100_000, month=1_000_000), account("other", 100_000)], NOW)

    async def work(budgets: Budgets, n: int) -> None:
        budgets.settle(await budgets.reserve(of, 10 * NANO), n * NANO // 100)

    async with opened(url) as first, opened(url) as second:
        await asyncio.gather(*(work(first if n % 2 else second, n) for n in range(200)))
    async with opened(url) as budgets:
        assert await total(budgets, of) == [sum(n * NANO // 100 for n in range(200))] * 3


async def test_nobody_waits_in_a_circle(url: str) -> None:
    one, other = account("a", 1000), account("b", 1000)
    async with opened(url) as first, opened(url) as second:
        tasks = [first.reserve(lines([one, other], NOW), NANO) for _ in range(40)]
        tasks += [second.reserve(lines([other, one], NOW), NANO) for _ in range(40)]
        await asyncio.gather(*tasks)
        assert await total(first, lines([one, other], NOW)) == [80 * NANO] * 2


class Failing:
    """Rows of a database that comes and goes."""

    def __init__(self) -> None:
        self.sums: dict[Scope, int] = {}
        self.fails: list[bool] = []
        """Whether each of the next transactions is in doubt."""
        self.transactions = 0

    async def apply(self, changes: Mapping[Scope, int], asks: Sequence[Ask]) -> list[Lack | None]:
        self.transactions += 1
        await asyncio.sleep(0.01)
        if self.fails:
            raise Unsettled(unsure=self.fails.pop(0))
        for scope, change in changes.items():
            self.sums[scope] = self.sums.get(scope, 0) + change
        for ask in asks:
            for line in ask.lines:
                self.sums[line.scope] = self.sums.get(line.scope, 0) + ask.need
        return [None] * len(asks)

    async def spent(self, scopes: Sequence[Scope]) -> dict[Scope, int]:
        return self.sums

    async def aclose(self) -> None:
        return


async def test_requests_go_together_in_few_transactions() -> None:
    budgets, rows = Budgets(), Failing()
    budgets.open(rows)
    of = lines([account(day=1000)], NOW)
    held = await asyncio.gather(*(budgets.reserve(of, NANO) for _ in range(300)))
    for one in held:
        budgets.settle(one, 0)
    await budgets.aclose()
    assert rows.transactions <= 3
    assert set(rows.sums.values()) == {0}


async def test_a_database_that_hangs_holds_up_nobody_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Failing):
        async def spent(self, scopes: Sequence[Scope]) -> dict[Scope, int]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("gateway.limits.budgets.RESERVE_S", 0.05)
    budgets = Budgets()
    budgets.open(Hanging())
    with pytest.raises(Overloaded):
        await asyncio.wait_for(total(budgets, lines([account()], NOW)), 5)


async def test_old_periods_are_forgotten(url: str) -> None:
    old, young = (lines([account(month=1000)], at) for at in (NOW - 40 * 86_400, NOW))
    engine = connect(url)
    async with opened(url) as budgets:
        for of in (old, young):
            await budgets.reserve(of, NANO)
        assert await BudgetRows(engine).forget(NOW) == 2
        assert await total(budgets, (*old, *young)) == [0, 0, NANO, NANO]
    await engine.dispose()


async def test_without_the_database_nobody_spends_and_nothing_is_given_back_twice() -> None:
    budgets, rows = Budgets(), Failing()
    of = lines([account(day=1000)], NOW)
    with pytest.raises(Overloaded):
        await budgets.reserve(of, NANO)
    budgets.open(rows)
    held = [await budgets.reserve(of, 10 * NANO) for _ in range(3)]
    rows.fails = [False]
    budgets.settle(held[0], 0)
    with pytest.raises(Overloaded):
        await budgets.reserve(of, NANO)
    await budgets.reserve(of, NANO)
    assert set(rows.sums.values()) == {21 * NANO}, "what was not written is written later"
    rows.fails = [True]
    budgets.settle(held[1], 0)
    with suppress(Overloaded):
        await budgets.reserve(of, NANO)
    await budgets.aclose()
    assert set(rows.sums.values()) == {21 * NANO}, "what may have been written is not written again"


async def test_a_connection_that_is_lost_is_made_anew(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows, scope = BudgetRows(engine), lines([account()], time.time())[0].scope
    await rows.apply({scope: 5}, [])
    assert rows._connection is not None
    await rows._connection.close()
    await rows.apply({scope: 2}, [])
    assert await rows.spent([scope]) == {scope: 7}
    await rows.aclose()
