"""Jobs: asked for by a request, done by a queue, watched and ended by their tenant."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from compat.canonical.error import Conflict, GatewayError, NotFound, Overloaded
from gateway.jobs.course import Course
from gateway.jobs.job import UNFINISHED, Job, JobFailure, JobStatus, Progress, Queue, Settled, Work
from gateway.jobs.waiting import waited
from gateway.telemetry.logging import logger
from gateway.visit import new_id

if TYPE_CHECKING:
    from gateway.db.audit import Act
    from gateway.db.jobs import JobRows

T = TypeVar("T")
WRITE_S = 1.0
"""How often the progress of a job is written down while it is done."""
NEWS_S = 0.25
"""How often a watcher is told of it, at most."""
LOOK_S = 1.0
"""How often a watcher looks at a job that is done elsewhere."""
ATTEMPTS_MAX = 100
"""How often a job may take its process with it without having got any further."""
KEPT_DAYS, KEPT = 30, 10_000
"""Jobs that are over: how long, and how many of all tenants'."""
FORGET_S = 3600.0
FLIGHT_MAX = 200
TIDY_S = 5.0
"""How often it is tried again to clear away after what has not stopped yet."""
BATCH = 200
"""Rows that are read at a time where not all of them may be seen."""
_ID = re.compile("job_[0-9a-f]{1,36}")


def absent(id_: str) -> NotFound:
    """What is said of a job that is not there, and of one that is not the caller's to see."""
    return NotFound(f"There is no job of the id '{id_[:100]}'; GET /v1/jobs lists them.")


class Jobs:
    """Open while the application runs.  A job's row is the truth; the queue only says whose turn it is."""

    def __init__(
        self, rows: "JobRows", queue: Queue, kinds: Mapping[str, Work], settled: Mapping[str, Settled] | None = None
    ) -> None:
        """settled: by kind, awaited by `pause` and `cancel` when the work has stopped, before they return.

        Where the process dies in between, or the work does not stop in time, that is made up for: soon after the next
        start, and soon after it has stopped.  Nobody else need look for what was stopped and not cleared away after.
        """
        self._rows = rows
        self._queue = queue
        self._kinds = kinds
        self._settled = settled or {}
        self._here: dict[str, Course] = {}
        """What is done by this process."""
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self._settling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._untidy = asyncio.Event()
        self._tending: list[asyncio.Task[None]] = []

    async def open(self, *, at_once: int) -> None:
        """Begin to do what is to be done, and go on with what was begun before."""
        self._tending = [asyncio.create_task(self._forget()), asyncio.create_task(self._tidy())]
        await self._queue.open(self._run, at_once=at_once)

    def resize(self, at_once: int) -> None:
        """Do so many at a time from now on; those that run are not ended for it."""
        self._queue.resize(at_once)

    async def put(
        self,
        kind: str,
        spec: Mapping[str, Any],
        *,
        tenant: str,
        owner: str,
        target: str | None = None,
        flight: str | None = None,
        priority: int = 0,
        total_bytes: int | None = None,
    ) -> tuple[Job, bool]:
        """Have a job done; the unfinished one of the same tenant and flight, if there is one, and whether it is new."""
        if flight is not None and len(flight) > FLIGHT_MAX:
            flight = hashlib.sha256(flight.encode()).hexdigest()
        now = time.time()
        asked = Job(
            id=new_id("job"),
            kind=kind,
            tenant=tenant,
            owner=owner[:64],
            status="queued",
            priority=priority,
            target=target,
            flight=flight,
            spec=dict(spec),
            progress=Progress(bytes_total=total_bytes),
            created_at=now,
            updated_at=now,
        )
        # Shielded, as all writes that a client may leave: a connection must not be left in the middle of its work.
        job, new = await self._whole(self._rows.put(asked))
        if new:
            await self._queue.put(job.id)
        return self._standing(job), new

    async def get(self, tenant: str, id_: str) -> Job:
        """Raises NotFound."""
        # The shape first: PostgreSQL takes no NUL.
        job = await self._rows.get(id_, tenant) if _ID.fullmatch(id_) else None
        if job is None:
            raise absent(id_)
        return self._standing(job)

    async def page(
        self,
        tenant: str,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int,
        after: str | None = None,
        seen: Callable[[Job], bool] | None = None,
    ) -> list[Job]:
        """The newest first; `after` is the id of the last one of the page before.

        seen: whether a job may be told of; None is all of them.
        """
        found: list[Job] = []
        size = limit if seen is None else max(limit, BATCH)
        while True:
            rows = await self._rows.page(tenant, size, after, status=status, kind=kind)
            found += rows if seen is None else filter(seen, rows)
            if len(found) >= limit or len(rows) < size:
                return [self._standing(job) for job in found[:limit]]
            after = rows[-1].id

    async def unfinished(self) -> list[Job]:
        """Everybody's."""
        return [self._standing(job) for job in await self._rows.unfinished()]

    async def pause(self, tenant: str, id_: str, act: "Act | None" = None) -> Job:
        """Stop it so that it can be gone on with.

        Raises NotFound; Conflict when it is over; Overloaded where its work does not stop in time.

        act: written down with it, here as below; what stands so already is left as it is.
        """
        return await self._whole(self._stop(tenant, id_, "paused", ("queued", "running"), act))

    async def resume(self, tenant: str, id_: str, act: "Act | None" = None) -> Job:
        """Go on with a paused or a failed one.  Raises NotFound, or Conflict."""
        return await self._whole(self._resume(tenant, id_, act))

    async def cancel(self, tenant: str, id_: str, act: "Act | None" = None) -> Job:
        """End it for good; returns when its work has stopped and what it leaves behind is cleared away.

        One that has failed as well, which frees its disk.  Raises as `pause`.
        """
        return await self._whole(self._stop(tenant, id_, "cancelled", UNFINISHED | {"failed"}, act))

    async def watch(self, tenant: str, id_: str) -> AsyncGenerator[Job, None]:
        """The job as it stands, at once and whenever that has changed, until it is over.  Raises NotFound."""
        loop = asyncio.get_running_loop()
        news, told, at = asyncio.Event(), None, 0.0
        self._watchers.setdefault(id_, set()).add(news)
        try:
            while True:
                news.clear()
                here = self._here.get(id_)
                job = await self.get(tenant, id_) if here is None or told is None else self._standing(here.job)
                # Its times pass anyway.
                if (standing := msgspec.structs.replace(job, updated_at=0.0)) != told:
                    told, at = standing, loop.time()
                    yield job
                if job.status not in UNFINISHED:
                    return
                await waited(news, LOOK_S)
                await asyncio.sleep(max(0.0, at + NEWS_S - loop.time()))
        finally:
            self._watchers[id_].discard(news)
            if not self._watchers[id_]:
                del self._watchers[id_]

    async def aclose(self) -> None:
        """Stop what runs here, to be gone on with after the next start."""
        for task in self._tending:
            task.cancel()
        await self._queue.aclose()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _stop(
        self, tenant: str, id_: str, status: JobStatus, of: Collection[JobStatus], act: "Act | None"
    ) -> Job:
        job, moved = await self._move(tenant, id_, status, of, (status,), act)
        if moved:
            self._tell(id_)
        elif not await self._rows.unsettled(id_):
            return job
        if not await self._settle(id_):
            self._untidy.set()
            raise Overloaded(
                f"The job is {status}, but its work has not stopped yet; what it leaves behind is cleared away when it "
                "has.",
                code="still_stopping",
                retry_after_s=TIDY_S,
            )
        return await self.get(tenant, id_)

    async def _settle(self, id_: str) -> bool:
        """Clear away after a job that was stopped, if that is still to be done, when its work has stopped.

        False when it has not.
        """
        lock = self._settling.setdefault(id_, asyncio.Lock())
        async with lock:
            while found := await self._rows.unsettled(id_):
                if not await self._queue.drop(id_):
                    return False
                now = await self._rows.get(id_)
                # Meanwhile somebody may have gone on with it, and stopped it again.
                if now is None or (now.status, now.attempts) != (found[0].status, found[0].attempts):
                    continue
                if (settled := self._settled.get(now.kind)) is not None:
                    await settled(now)
                await self._rows.settle(now)
        return True

    async def _resume(self, tenant: str, id_: str, act: "Act | None") -> Job:
        from gateway.db.jobs import Taken

        try:
            job, moved = await self._move(tenant, id_, "queued", ("paused", "failed"), ("queued", "running"), act)
        except Taken as e:
            raise Conflict("Another job for the same thing has been begun since: it does what this one would.") from e
        if moved:
            await self._queue.put(id_)
            self._tell(id_)
        return job

    async def _move(
        self,
        tenant: str,
        id_: str,
        status: JobStatus,
        of: Collection[JobStatus],
        wanted: Collection[JobStatus],
        act: "Act | None",
    ) -> tuple[Job, bool]:
        """Give a job another status; the job, and whether that was needed: not where it is as it is `wanted`.

        Raises NotFound, Conflict or Taken.
        """
        while True:
            if _ID.fullmatch(id_) and (job := await self._rows.move(tenant, id_, status, of, act)) is not None:
                return job, True
            job = await self.get(tenant, id_)
            if job.status in wanted:
                return job, False
            if job.status not in of:
                verb = "resumed" if status == "queued" else status
                raise Conflict(f"The job is {job.status}: it cannot be {verb}.")
            # Another has changed it in between.

    async def _run(self, id_: str) -> None:
        job = await self._whole(self._rows.get(id_))
        if job is None or job.status != "running":
            return
        self._here[id_] = course = Course(job, lambda: self._tell(id_))
        self._tell(id_)
        writing = asyncio.create_task(self._write(course))
        try:
            outcome = await self._outcome(course)
        finally:
            course.over.set()
            await asyncio.gather(writing, return_exceptions=True)
            del self._here[id_]
            self._tell(id_)
        if await self._whole(self._rows.end(job, outcome, course.progress())):
            code = outcome.code if isinstance(outcome, JobFailure) else None
            logger().info("job_ended", job=id_, kind=job.kind, target=job.target, error=code)
        self._tell(id_)

    async def _outcome(self, course: Course) -> dict[str, Any] | JobFailure:
        job = course.job
        if job.fruitless > ATTEMPTS_MAX:
            return JobFailure(code="given_up", message=f"Given up: {ATTEMPTS_MAX} attempts ended without any progress.")
        if (work := self._kinds.get(job.kind)) is None:
            return JobFailure(code="unknown_kind", message=f"This gateway does no jobs of the kind '{job.kind}'.")
        try:
            result = await work(job, course.report)
            msgspec.json.encode(result)
        except GatewayError as e:
            return JobFailure(code=e.word, message=e.message)
        except Exception as e:
            logger().error("job_failed", job=job.id, kind=job.kind, exc_info=e)
            return JobFailure(code="internal_error", message="The gateway failed at this; its log says why.")
        return result

    async def _write(self, course: Course) -> None:
        """Write down how far a job is, now and again, and in the end."""
        written = course.job.progress
        while True:
            over = course.over.is_set()
            progress, further = course.progress(), course.further()
            if progress != written or further:
                try:
                    await self._rows.advance(course.job, progress, further=further)
                    written = progress
                except Exception as e:
                    logger().warning("job_progress_unwritten", job=course.job.id, error=type(e).__name__)
            if over:
                return
            await waited(course.over, WRITE_S)

    def _standing(self, job: Job) -> Job:
        """A job with what is known of it here that is not written down yet."""
        here = self._here.get(job.id)
        if here is None or job.status != "running":
            return job
        return msgspec.structs.replace(job, progress=here.progress())

    def _tell(self, id_: str) -> None:
        for news in self._watchers.get(id_, ()):
            news.set()

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, which goes on to its end when nobody waits for it any more."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return await asyncio.shield(task)

    async def _tried(self, failed: str, work: Coroutine[Any, Any, T], **about: str) -> T | None:
        """What the work returns; None where it failed, of which the log tells: it is tried again some time later."""
        try:
            return await self._whole(work)
        except Exception as e:
            logger().warning(failed, error=type(e).__name__, **about)
            return None

    async def _tidy(self) -> None:
        """Clear away what those before us, or we ourselves, could not."""
        while True:
            self._untidy.clear()
            unsettled = await self._tried("jobs_unsettled", self._rows.unsettled())
            left = unsettled is None
            for job in unsettled or ():
                left |= not await self._tried("job_unsettled", self._settle(job.id), job=job.id)
            await waited(self._untidy, TIDY_S if left else None)

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(FORGET_S)
            long_ago = time.time() - KEPT_DAYS * 86_400
            if gone := await self._tried("jobs_forget_failed", self._rows.forget(long_ago, KEPT)):
                logger().info("jobs_forgotten", rows=gone)
