"""Who may talk to which worker: one task owns every queue, slot and worker, and nothing else does.

Invariant: state changes only in the owner task, in answer to messages; callers and keepers send
messages and await futures.  So there are no locks, and a caller that is cancelled has left, wherever
it was, when its `_left` has been read.  What to do is decided in `scheduler`; here it is done.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, Literal

from backends.base import Call, Local
from backends.local.scheduler import Grant, Load, Standing, Unload, backoff_s, decide, next_due
from backends.local.seat import Lease, Seat, Ticket, now
from backends.local.worker import Failed, Worker
from compat.canonical.error import (
    InternalError,
    ModelLoading,
    ModelNotFound,
    Overloaded,
    QueueFull,
    TimedOut,
    WorkerCrashed,
)

QUEUE_FULL_RETRY_S = 5.0

_log = logging.getLogger(__name__)

Status = Literal["unloaded", "loading", "ready", "draining", "failed"]


class Pool:
    """Starts workers when they are asked for, shares their slots out, and ends them.

    catalogue: the models there are, by name.
    build: makes the worker of a model, not yet started.  Raises Failed.
    """

    def __init__(
        self,
        catalogue: Callable[[], Mapping[str, Local]],
        build: Callable[[Local], Awaitable[Worker]],
        *,
        max_loaded: int,
        queue_max: int,
        idle_unload_s: float,
    ) -> None:
        self._catalogue = catalogue
        self._build = build
        self._max_loaded = max_loaded
        self._queue_max = queue_max
        self._idle_unload_s = idle_unload_s
        self._seats: dict[str, Seat] = {}
        self._queue: dict[Ticket, None] = {}
        self._inbox: asyncio.Queue[tuple[Callable[..., None], tuple[Any, ...]]] = asyncio.Queue()
        self._owner: asyncio.Task[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def lease(self, model: str, call: Call) -> AsyncIterator[Lease]:
        """Wait for a slot of the model, loading it if need be, and hold it while the context is open.

        Keeps `call.wait` true meanwhile.  Raises ModelNotFound, QueueFull, ModelLoading, WorkerCrashed,
        TimedOut at the call's deadline, Overloaded when the pool is closing.
        """
        local = self._catalogue().get(model)
        if local is None:
            raise ModelNotFound(f"The model '{model}' does not exist.")
        if self._closed:
            raise _closing()
        if self._owner is None:
            # In a context of its own: it outlives the request that happens to come first.
            self._owner = asyncio.create_task(self._own(), context=Context())
            self._owner.add_done_callback(self._abandoned)
        ticket = Ticket(local, call)
        call.wait.held = True
        self._tell(self._arrived, ticket)
        try:
            try:
                async with asyncio.timeout_at(call.deadline):
                    lease = await ticket.granted
            except TimeoutError as e:
                raise TimedOut(f"Model '{model}' did not become free in time.") from e
            finally:
                call.wait.held = False
            yield lease
        finally:
            self._tell(self._left, ticket)

    def status(self, model: str) -> Status:
        """How a model stands, for people to read: by the time they do, it may have changed."""
        seat = self._seats.get(model)
        if seat is None or seat.keeper is None:
            return "failed" if seat is not None and seat.failure is not None else "unloaded"
        return "draining" if seat.going else "ready" if seat.worker else "loading"

    def workers(self) -> dict[str, Worker]:
        """The workers that serve now, by model; a snapshot."""
        return {name: seat.worker for name, seat in self._seats.items() if seat.worker is not None}

    async def aclose(self) -> None:
        """End every worker and return when their processes are gone.  Waiting callers get Overloaded."""
        self._closed = True
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait({self._owner})
        keepers = [seat.keeper for seat in self._seats.values() if seat.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    def _tell(self, what: Callable[..., None], *about: Any) -> None:
        self._inbox.put_nowait((what, about))

    async def _own(self) -> None:
        """Read messages and act on what they change, until cancelled.  All below runs in here."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_due(self._standings(), self._idle_unload_s)):
                    what, about = await self._inbox.get()
                    what(*about)
            while not self._inbox.empty():
                what, about = self._inbox.get_nowait()
                what(*about)
            self._act()

    def _abandoned(self, owner: "asyncio.Task[None]") -> None:
        """The owner has ended: nobody is left waiting for it, read or unread."""
        error = None if owner.cancelled() else owner.exception()
        if error is not None:
            _log.critical("pool_failed", exc_info=error)
        self._closed = True
        tickets = set(self._queue)
        while not self._inbox.empty():
            tickets.update(about for about in self._inbox.get_nowait()[1] if isinstance(about, Ticket))
        for ticket in tickets:
            ticket.refuse(InternalError("The local models are out of order.") if error else _closing())

    def _arrived(self, ticket: Ticket) -> None:
        name = ticket.local.name
        seat = self._seats.setdefault(name, Seat(ticket.local))
        rest_s = seat.retry_at - now()
        if seat.keeper is None:
            seat.local = ticket.local
            if seat.failure is not None and rest_s > 0:
                return ticket.refuse(
                    ModelLoading(f"{seat.failure.reason} It will be tried again.", retry_after_s=rest_s)
                )
        if sum(waiting.local.name == name for waiting in self._queue) >= self._queue_max:
            return ticket.refuse(
                QueueFull(f"Too many requests wait for model '{name}'.", retry_after_s=QUEUE_FULL_RETRY_S)
            )
        self._queue[ticket] = None

    def _left(self, ticket: Ticket) -> None:
        seat = self._seats[ticket.local.name]
        ticket.call.wait.queue_position = None
        if ticket in self._queue:
            self._note_wait(ticket, seat)
            del self._queue[ticket]
        elif ticket in seat.leases:
            seat.leases.discard(ticket)
            seat.idle_since = now()
            if seat.worker is not None and seat.worker.alive:
                seat.served, seat.failures = True, 0

    def _became_ready(self, seat: Seat, worker: Worker) -> None:
        seat.worker, seat.failure, seat.served = worker, None, False
        seat.used_at = seat.idle_since = seat.ready_at = now()

    def _ended(self, seat: Seat, failure: Failed | None) -> None:
        was_loading = seat.worker is None
        seat.worker = seat.keeper = None
        seat.going = False
        seat.leases = set()
        seat.failure = failure
        if failure is None:
            return
        seat.failures = seat.failures if seat.served else seat.failures + 1
        rest_s = backoff_s(seat.failures)
        seat.retry_at, seat.served = now() + rest_s, False
        _log.error(
            "worker_failed model=%s reason=%r retry_in_s=%g log=%r",
            seat.local.name, failure.reason, rest_s, "\n".join(failure.log),
        )  # fmt: skip
        # Those who wait behind a worker that served until now get the next one; behind one that
        # does not come up, waiting is no use.
        if was_loading or rest_s > 0:
            for ticket in [ticket for ticket in self._queue if ticket.local.name == seat.local.name]:
                self._note_wait(ticket, seat)
                del self._queue[ticket]
                ticket.refuse(WorkerCrashed(failure.reason, retry_after_s=max(rest_s, 1.0)))

    def _act(self) -> None:
        waiting = list(self._queue)
        actions = decide(
            self._standings(),
            [ticket.local.name for ticket in waiting],
            max_loaded=self._max_loaded,
            idle_unload_s=self._idle_unload_s,
            now=now(),
        )
        for action in actions:
            match action:
                case Grant(place=place):
                    self._grant(waiting[place])
                case Load(model=model):
                    self._load(self._seats[model])
                case Unload(model=model):
                    self._unload(self._seats[model])
        ahead: Counter[str] = Counter()
        for ticket in self._queue:
            name = ticket.local.name
            ticket.call.wait.queue_position = ahead[name]
            self._note_wait(ticket, self._seats[name])
            ahead[name] += 1

    def _grant(self, ticket: Ticket) -> None:
        seat = self._seats[ticket.local.name]
        del self._queue[ticket]
        if ticket.granted.done() or seat.worker is None:
            return  # it has been cancelled; its `_left` is on the way
        self._note_wait(ticket, seat)
        ticket.call.wait.queue_position = None
        seat.leases.add(ticket)
        seat.used_at = now()
        ticket.granted.set_result(Lease(seat.worker))

    def _load(self, seat: Seat) -> None:
        seat.began_at, seat.ready_at = now(), 0.0
        seat.keeper = asyncio.create_task(self._keep(seat))
        # Not in the task itself, which never runs if it is cancelled before its first step.
        seat.keeper.add_done_callback(lambda task: self._tell(self._ended, seat, _result(task)))

    def _unload(self, seat: Seat) -> None:
        assert seat.keeper is not None
        seat.going = True
        seat.keeper.cancel()

    async def _keep(self, seat: Seat) -> Failed | None:
        """A worker's whole life; returns how it failed, or None when it was ended on purpose."""
        worker = None
        try:
            worker = await self._build(seat.local)
            await worker.start()
            self._tell(self._became_ready, seat, worker)
            return await worker.gone()
        except Failed as e:
            return e
        except asyncio.CancelledError:
            return None
        finally:
            if worker is not None:
                await _uninterrupted(worker.stop())

    def _standings(self) -> dict[str, Standing]:
        return {name: seat.standing() for name, seat in self._seats.items()}

    def _note_wait(self, ticket: Ticket, seat: Seat) -> None:
        loaded = seat.ready_at or (now() if seat.keeper else seat.began_at)
        wait = ticket.call.wait
        wait.load_s = max(0.0, loaded - max(ticket.since, seat.began_at))
        wait.queue_s = max(0.0, now() - ticket.since - wait.load_s)


async def _uninterrupted(ending: Coroutine[Any, Any, None]) -> None:
    """Await a bounded ending to its end, whoever cancels meanwhile: half-stopped is not a state."""
    task = asyncio.create_task(ending)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()


def _closing() -> Overloaded:
    return Overloaded("The local models are shutting down.", retry_after_s=QUEUE_FULL_RETRY_S)


def _result(task: "asyncio.Task[Failed | None]") -> Failed | None:
    """What a keeper returned.  Cancelled before its first step it has nothing to say."""
    if task.cancelled():
        return None
    if (error := task.exception()) is not None:
        _log.error("worker_keeper_failed", exc_info=error)
        return Failed("The model could not be loaded.")
    return task.result()
