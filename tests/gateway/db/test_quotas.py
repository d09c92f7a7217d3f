"""Rows of what is left of quotas, on every database."""

import time

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import upgrade
from gateway.db.quotas import QuotaRows
from gateway.routing.quota import Standing

NOW = time.time()
DAILY = Standing(
    account="gift", model="m", unit="requests", span="day", most=2**40, remaining=7, resets_at=NOW + 3600, evenly=False,
    updated_at=NOW,
)  # fmt: skip


async def test_rows_are_kept_by_account_model_unit_and_window(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = QuotaRows(engine)
    others = [
        msgspec.structs.replace(DAILY, span=""),
        msgspec.structs.replace(DAILY, unit="any", span="", most=None, evenly=True),
        msgspec.structs.replace(DAILY, model=""),
        msgspec.structs.replace(DAILY, account="other"),
    ]
    await rows.put([DAILY, *others])
    assert sorted(await rows.all(), key=repr) == sorted([DAILY, *others], key=repr)
    await rows.put([])


async def test_the_newer_one_stays(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = QuotaRows(engine)
    newer = msgspec.structs.replace(DAILY, remaining=3, updated_at=NOW + 1)
    await rows.put([newer])
    await rows.put([DAILY])
    assert await rows.all() == [newer]
    newest = msgspec.structs.replace(DAILY, remaining=2, updated_at=NOW + 2, most=None)
    await rows.put([newest])
    assert await rows.all() == [newest]


async def test_what_is_over_is_not_told_and_forgotten_later(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = QuotaRows(engine)
    await rows.put([msgspec.structs.replace(DAILY, resets_at=NOW - 10), DAILY])
    await rows.put([msgspec.structs.replace(DAILY, model="old", resets_at=NOW - 100_000)])
    assert await rows.all() == [DAILY]


async def test_names_that_fit_no_column_are_left_out(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = QuotaRows(engine)
    await rows.put([msgspec.structs.replace(DAILY, model=name) for name in ("x" * 301, "nul\x00")])
    await rows.put([msgspec.structs.replace(DAILY, model="é" * 300)])
    assert [one.model for one in await rows.all()] == ["é" * 300]
