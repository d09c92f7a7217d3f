"""The queue of jobs: whose turn it is, on the rows of the jobs themselves (decision 0015).

A process that does a job holds it by a lease, which it renews while it lives; nobody else takes it meanwhile.  One that
cannot renew its leases stops before they are over, so that no job is ever done by two.  Leases are told by the
database's clock: those of the processes may differ.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, case, cast, extract, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import jobs
from gateway.jobs.waiting import waited
from gateway.telemetry.logging import logger
from gateway.visit import new_id

LEASE_S = 4.0
"""How long after the death of a process its jobs are taken up by another."""
FENCE_S = 2.8
"""How long after the last renewal a process stops, with a second for its work to end."""
BEAT_S = 1.0
"""How often leases are renewed, and those who do a job see that it is not wanted any more."""
POLL_S = 1.0
"""How often a process that does nothing looks for what others have put or left behind."""
IDLE_S = 5.0
"""The same while nobody does anything: what is put here is begun at once all the same."""
STOP_S = 5.0
"""How long work that was told to end is waited for."""
LOOK_S = 0.2
_WANTED = ("queued", "running")
Run = Callable[[str], Awaitable[None]]


class _Held:
    """A job that is done here."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.running = False
        self.ending = False
        """It was told to end."""


class DurableQueue:
    """A `gateway.jobs.job.Queue`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._me = new_id("wrk")
        self._held: dict[str, _Held] = {}
        self._news = asyncio.Event()
        self._run: Run
        self._at_once = 0
        self._keeper: asyncio.Task[None] | None = None
        self._fence: asyncio.TimerHandle | None = None
        self._failing = self._closing = False
        self._idle = False
        """There is nothing to be done, here or elsewhere."""

    async def open(self, run: Run, *, at_once: int) -> None:
        self._run, self._at_once = run, at_once
        self._keeper = asyncio.create_task(self._keep())

    def resize(self, at_once: int) -> None:
        self._at_once = at_once
        self._news.set()

    async def put(self, id_: str) -> None:  # noqa: ARG002  the row says all
        self._news.set()

    async def drop(self, id_: str) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + LEASE_S + STOP_S
        if (held := self._held.get(id_)) is not None:
            _end(held)
            await asyncio.wait({held.task}, timeout=STOP_S)
            if not held.task.done():
                return False
        while await self._lingers(id_):
            if self._closing or loop.time() >= end:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def aclose(self) -> None:
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if tasks := self._stop_all():
            # Those that do not end keep their lease, for as long as it lasts.
            await asyncio.wait(tasks, timeout=STOP_S)
        if self._fence is not None:
            self._fence.cancel()

    async def _keep(self) -> None:
        """Renew what is held and take what there is room for, until cancelled."""
        while True:
            self._news.clear()
            # Beside this task: a database must not be left in the middle of a statement when the gateway stops.
            working = asyncio.create_task(self._turn())
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                await asyncio.gather(working, return_exceptions=True)
                raise
            except Exception as e:
                if not self._failing:
                    logger().warning("queue_unreachable", error=type(e).__name__)
                self._failing = True
            else:
                self._failing = False
            await waited(self._news, BEAT_S if self._held or self._failing else IDLE_S if self._idle else POLL_S)

    async def _turn(self) -> None:
        if self._held:
            await self._renew()
        while len(self._held) < self._at_once and (id_ := await self._claim()) is not None:
            self._held[id_] = held = _Held()
            held.task = asyncio.create_task(self._do(id_, held))

    async def _renew(self) -> None:
        began = asyncio.get_running_loop().time()
        held = dict(self._held)
        mine = and_(jobs.c.worker == self._me, jobs.c.id.in_(held))
        renewed = update(jobs).where(mine).values(lease_until=self._now() + LEASE_S).returning(jobs.c.id, jobs.c.status)
        async with self._engine.begin() as connection:
            standing = dict((await connection.execute(renewed)).tuples().all())
        self._leased(began)
        for id_, one in held.items():
            # What is done or failed is about to end by itself.
            if standing.get(id_) in (None, "queued", "paused", "cancelled"):
                _end(one)

    async def _claim(self) -> str | None:
        """Take the next that is to be done; None when there is none."""
        began = asyncio.get_running_loop().time()
        wanted = and_(jobs.c.status.in_(_WANTED), or_(jobs.c.worker.is_(None), jobs.c.lease_until < self._now()))
        # Told apart from taking it, which in SQLite would keep others from writing even when there is nothing to take.
        free = case((wanted, 1), else_=0)
        there = select(jobs.c.id, free).where(jobs.c.status.in_(_WANTED), jobs.c.id.not_in(self._held))
        first = there.order_by(free.desc(), jobs.c.priority.desc(), jobs.c.id).limit(1)
        while True:
            async with self._engine.connect() as connection:
                found = (await connection.execute(first)).one_or_none()
            self._idle = found is None
            if found is None or not found[1]:
                return None
            id_ = found[0]
            now = time.time()
            taken = {
                "status": "running",
                "worker": self._me,
                "lease_until": self._now() + LEASE_S,
                "attempts": jobs.c.attempts + 1,
                "fruitless": jobs.c.fruitless + 1,
                "started_at": func.coalesce(jobs.c.started_at, now),
                "updated_at": now,
            }
            async with self._engine.begin() as connection:
                done = await connection.execute(update(jobs).where(jobs.c.id == id_, wanted).values(taken))
            if done.rowcount == 1:
                if self._fence is None or not self._held:
                    self._leased(began)
                return str(id_)
            # Another was quicker.

    async def _do(self, id_: str, held: _Held) -> None:
        try:
            held.running = True
            if not held.ending:
                await self._run(id_)
        except asyncio.CancelledError:
            pass  # by `_end`
        except Exception as e:
            logger().error("job_run_failed", job=id_, error=type(e).__name__)
        finally:
            held.running = False
            try:
                await self._give_back(id_)
            except Exception as e:  # its lease ends by itself
                logger().warning("job_not_given_back", job=id_, error=type(e).__name__)
            self._held.pop(id_, None)
            self._news.set()

    async def _give_back(self, id_: str) -> None:
        unended = jobs.c.status == "running"
        free = {
            "worker": None,
            "lease_until": None,
            "status": case((unended, "queued"), else_=jobs.c.status),
            "fruitless": case((unended, jobs.c.fruitless - 1), else_=jobs.c.fruitless),
        }
        async with self._engine.begin() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == id_, jobs.c.worker == self._me).values(free))

    async def _lingers(self, id_: str) -> bool:
        """Whether somebody is still at a job that is not wanted any more."""
        lease = and_(jobs.c.worker.is_not(None), jobs.c.lease_until >= self._now())
        query = select(jobs.c.id).where(jobs.c.id == id_, jobs.c.status.not_in(_WANTED), lease)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).first() is not None

    def _now(self) -> ColumnElement[Any]:
        """By the database's clock; SQLite's is that of the machine, which all its processes are on."""
        if self._engine.dialect.name == "postgresql":
            return cast(extract("epoch", func.clock_timestamp()), Float)
        return literal(time.time())

    def _leased(self, began: float) -> None:
        if self._fence is not None:
            self._fence.cancel()
        self._fence = asyncio.get_running_loop().call_at(began + FENCE_S, self._lose)

    def _lose(self) -> None:
        self._fence = None
        if self._stop_all():
            logger().warning("job_leases_lost", after_s=FENCE_S)

    def _stop_all(self) -> Collection["asyncio.Task[None]"]:
        for held in self._held.values():
            _end(held)
        return [held.task for held in self._held.values()]


def _end(held: _Held) -> None:
    # Once: a second time would break off how it ends.
    if held.running and not held.ending:
        held.task.cancel()
    held.ending = True
