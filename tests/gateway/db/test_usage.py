"""Usage rows, asked for: alike on both databases, of one tenant where one is named, and written once."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import unfit, upgrade
from gateway.db.query import Unfinished, ask
from gateway.db.usage import COLUMNS, GROUPS, UsageRows, Which
from tests.gateway.db.test_database import row

MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
ALL = Which(until=MIDNIGHT + 1e9)
DAY, HOUR, MONTH = int(MIDNIGHT // 86_400), int(MIDNIGHT // 3_600), 2026 * 12 + 10


@pytest.fixture
async def rows(engine: AsyncEngine) -> UsageRows:
    await upgrade(engine)
    return UsageRows(engine)


async def test_a_batch_that_is_written_again_is_there_once(rows: UsageRows) -> None:
    await rows.add([row(n) for n in range(150)])
    await rows.add([row(n, status=500) for n in range(149, 151)])
    assert (await rows.totals(ALL))["requests"] == 151
    assert [one["status"] for one in await rows.page(ALL, 2)] == [500, 200]


@pytest.mark.parametrize("value", [{"input_tokens": 2**63}, {"owner_id": None}, {"model": "\ud800"}])
async def test_what_can_never_be_written_is_told_from_what_cannot_be_written_now(
    rows: UsageRows, engine: AsyncEngine, value: dict[str, Any]
) -> None:
    with pytest.raises(Exception) as refused:
        await rows.add([row(1, **value)])
    assert unfit(refused.value)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE usage RENAME TO elsewhere")
    with pytest.raises(DBAPIError) as failed:
        await rows.add([row(1)])
    assert not unfit(failed.value)
    assert not unfit(ssl.SSLCertVerificationError("not believed"))


async def test_a_text_too_long_can_never_be_written(rows: UsageRows, kind: str) -> None:
    if kind == "postgresql":  # SQLite keeps texts of any length
        with pytest.raises(DBAPIError) as refused:
            await rows.add([row(1, owner_id="p" * 80)])
        assert unfit(refused.value)


async def test_a_query_that_takes_too_long_or_is_not_waited_for_ends_in_the_database(engine: AsyncEngine) -> None:
    await upgrade(engine)
    counting = select(literal(1).label("n")).cte("counting", recursive=True)
    counting = counting.union_all(select(counting.c.n + 1).where(counting.c.n < 2**30))
    endless = select(func.count()).select_from(counting)
    began = time.monotonic()
    with pytest.raises(Unfinished):
        await ask(engine, endless, 0.2)
    asking = asyncio.create_task(ask(engine, endless, 60))
    await asyncio.sleep(0.2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - began < 20
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            working = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%counting%'"
            assert (await connection.exec_driver_sql(f"{working} AND pid <> pg_backend_pid()")).scalar() == 0
    else:
        spent = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - spent < 0.3  # no thread goes on
    assert await ask(engine, select(literal(1).label("n")), 5) == [{"n": 1}]


async def test_pages_and_stretches_leave_nothing_out(rows: UsageRows) -> None:
    # Many at the same moment.
    await rows.add([row(n, created_at=MIDNIGHT + n // 700) for n in range(2_300)])
    ids = [one["id"] async for stretch in rows.each(ALL) for one in stretch]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 2_300
    first = await rows.page(ALL, 5)
    second = await rows.page(ALL, 5, (first[-1]["created_at"], first[-1]["id"]))
    assert [one["id"] for one in first + second] == ids[:10]


async def test_only_what_is_asked_for(rows: UsageRows) -> None:
    await rows.add(
        [
            row(0, created_at=MIDNIGHT),
            row(1, created_at=MIDNIGHT + 1, tenant_id="rival", backend="other"),
            row(2, created_at=MIDNIGHT + 2, owner_id="batch", model="m2", key_id=None),
            row(3, created_at=MIDNIGHT + 3, requested_model="m2", backend=None, model=None),
        ]
    )

    async def found(**which: Any) -> list[str]:
        rows_ = await rows.page(Which(**{"until": MIDNIGHT + 1e9} | which), 10)
        assert len(rows_) == (await rows.totals(Which(**{"until": MIDNIGHT + 1e9} | which)))["requests"]
        return [one["request_id"] for one in rows_]

    assert await found() == ["req_3", "req_2", "req_1", "req_0"]
    assert await found(tenant="rival") == ["req_1"]
    assert await found(tenant="acme", owner="app") == ["req_3", "req_0"]
    assert await found(tenant="rival", owner="batch") == []
    assert await found(key="key_1", tenant="acme") == ["req_3", "req_0"]
    assert await found(model="m2") == ["req_3", "req_2"]
    assert await found(backend="other") == ["req_1"]
    assert await found(since=MIDNIGHT + 1, until=MIDNIGHT + 3) == ["req_2", "req_1"]
    assert await found(model="' OR 1=1 --") == []


async def test_sums_of_each_group(rows: UsageRows) -> None:
    await rows.add(
        [
            row(0, created_at=MIDNIGHT - 0.001, cost_nanousd=1, cached_tokens=7),
            row(1, created_at=MIDNIGHT, cost_nanousd=2, input_tokens=None),
            row(2, created_at=MIDNIGHT + 3_599.999, cost_nanousd=None, status=502),
            row(3, created_at=MIDNIGHT + 3_600, cost_nanousd=None, code="tear", backend=None, reasoning_tokens=3),
            row(4, created_at=MIDNIGHT + 30 * 86_400, cost_nanousd=2**50, tenant_id="rival"),
        ]
    )

    async def by(*names: str, total: Sequence[str] = ("requests", "cost_nanousd"), **which: Any) -> list[Any]:
        groups = await rows.groups(Which(until=MIDNIGHT + 1e9, **which), names, 100)
        return [tuple(group[name] for name in (*names, *total)) for group in groups]

    assert await by("month") == [(MONTH - 1, 1, 1), (MONTH, 3, 2), (MONTH + 1, 1, 2**50)]
    assert await by("day", tenant="acme") == [(DAY - 1, 1, 1), (DAY, 3, 2)]
    assert await by("hour", tenant="acme") == [(HOUR - 1, 1, 1), (HOUR, 2, 2), (HOUR + 1, 1, None)]
    assert await by("tenant", "status") == [("acme", 200, 3, 3), ("acme", 502, 1, None), ("rival", 200, 1, 2**50)]
    assert await by("backend", total=("errors", "unpriced_requests")) == [("up", 1, 1), (None, 1, 1)]
    assert await by("month", since=MIDNIGHT) == [(MONTH, 3, 2), (MONTH + 1, 1, 2**50)]
    assert await by("user", total=("input_tokens", "cached_tokens", "reasoning_tokens")) == [("app", 4 * 2**40, 7, 3)]
    for names in (("month", "day", "hour", "model"), tuple(COLUMNS)[:4], ("key", "user", "tenant", "status")):
        assert len(await by(*names)) <= 5
    assert {len(await by(name)) for name in GROUPS} <= {1, 2, 3, 4}
    skipped = await rows.groups(ALL, ("month",), 1, 1)
    assert [group["month"] for group in skipped] == [MONTH]


async def test_months_of_a_narrow_time(rows: UsageRows) -> None:
    await rows.add([row(0, created_at=MIDNIGHT + 10)])
    for since, until in ((MIDNIGHT, MIDNIGHT + 20), (MIDNIGHT - 5, MIDNIGHT + 20), (0.0, MIDNIGHT + 20)):
        [group] = await rows.groups(Which(since=since, until=until), ("month",), 5)
        assert group["month"] == MONTH
    assert await rows.groups(Which(until=100.0), ("month",), 5) == []


async def test_nothing_sums_up_to_nothing(rows: UsageRows) -> None:
    totals = await rows.totals(ALL)
    assert (totals["requests"], totals["input_tokens"], totals["cost_nanousd"], totals["total_s"]) == (0, 0, None, 0)
    assert await rows.groups(ALL, ("model",), 10) == []


async def test_a_providers_nonsense_does_not_end_the_sums(rows: UsageRows) -> None:
    await rows.add([row(n, input_tokens=2**53, output_tokens=2**53) for n in range(1_100)])
    assert (await rows.totals(ALL))["input_tokens"] > 2**50
    assert len(await rows.groups(ALL, ("model",), 10)) == 1


async def test_what_is_old_is_forgotten(rows: UsageRows) -> None:
    await rows.add([row(n, created_at=MIDNIGHT + n) for n in range(2_500)])
    assert await rows.forget(MIDNIGHT + 2_400) == 2_400
    assert await rows.forget(MIDNIGHT + 2_400) == 0
    assert (await rows.totals(ALL))["requests"] == 100
