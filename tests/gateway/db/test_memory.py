"""Rows of what local models were found to need, on every database; and the book that is kept in between."""

import asyncio
import time
from collections.abc import Mapping

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway import reckoning
from gateway.db.engine import upgrade
from gateway.db.memory import FORGET_S, MemoryRows
from gateway.db.tables import memory
from gateway.reckoning import MemoryBook

GIB = 2**30


async def test_the_larger_size_stays(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = MemoryRows(engine)
    await rows.put({"small@1": GIB, "large@2": 70 * GIB})
    await rows.put({"small@1": 2 * GIB, "large@2": GIB})
    await rows.put({})
    assert await rows.all() == {"small@1": 2 * GIB, "large@2": 70 * GIB}


async def test_what_nothing_was_heard_of_for_long_is_forgotten(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = MemoryRows(engine)
    await rows.put({"old@1": GIB, "é" * 200 + "@2": GIB})
    async with engine.begin() as connection:
        long_ago = time.time() - FORGET_S - 60
        await connection.execute(update(memory).where(memory.c.key == "old@1").values(updated_at=long_ago))
    assert await rows.all() == {"é" * 200 + "@2": GIB}


async def test_the_next_process_knows_what_this_one_has_found(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows, book = MemoryRows(engine), MemoryBook()
    writing = asyncio.create_task(book.write_to(rows))
    await asyncio.sleep(0)
    for size in (2 * GIB, 3 * GIB, GIB):
        book.measured("m@1", size)
    assert (book.known("m@1"), book.known("m@2")) == (3 * GIB, None)
    writing.cancel()
    await asyncio.wait({writing})
    following = MemoryBook()
    following.recall(await rows.all())
    assert following.known("m@1") == 3 * GIB


async def test_what_could_not_be_written_is_written_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Mapping[str, int]] = []
    twice = asyncio.Event()

    class Rows:
        async def put(self, sizes: Mapping[str, int]) -> None:
            written.append(sizes)
            if len(written) == 1:
                raise ConnectionError
            twice.set()

    monkeypatch.setattr(reckoning, "WRITE_S", 0.01)
    book = MemoryBook()
    book.measured("m@1", GIB)
    writing = asyncio.create_task(book.write_to(Rows()))
    await asyncio.wait_for(twice.wait(), 5)
    writing.cancel()
    await asyncio.wait({writing})
    assert written[:2] == [{"m@1": GIB}] * 2
