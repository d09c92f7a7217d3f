"""Answers that are kept: for clients that come back for them, and for those that ask the same twice.

An answer is taken down before anybody is told of it, and ended before its last byte is sent.  Invariant: of one flight
(who asked, where, under what key) there is at most one, in all processes on a database.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.answers.answer import Answer
from gateway.requests import RequestStatus, shown
from gateway.telemetry.logging import logger
from gateway.visit import Visit, new_id

if TYPE_CHECKING:
    from gateway.db.answers import AnswerRows
    from gateway.house import House

T = TypeVar("T")
BEAT_S = 2.0
"""How often leases are renewed, and those of others looked at."""
FORGET_S = 60.0
"""How often what has expired is removed."""
LOOK_S = 0.25
"""How often it is looked whether another process has an answer that somebody waits for."""
UNWRITTEN_S = 5.0
"""How long another process may take to write down the usage of what it has answered."""
TRIES, AGAIN_S = 5, 1.0
"""How often it is tried to keep an answer while the database cannot be written."""
DETACHED_MAX, ALL_MAX = 64, 512
"""Requests that go on without a connection: of one tenant, and in all, in this process."""
_Key = tuple[str, str]
_encode = msgspec.json.encode


class Answers:
    def __init__(self, house: "House", rows: "AnswerRows") -> None:
        self._house = house
        self.rows = rows
        self._me = new_id("wrk")
        self._mine: dict[_Key, Visit] = {}
        """By tenant and id, those that are worked on here."""
        self._flying: dict[_Key, asyncio.Event] = {}
        """By tenant and flight; set when it is over."""
        self._notes: dict[_Key, Answer] = {}
        """What is on its way into the database of answers that broke off."""
        self._writing: set[asyncio.Task[Any]] = set()
        self._detached: dict[asyncio.Task[None], str] = {}
        """Whose they are."""

    async def open(self) -> None:
        """Those that a process which is gone was working on have failed."""
        if broken := await self.rows.interrupt(all_=not self.rows.leases):
            logger().warning("answers_interrupted", count=broken)

    async def begin(self, answer: Answer, visit: Visit) -> Answer | None:
        """Take down, durably, that this process works on an answer from now on; or return the one of its flight.

        Whoever begins one ends or drops it.  Raises SameId.
        """
        working = self._write(self._begin(answer, visit))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._write(self._unbegin(working, answer))
            raise

    async def end(self, answer: Answer, tries: int = TRIES) -> bool:
        """Keep an answer that was begun here, durably; whether it could be kept.

        Of a flight only what is done: after a failure the next begins it anew.
        """
        return await asyncio.shield(self._write(self._end(answer, tries)))

    async def drop(self, answer: Answer) -> None:
        """Keep nothing of one that was begun here; whoever waits for it may begin it anew."""
        await asyncio.shield(self._write(self._drop(answer)))

    async def get(self, tenant: str, id_: str, body_max: int | None = None) -> Answer | None:
        """A tenant's answer; its body only where that has at most so many bytes."""
        noted = self._notes.get((tenant, id_))  # which may be written while the database is asked
        return await asyncio.shield(self._write(self.rows.get(tenant, id_, body_max))) or noted

    async def kept(self, tenant: str, ids: Sequence[str]) -> Sequence[Answer]:
        """The answers, without their bodies, that are kept of requests of these ids of a tenant."""
        return await asyncio.shield(self._write(self.rows.kept(tenant, ids))) if ids else ()

    async def unaccounted(
        self, tenant: str, limit: int, since: float, until: float, after: tuple[float, str] | None, status: str | None
    ) -> Sequence[Answer]:
        """Answers whose requests' rows of usage are lost, the newest first."""
        until -= UNWRITTEN_S if self.rows.leases else 0.0
        return await asyncio.shield(self._write(self.rows.unaccounted(tenant, limit, since, until, after, status)))

    async def elsewhere(self, tenant: str) -> Sequence[Answer]:
        """A tenant's that other processes work on without a connection."""
        if not self.rows.leases:
            return ()
        found = await asyncio.shield(self._write(self.rows.running(tenant)))
        return [answer for answer in found if (tenant, answer.id) not in self._mine]

    async def cancel(self, tenant: str, id_: str) -> bool:
        """End one that another process works on, which it sees at its next beat; whether there was one."""
        return await asyncio.shield(self._write(self.rows.cancel(tenant, id_)))

    async def landed(self, answer: Answer) -> None:
        """Return when an answer that is worked on may be there, or may be begun anew."""
        flying = self._flying.get((answer.tenant, answer.flight or ""))
        if flying is None:
            await asyncio.sleep(LOOK_S)
        else:
            await flying.wait()

    def note(self, visit: Visit) -> None:
        """Keep what there is of an answer that broke off, and that nobody asked to keep."""
        standing = shown(visit)
        if standing.partial is None or visit.principal is None:
            return
        answer = self.of(visit, standing, created_at=visit.at - (visit.ended - visit.began), ended_at=visit.at)
        self._notes[answer.tenant, answer.id] = answer
        self._write(self._note(answer))

    def of(self, visit: Visit, standing: RequestStatus, **more: Any) -> Answer:
        """The answer of a request as that stands."""
        assert visit.principal is not None, "the guard lets nobody in without one"
        now = time.time()
        known: dict[str, Any] = {
            "id": visit.request_id,
            "tenant": visit.principal.tenant,
            "owner": visit.principal.id,
            "endpoint": visit.route,
            "asynchronous": visit.detached,
            "status": "running" if standing.ended_at is None else standing.status,
            "standing": _encode(replace(standing, partial=None)),
            "partial": None if standing.partial is None else _encode(standing.partial),
            "created_at": now,
            "ended_at": None if standing.ended_at is None else now,
            "expires_at": now + self._house.estate.config.requests.answers_s,
        }
        return Answer(**known | more)

    def has_room(self, tenant: str) -> bool:
        """Whether one more of a tenant's may go on without a connection."""
        all_ = list(self._detached.values())
        return len(all_) < ALL_MAX and all_.count(tenant) < DETACHED_MAX

    def detach(self, tenant: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do work that has no connection."""
        task = asyncio.create_task(work)
        self._detached[task] = tenant
        task.add_done_callback(lambda done: self._detached.pop(done, None))
        return task

    async def watch(self) -> None:
        """Keep hold of what is worked on here, and remove what has expired, for ever."""
        loop, failing = asyncio.get_running_loop(), False
        forgotten = loop.time()
        while True:
            await asyncio.sleep(BEAT_S if self.rows.leases else FORGET_S)
            try:
                if self.rows.leases:
                    await asyncio.shield(self._write(self._beat()))
                if loop.time() - forgotten >= FORGET_S:
                    forgotten = loop.time()
                    await asyncio.shield(self._write(self._tidy()))
                failing = False
            except Exception as e:
                if not failing:
                    logger().warning("answers_unwatched", error=type(e).__name__)
                failing = True

    async def aclose(self) -> None:
        """End what is still worked on, and say so in its answer."""
        for task in (working := list(self._detached)):
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _write(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        # In a task of its own: who leaves meanwhile must not leave a connection in the middle of its work.
        task = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _begin(self, answer: Answer, visit: Visit) -> Answer | None:
        key = answer.tenant, answer.id
        fresh = key not in self._mine
        self._mine.setdefault(key, visit)  # before it is in the database, where it would count as lost
        try:
            there = await self.rows.begin(answer, self._me)
        except BaseException:
            if fresh:
                self._mine.pop(key, None)
            raise
        if there is None and answer.flight is not None:
            self._flying[answer.tenant, answer.flight] = asyncio.Event()
        elif there is not None and fresh:
            self._mine.pop(key, None)
        return there

    async def _unbegin(self, working: "asyncio.Task[Answer | None]", answer: Answer) -> None:
        if await working is None:
            await self._drop(answer)

    async def _end(self, answer: Answer, tries: int) -> bool:
        kept = False
        written = answer if answer.status == "done" else replace(answer, flight=None)
        for left in reversed(range(tries)):
            try:
                kept = await self.rows.end(written, self._me)
                if not kept:  # the lease was lost: another process may work on the same, and keep its own
                    logger().warning("answer_not_kept", request_id=answer.id, error="taken_for_lost")
                break
            except Exception as e:
                logger().error("answer_not_kept", request_id=answer.id, error=type(e).__name__, tries_left=left)
                if left:
                    await asyncio.sleep(AGAIN_S)
        if kept or tries > 1:
            self._over(answer)
        return kept

    async def _drop(self, answer: Answer) -> None:
        try:
            await self.rows.drop(answer.tenant, answer.id, self._me)
        except Exception as e:  # what is lost is seen by `watch`
            logger().warning("answer_not_dropped", request_id=answer.id, error=type(e).__name__)
        self._over(answer)

    def _over(self, answer: Answer) -> None:
        self._mine.pop((answer.tenant, answer.id), None)
        if flying := self._flying.pop((answer.tenant, answer.flight or ""), None):
            flying.set()

    async def _note(self, answer: Answer) -> None:
        try:
            await self.rows.add(answer)
        except Exception as e:
            logger().warning("answer_not_kept", request_id=answer.id, error=type(e).__name__)
        self._notes.pop((answer.tenant, answer.id), None)

    async def _beat(self) -> None:
        if self._mine:
            standings = {
                key: _encode(shown(visit)) if visit.requested is not None else None for key, visit in self._mine.items()
            }
            for key in await self.rows.beat(self._me, standings):
                if (visit := self._mine.get(key)) is not None:
                    self._house.cancel(visit)
        if broken := await self.rows.interrupt():
            logger().warning("answers_interrupted", count=broken)

    async def _tidy(self) -> None:
        await self.rows.interrupt(lost=(self._me, [id_ for _, id_ in self._mine]))
        await self.rows.forget(time.time())
