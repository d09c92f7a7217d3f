"""Versions of schemas in the database."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import upgrade
from gateway.db.schemas import KEPT, SchemaRows


async def test_a_version_is_kept_with_the_time_it_first_held(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = SchemaRows(engine)
    await rows.put("default", "system", "m", "v1", b"one", 10.0)
    await rows.put("default", "system", "m", "v1", b"other", 20.0)
    assert await rows.get("default", "system", "m", "v1") == (b"one", 10.0)
    assert await rows.get("acme", "key:a", "m", "v1") is None
    assert await rows.versions("acme", "key:a", "m") == []


async def test_two_who_write_the_same_leave_one(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = SchemaRows(engine)
    await asyncio.gather(*(rows.put("default", "system", "m", "v1", b"one", 10.0) for _ in range(4)))
    assert await rows.versions("default", "system", "m") == [("v1", 10.0)]


async def test_the_oldest_go(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = SchemaRows(engine)
    for n in range(KEPT + 3):
        await rows.put("default", "system", "m", f"v{n}", b"x", float(n))
    await rows.put("default", "system", "other", "v0", b"x", 0.0)
    known = [version for version, _ in await rows.versions("default", "system", "m")]
    assert known == [f"v{n}" for n in reversed(range(3, KEPT + 3))]
    assert len(await rows.versions("default", "system", "other")) == 1
