"""The queue of jobs, on every database: each job by one at a time, and by another when its process has died."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db import queue as module
from gateway.db.engine import connect, upgrade
from gateway.db.jobs import JobRows
from gateway.db.queue import DurableQueue
from gateway.jobs.job import Job, JobStatus
from tests.gateway.jobs.waiting import eventually
from tests.process import ROOT


def job(id_: str = "job_1", *, status: JobStatus = "queued", priority: int = 0) -> Job:
    return Job(
        id=id_,
        kind="fake",
        tenant="acme",
        owner="ann",
        status=status,
        priority=priority,
        created_at=1.0,
        updated_at=1.0,
    )


class Doing:
    """Work that goes on until it is ended, or let go."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.rows = JobRows(engine)
        self.began: list[str] = []
        self.ended: list[str] = []
        self.now: set[str] = set()
        self.most = 0
        self.winding_s = 0.0
        self.let_go = asyncio.Event()

    async def __call__(self, id_: str) -> None:
        assert id_ not in self.now, "begun twice"
        self.began.append(id_)
        self.now.add(id_)
        self.most = max(self.most, len(self.now))
        try:
            await self.let_go.wait()
            found = await self.rows.get(id_)
            assert found is not None
            await self.rows.end(found, {}, found.progress)
        except asyncio.CancelledError:
            await asyncio.sleep(self.winding_s)
            raise
        finally:
            self.now.discard(id_)
            self.ended.append(id_)


@asynccontextmanager
async def working(engine: AsyncEngine, *, at_once: int = 2) -> AsyncIterator[tuple[DurableQueue, Doing]]:
    queue, doing = DurableQueue(engine), Doing(engine)
    await queue.open(doing, at_once=at_once)
    try:
        yield queue, doing
    finally:
        await queue.aclose()


@pytest.fixture
async def rows(engine: AsyncEngine) -> JobRows:
    await upgrade(engine)
    return JobRows(engine)


async def status(rows: JobRows, id_: str = "job_1") -> str | None:
    found = await rows.get(id_)
    return None if found is None else found.status


async def stop(rows: JobRows, queue: DurableQueue, to: JobStatus = "paused", id_: str = "job_1") -> None:
    assert await rows.move("acme", id_, to, ("queued", "running")) is not None
    await queue.drop(id_)


async def test_so_many_are_done_at_once_the_more_urgent_first(engine: AsyncEngine, rows: JobRows) -> None:
    for n, priority in enumerate((0, 5, 0, 9)):
        await rows.put(job(f"job_{n}", priority=priority))
    async with working(engine) as (_, doing):
        await eventually(lambda: len(doing.began) == 2)
        await asyncio.sleep(0.1)
        assert doing.began == ["job_3", "job_1"]
        doing.let_go.set()
        await eventually(lambda: len(doing.ended) == 4)
    assert doing.began == ["job_3", "job_1", "job_0", "job_2"]
    assert doing.most == 2
    assert {await status(rows, f"job_{n}") for n in range(4)} == {"done"}


async def test_what_is_put_is_begun_at_once(engine: AsyncEngine, rows: JobRows) -> None:
    async with working(engine) as (queue, doing):
        await asyncio.sleep(0.1)
        await rows.put(job())
        began = time.monotonic()
        await queue.put("job_1")
        await eventually(lambda: doing.began == ["job_1"])
        assert time.monotonic() - began < module.POLL_S / 2
        found = await rows.get("job_1")
        assert found is not None
        assert (found.status, found.attempts) == ("running", 1)


async def test_what_is_dropped_has_stopped_by_then_and_can_be_put_again(engine: AsyncEngine, rows: JobRows) -> None:
    await rows.put(job())
    async with working(engine) as (queue, doing):
        doing.winding_s = 0.3
        await eventually(lambda: doing.began == ["job_1"])
        await stop(rows, queue)
        assert doing.ended == ["job_1"]
        assert await status(rows) == "paused"
        await rows.move("acme", "job_1", "queued", ["paused"])
        await queue.put("job_1")
        await eventually(lambda: len(doing.began) == 2)


async def test_what_is_put_again_while_it_still_stops_is_begun_after_that(engine: AsyncEngine, rows: JobRows) -> None:
    await rows.put(job())
    async with working(engine) as (queue, doing):
        doing.winding_s = 0.3
        await eventually(lambda: doing.began == ["job_1"])
        stopping = asyncio.create_task(stop(rows, queue))
        await eventually(lambda: queue._held["job_1"].ending)
        await rows.move("acme", "job_1", "queued", ["paused"])
        await queue.put("job_1")
        await stopping
        await eventually(lambda: len(doing.began) == 2)  # `Doing` refuses to be two at once


async def test_of_two_gateways_each_job_is_done_by_one_and_either_may_end_it(url: str) -> None:
    engines = [connect(url) for _ in range(2)]
    await upgrade(engines[0])
    rows = JobRows(engines[0])
    async with working(engines[0], at_once=3) as (mine, one), working(engines[1], at_once=3) as (theirs, other):
        for n in range(5):
            await rows.put(job(f"job_{n}"))
        await asyncio.gather(mine.put(""), theirs.put(""))
        await eventually(lambda: len(one.began) + len(other.began) == 5)
        await asyncio.sleep(0.3)
        assert sorted(one.began + other.began) == [f"job_{n}" for n in range(5)]
        began = time.monotonic()
        await stop(rows, theirs, "cancelled", one.began[0])
        assert one.ended == [one.began[0]]
        assert time.monotonic() - began < 3.0
    for engine in engines:
        await engine.dispose()


async def test_what_does_not_stop_is_said_to_go_on(
    engine: AsyncEngine, rows: JobRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEASE_S": 0.1, "STOP_S": 0.1}.items():
        monkeypatch.setattr(module, name, value)
    await rows.put(job())
    async with working(engine) as (queue, doing), working(engine, at_once=0) as (other, _):
        doing.winding_s = 1.0
        monkeypatch.setattr(module, "LEASE_S", 4.0)
        await eventually(lambda: doing.began == ["job_1"])
        monkeypatch.setattr(module, "LEASE_S", 0.1)
        assert await rows.move("acme", "job_1", "paused", ["running"]) is not None
        assert not await queue.drop("job_1")
        assert not await other.drop("job_1")
        await eventually(lambda: doing.ended == ["job_1"])
        assert await queue.drop("job_1")
        await eventually(lambda: "job_1" not in queue._held)
        assert await other.drop("job_1")


async def test_who_is_idle_asks_seldom_but_not_while_something_is_done(
    engine: AsyncEngine, rows: JobRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    async with working(engine, at_once=1) as (idle, _):
        await asyncio.sleep(0.1)
        event.listen(engine.sync_engine, "before_cursor_execute", count)
        await asyncio.sleep(0.5)
        assert asked == 0
        await rows.put(job(status="paused"))
        await idle.put("")
        await asyncio.sleep(0.5)
        assert asked <= 3, "nobody has to do one that is paused"
        await rows.put(job("job_2"))
        async with working(engine, at_once=1) as (_, doing):
            await eventually(lambda: doing.began == ["job_2"])
            await idle.put("")
            asked = 0
            await asyncio.sleep(0.5)
            assert asked > 4, "who does it may die"
    event.remove(engine.sync_engine, "before_cursor_execute", count)


async def test_at_the_end_all_is_given_back_to_be_begun_at_once(engine: AsyncEngine, rows: JobRows) -> None:
    await rows.put(job())
    async with working(engine) as (_, doing):
        await eventually(lambda: doing.began == ["job_1"])
    found = await rows.get("job_1")
    assert found is not None
    assert (found.status, found.attempts, found.fruitless) == ("queued", 1, 0)
    began = time.monotonic()
    async with working(engine) as (_, doing):
        await eventually(lambda: doing.began == ["job_1"])
    assert time.monotonic() - began < 1.0


async def test_who_cannot_renew_stops_before_anybody_else_may_begin(
    url: str, engine: AsyncEngine, rows: JobRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEASE_S": 1.0, "FENCE_S": 0.6, "BEAT_S": 0.1}.items():
        monkeypatch.setattr(module, name, value)
    await rows.put(job())
    blocker = connect(url)
    async with working(engine) as (_, doing), blocker.connect() as other:
        await eventually(lambda: doing.began == ["job_1"])
        lock = "BEGIN IMMEDIATE" if "sqlite" in url else "LOCK TABLE jobs"
        await other.exec_driver_sql(lock)
        began = time.monotonic()
        await eventually(lambda: doing.ended == ["job_1"])
        assert time.monotonic() - began < 1.0
        await other.rollback()
        await eventually(lambda: doing.began == ["job_1", "job_1"])
    await blocker.dispose()


async def test_a_lease_is_told_by_the_clock_of_the_database(
    url: str, engine: AsyncEngine, rows: JobRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sqlite" in url:
        pytest.skip("all processes are on one machine, with one clock")
    await rows.put(job())
    async with working(engine) as (_, doing):
        await eventually(lambda: doing.began == ["job_1"])
        now = time.time
        monkeypatch.setattr("gateway.db.queue.time.time", lambda: now() + 3600)
        async with working(engine) as (thief, taking):
            await thief.put("job_1")
            await asyncio.sleep(0.3)
            assert taking.began == []


BRISK = {"LEASE_S": 1.2, "FENCE_S": 0.9, "BEAT_S": 0.2, "POLL_S": 0.3}
PROGRAM = f"""
import asyncio, sys
import gateway.db.queue
from gateway.db.engine import connect
from gateway.db.queue import DurableQueue

vars(gateway.db.queue).update({BRISK})

async def run(id_):
    print("began", id_, flush=True)
    await asyncio.sleep(60)

async def main():
    await DurableQueue(connect(sys.argv[1])).open(run, at_once=2)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_a_killed_process_did_is_gone_on_with_by_another(
    engine: AsyncEngine, rows: JobRows, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in BRISK.items():
        monkeypatch.setattr(module, name, value)
    await rows.put(job())
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, cwd=ROOT, stdout=PIPE)
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().split() == ["began", "job_1"]
        async with working(engine) as (_, doing):
            await asyncio.sleep(1.6)
            assert doing.began == []
            process.kill()
            began = time.monotonic()
            await eventually(lambda: doing.began == ["job_1"], 10)
            assert time.monotonic() - began < module.LEASE_S + module.POLL_S + 1.5
            found = await rows.get("job_1")
            assert found is not None
            assert (found.attempts, found.fruitless) == (2, 2)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
