"""Who may talk to which worker: one task owns every queue, slot and worker, and nothing else does.

Invariant: state changes only in the owner's task, in answer to messages; callers and keepers send
messages and await futures.  So there are no locks, and nothing is decided by what was true elsewhere.
What to do is decided in `scheduler`; here it is done.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from math import inf
from typing import Any

from backends.local.planning import Plan
from backends.local.pool import outlook, refusal
from backends.local.pool.keeper import Build, contained, keep, lives, outcome
from backends.local.pool.line import Line
from backends.local.pool.scheduler import Action, Grant, Load, Refuse, Room, Unload, backoff_s, decide, next_due
from backends.local.pool.seat import Lease, Order, Seat, Ticket, blended, now
from backends.local.worker import RESPONDS_S, Failed, Worker
from backends.ports import Local, Reckoning
from compat.canonical.error import GatewayError, WorkerCrashed

TICK_S = 1.0
"""How often those who wait are told anew how long it may take."""
SURVEY_S = 0.2
"""How old what is known of the machine's memory may be when a model is loaded."""

_log = logging.getLogger(__name__)


class Owner:
    """Methods without an underscore are messages, `start`, `tell`, `unseen` and `aclose` apart: see `tell`."""

    def __init__(
        self,
        plan: Callable[[Local, int], Plan | None],
        build: Build,
        *,
        limits: Room,
        queue_max: int,
        idle_unload_s: Callable[[str], float],
        pinned: frozenset[str],
        hang_s: float,
        reckoning: Reckoning | None,
        available: Callable[[], int],
    ) -> None:
        self.seats: dict[str, Seat] = {}
        self.line = Line(queue_max)
        self._planned = contained(plan)
        self._build = build
        self._limits = limits
        self._idle_unload_s = idle_unload_s
        self._pinned = pinned
        self._hang_s = hang_s
        self._reckoning = reckoning
        self._available = available
        self._impatient: list[Ticket] = []
        """Arrived since the last decision, for a model that is not in memory."""
        self._inbox: asyncio.Queue[tuple[Callable[..., None], tuple[Any, ...]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._free = 0
        """Bytes of the machine's memory, when it was surveyed."""
        self._surveyed_at = -inf

    @property
    def running(self) -> bool:
        return self._task is not None and not self._closed

    def start(self) -> None:
        """Take up work, if that has not been done.  Raises Overloaded once it is closed."""
        if self._closed:
            raise refusal.closing()
        if self._task is None:
            # In a context of its own: it outlives the request that happens to come first.
            self._task = asyncio.create_task(self._own(), context=Context())
            self._task.add_done_callback(self._abandoned)

    def tell(self, what: Callable[..., None], *about: Any) -> None:
        """Have one of the messages below read, in its turn."""
        self._inbox.put_nowait((what, about))

    def unseen(self, local: Local) -> Seat:
        """The seat of a model that nobody has asked for yet, to look at only."""
        seat = self._empty(local)
        seat.lay_out(local, self._planned)
        return seat

    async def aclose(self) -> None:
        """End every worker and return when their processes are gone.  Waiting callers get Overloaded."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        tasks: list[asyncio.Task[Any] | None] = [seat.keeper for seat in self.seats.values()]
        tasks += [seat.asking for seat in self.seats.values()]
        going = [task for task in tasks if task is not None]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        while not self._inbox.empty():  # the last words of workers on what they took
            what, about = self._inbox.get_nowait()
            if what == self.measured:
                what(*about)

    async def _own(self) -> None:
        """Read messages and act on what they change, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due()):
                    what, about = await self._inbox.get()
                    what(*about)
            while not self._inbox.empty():
                what, about = self._inbox.get_nowait()
                what(*about)
            while self._do(self._decided()):
                pass
            self._watch()
            self._inform()

    def _abandoned(self, owner: "asyncio.Task[None]") -> None:
        """The owner has ended: nobody is left waiting for it, read or unread."""
        error = None if owner.cancelled() else owner.exception()
        if error is not None:
            _log.critical("pool_failed", exc_info=error)
        self._closed = True
        left: set[Ticket | Order] = {*self.line, *self._impatient}
        left.update(order for seat in self.seats.values() for order in seat.orders)
        while not self._inbox.empty():
            left.update(about for about in self._inbox.get_nowait()[1] if isinstance(about, Ticket | Order))
        for each in left:
            each.refuse(refusal.out_of_order() if error else refusal.closing())

    # Messages of callers

    def arrived(self, ticket: Ticket) -> None:
        name = ticket.local.name
        seat = self.seats.setdefault(name, self._empty(ticket.local))
        if (error := self._unready(seat, ticket.local)) is not None:
            return ticket.refuse(error)
        if seat.serves and not seat.orders:
            if not ticket.slot:
                ticket.grant(self._lease(seat, ticket))
                return
        elif not ticket.call.patient:
            seat.wished = True
            self._impatient.append(ticket)
            return
        crowded_out = self.line.enter(ticket)
        if crowded_out is not None:
            crowded_out.settle(seat)
            crowded_out.refuse(refusal.crowded(name))

    def left(self, ticket: Ticket) -> None:
        seat = self.seats.get(ticket.local.name)
        if ticket in self._impatient:
            self._impatient.remove(ticket)
        if seat is None:
            return
        if ticket in self.line:
            ticket.settle(seat)
            self.line.leave(ticket)
            seat.owed = min(seat.owed, len(self.line.of(seat.name)))
        elif ticket in seat.leases:
            seat.leases.discard(ticket)
            seat.used_at = now()
            if seat.worker is not None and seat.worker.alive:
                seat.served, seat.failures = True, 0
                seat.request_s = blended(seat.request_s, now() - ticket.granted_at)

    def wished(self, local: Local) -> None:
        seat = self.seats.setdefault(local.name, self._empty(local))
        seat.wished = self._unready(seat, local) is None and seat.worker is None

    def ordered_out(self, model: str, order: Order) -> None:
        seat = self.seats.get(model)
        if seat is not None:
            seat.wished, seat.rung_known = False, 0
        if seat is None or seat.keeper is None:
            if seat is not None:
                seat.failure, seat.failures, seat.retry_at = None, 0, 0.0
            return order.finish()
        seat.orders.append(order)

    def dismissed(self, seat: Seat, worker: Worker, ticket: Ticket) -> None:
        if seat.worker is worker and not seat.going and seat.leases <= {ticket}:
            self._unload(seat)

    # Messages of keepers

    def built(self, seat: Seat, worker: Worker) -> None:
        seat.coming = worker

    def ready(self, seat: Seat, worker: Worker) -> None:
        for ticket in [ticket for ticket in self.line.of(seat.name) if not ticket.slot and not seat.going]:
            ticket.settle(seat)
            self.line.serve(ticket)
            ticket.grant(self._lease(seat, ticket, worker))
        seat.ready(worker, len(self.line.of(seat.name)))
        self._surveyed_at = -inf

    def measured(self, seat: Seat, worker: Worker, size_bytes: int) -> None:
        """What was measured before anybody was served says too little."""
        if seat.worker is worker and seat.served and seat.plan is not None:
            seat.peak = max(seat.peak or 0, size_bytes)
            if self._reckoning is not None:
                self._reckoning.measured(seat.plan.key, seat.peak)

    def pulse(self, seat: Seat, worker: Worker, lives: bool) -> None:
        """The answer to whether a silent worker lives."""
        if seat.worker is not worker:
            return
        seat.asking, seat.asked_at = None, now()
        if lives or seat.going:
            return
        seat.verdict = Failed(f"Model '{seat.name}' stopped responding.", tuple(worker.log))
        for ticket in seat.leases:
            if ticket.lease is not None:
                ticket.lease.verdict = seat.verdict
        self._unload(seat)

    def ended(self, seat: Seat, failure: Failed | None) -> None:
        was_loading = seat.worker is None
        failure = seat.verdict or failure
        seat.emptied()
        self._surveyed_at = -inf
        if failure is None:
            return
        if was_loading and failure.out_of_memory and self._step_down(seat):
            return
        seat.failed(failure, backoff_s)
        rest_s = max(0.0, seat.retry_at - now())
        _log.error(
            "worker_failed model=%s reason=%r retry_in_s=%g log=%r",
            seat.name, failure.reason, rest_s, "\n".join(failure.log),
        )  # fmt: skip
        # Those who wait behind a worker that served until now get the next one; behind one that
        # does not come up, waiting is no use.
        if was_loading or rest_s > 0:
            self._refuse(seat, WorkerCrashed(failure.reason, retry_after_s=max(rest_s, 1.0)))

    # What follows from them

    def _decided(self) -> tuple[list[Action], list[Ticket]]:
        waiting = list(self.line)
        queue = [ticket.local.name for ticket in waiting]
        wishes = [name for name, seat in self.seats.items() if seat.wished]
        limits = self._limits
        if any(self.seats[name].state in ("out", "going") for name in {*queue, *wishes}):
            self._survey(SURVEY_S)
            limits = limits._replace(available=self._free)
        standings = {name: seat.standing() for name, seat in self.seats.items()}
        return decide(standings, queue, wishes, limits=limits, now=now()), waiting

    def _do(self, decided: tuple[Sequence[Action], Sequence[Ticket]]) -> bool:
        """Do what has been decided; returns whether there is more to decide at once."""
        actions, waiting = decided
        again = False
        for action in actions:
            match action:
                case Grant(place=place):
                    self._grant(waiting[place])
                    again = again or not waiting[place].slot
                case Load(model=model):
                    self._load(self.seats[model])
                case Unload(model=model, beneficiary=beneficiary):
                    _log.info("worker_unloaded model=%s for=%s", model, beneficiary)
                    self.seats[model].counted["evictions"] += beneficiary is not None
                    self._unload(self.seats[model])
                case Refuse(model=model, most=most):
                    seat = self.seats[model]
                    if self._step_down(seat):
                        again = True
                    else:
                        error = refusal.no_room(model, seat.memory()[0], most, self._limits)
                        _log.warning("model_refused model=%s reason=%r", model, error.message)
                        self._refuse(seat, error)
        return again

    def _grant(self, ticket: Ticket) -> None:
        seat = self.seats[ticket.local.name]
        ticket.settle(seat)
        self.line.serve(ticket)
        seat.owed = max(0, seat.owed - 1)
        # One that has been cancelled is not there any more; its `left` is on the way.
        if ticket.grant(self._lease(seat, ticket)) and ticket.slot:
            seat.leases.add(ticket)
            seat.used_at = now()

    def _lease(self, seat: Seat, ticket: Ticket, worker: Worker | None = None) -> Lease:
        worker = worker or seat.worker
        assert worker is not None
        return Lease(worker, partial(self.tell, self.dismissed, seat, worker, ticket))

    def _load(self, seat: Seat) -> None:
        assert seat.plan is not None
        seat.began()
        seat.keeper = asyncio.create_task(
            keep(
                seat.local,
                seat.plan,
                self._build,
                built=partial(self.tell, self.built, seat),
                ready=partial(self.tell, self.ready, seat),
                measured=partial(self.tell, self.measured, seat),
            )
        )
        # Not in the task itself, which never runs if it is cancelled before its first step.
        seat.keeper.add_done_callback(lambda task: self.tell(self.ended, seat, outcome(task)))

    def _unload(self, seat: Seat) -> None:
        assert seat.keeper is not None
        seat.going = True
        seat.keeper.cancel()

    def _unready(self, seat: Seat, local: Local) -> GatewayError | None:
        """Why a model that is not in memory cannot be loaded now; a seat that nobody wanted until now is laid out."""
        if seat.keeper is not None:
            return None
        rest_s = seat.retry_at - now()
        if seat.failure is not None and rest_s > 0:
            return refusal.resting(seat.failure.reason, rest_s)
        if seat.plan is None or not (seat.wished or self.line.of(seat.name)):
            seat.lay_out(local, self._planned)
        return None if seat.plan is not None else refusal.unplanned(seat.name)

    def _step_down(self, seat: Seat) -> bool:
        """Run the model more modestly the next time, if it can be."""
        lower = self._planned(seat.local, seat.rung + 1)
        if lower is None:
            return False
        seat.rung, seat.plan = seat.rung + 1, lower
        seat.steps.append(lower.step or "")
        _log.warning("model_downsized model=%s step=%r need_bytes=%d", seat.name, lower.step, lower.need_bytes)
        return True

    def _refuse(self, seat: Seat, error: GatewayError) -> None:
        """Send away all who wait for a model."""
        seat.wished = False
        for ticket in self.line.of(seat.name):
            ticket.settle(seat)
            self.line.leave(ticket)
            ticket.refuse(error)
        for ticket in self._impatient:
            if ticket.local.name == seat.name:
                ticket.refuse(error)

    def _empty(self, local: Local) -> Seat:
        return Seat(local, pinned=local.name in self._pinned, idle_unload_s=self._idle_unload_s(local.name))

    # What time brings

    def _due(self) -> float | None:
        """When to look again though nothing has happened."""
        due = [next_due([seat.standing() for seat in self.seats.values() if seat.serves and not seat.leases])]
        due += [since + self._hang_s for seat in self.seats.values() if (since := seat.silent_since()) is not None]
        if self.line or any(seat.wished for seat in self.seats.values()):
            due.append(now() + TICK_S)
        return min((at for at in due if at is not None), default=None)

    def _watch(self) -> None:
        """Ask those who are used and silent whether they live."""
        for seat in self.seats.values():
            since = seat.silent_since()
            if since is not None and seat.worker is not None and now() >= since + self._hang_s:
                self._ask(seat, seat.worker)

    def _ask(self, seat: Seat, worker: Worker) -> None:
        # One batch of a long prompt on a slow machine may take this long, and is no reason to end anybody.
        seat.asking = asyncio.create_task(worker.responds(max(RESPONDS_S, self._hang_s / 3)))
        seat.asking.add_done_callback(lambda task: self.tell(self.pulse, seat, worker, lives(task)))

    def _survey(self, age_s: float) -> None:
        """See what the machine has free and what of that is spoken for, at the same moment, unless it was just seen."""
        if now() >= self._surveyed_at + age_s:
            self._surveyed_at = now()
            self._free = self._available()
            for seat in self.seats.values():
                seat.look()

    def _inform(self) -> None:
        """Keep true what those who wait are told, and send on who will not wait."""
        if self.line:
            self._survey(TICK_S)
        busy = [seat.request_s for seat in self.seats.values() if seat.leases]
        room_s = None if None in busy else max((s for s in busy if s is not None), default=0.0)
        for model in self.line.models():
            seat = self.seats[model]
            for position, ticket in enumerate(self.line.of(model)):
                ticket.inform(seat, position, outlook.wait_s(seat, position, room_s))
        for ticket in self._impatient:
            seat = self.seats[ticket.local.name]
            ticket.refuse(refusal.loading(seat.name, outlook.wait_s(seat, 0, room_s)))
        self._impatient = []
