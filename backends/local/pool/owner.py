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
from typing import Any

from backends.local.pool import outlook, refusal
from backends.local.pool.keeper import keep, lives, noted, outcome
from backends.local.pool.line import Line
from backends.local.pool.scheduler import Action, Grant, Load, Refuse, Unload, backoff_s, decide, next_due
from backends.local.pool.seat import Lease, Order, Seat, Ticket, now
from backends.local.pool.survey import Survey
from backends.local.pool.terms import Terms
from backends.local.worker import RESPONDS_S, Failed, Worker
from backends.ports import Local
from compat.canonical.error import GatewayError

TICK_S = 1.0
"""How often those who wait are told anew how long it may take."""
SURVEY_S = 0.2
"""How old what is known of the machine's memory may be when a model is loaded."""

_log = logging.getLogger(__name__)


class Owner:
    """Methods without an underscore are messages, `start`, `tell`, `unseen` and `aclose` apart: see `tell`."""

    def __init__(self, terms: Terms) -> None:
        self.seats: dict[str, Seat] = {}
        self.line = Line(terms.queue_max)
        self.terms = terms
        self._impatient: list[Ticket] = []
        """Arrived since the last decision, for a model that is not in memory."""
        self._inbox: asyncio.Queue[tuple[Callable[..., None], tuple[Any, ...]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.failed = False
        """It has ended by a fault of its own."""
        self._survey = Survey()

    @property
    def running(self) -> bool:
        return self._task is not None and not self._closed

    def start(self) -> None:
        """Take up work, if that has not been done.  Raises Overloaded once it is closed."""
        if self._closed:
            raise refusal.out_of_order() if self.failed else refusal.closing()
        if self._task is None:
            # In a context of its own: it outlives the request that happens to come first.
            self._task = asyncio.create_task(self._own(), context=Context())
            self._task.add_done_callback(self._abandoned)

    def tell(self, what: Callable[..., None], *about: Any) -> None:
        """Have one of the messages below read, in its turn."""
        self._inbox.put_nowait((what, about))

    def unseen(self, local: Local) -> Seat:
        """The seat of a model that nobody has asked for yet, to look at only."""
        seat = self.terms.seat(local)
        seat.lay_out(local, self.terms.planned)
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
                    self._read(*await self._inbox.get())
            while not self._inbox.empty():
                self._read(*self._inbox.get_nowait())
            while self._do(self._decided()):
                pass
            self._watch()
            self._inform()

    def _read(self, what: Callable[..., None], about: tuple[Any, ...]) -> None:
        """Act on a message.  One that fails harms none but those whom it concerns."""
        try:
            what(*about)
        except Exception:
            _log.exception("pool_message_failed", extra={"message_name": what.__name__})
            for one in about:
                if isinstance(one, Ticket | Order):
                    one.refuse(refusal.out_of_order())
                elif isinstance(one, Seat) and what == self.ended:
                    one.emptied()
                elif isinstance(one, Seat) and one.keeper is not None and not one.going:
                    self._unload(one)

    def _abandoned(self, owner: "asyncio.Task[None]") -> None:
        """The owner has ended: nobody is left waiting for it, read or unread."""
        error = None if owner.cancelled() else owner.exception()
        if error is not None:
            _log.critical("pool_failed", exc_info=error)
        self.failed, self._closed = error is not None, True
        left: set[Ticket | Order] = {*self.line, *self._impatient}
        left.update(order for seat in self.seats.values() for order in seat.orders)
        while not self._inbox.empty():
            left.update(about for about in self._inbox.get_nowait()[1] if isinstance(about, Ticket | Order))
        for each in left:
            each.refuse(refusal.out_of_order() if error else refusal.closing())

    # Messages of callers

    def arrived(self, ticket: Ticket) -> None:
        name = ticket.local.name
        seat = self.seats.setdefault(name, self.terms.seat(ticket.local))
        seat.seen(ticket.look)
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
            seat.released(ticket)

    def unfit(self, local: Local, failure: Failed) -> None:
        """A model that is not in memory cannot be run as it is."""
        self.seats.setdefault(local.name, self.terms.seat(local)).unfit(failure)

    def wished(self, local: Local) -> None:
        seat = self.seats.setdefault(local.name, self.terms.seat(local))
        seat.wished = self._unready(seat, local) is None and seat.worker is None

    def ordered_out(self, model: str, order: Order) -> None:
        seat = self.seats.get(model)
        if seat is not None:
            seat.wished, seat.wish_at, seat.rung_known = False, None, 0
        if seat is None or seat.keeper is None:
            if seat is not None:
                seat.failure, seat.failures, seat.retry_at = None, 0, 0.0
            return order.finish()
        seat.orders.append(order)

    def dismissed(self, seat: Seat, worker: Worker, ticket: Ticket) -> None:
        if seat.worker is worker and not seat.going and seat.leases <= {ticket}:
            seat.wished = seat.pinned
            self._unload(seat)

    def adopt(self, terms: Terms) -> None:
        """Go by other terms from now on.  A worker that they would run otherwise, or not at all, finishes what it has
        begun and is ended; one that is not ready yet is begun anew for those who wait for it."""
        self.terms, catalogue = terms, terms.catalogue()
        self.line.resize(terms.queue_max)
        for name, seat in self.seats.items():
            local = catalogue.get(name)
            seat.pinned, seat.idle_unload_s = name in terms.pinned and name in catalogue, terms.idle_unload_s(name)
            seat.wished = seat.wished and local is not None
            seat.outdated = seat.going or not seat.suits(local, terms.planned)
            if seat.keeper is None:
                self._renew(seat)
            elif seat.outdated and not seat.going:
                if seat.worker is None and local is not None:
                    self._unload(seat)
                else:
                    seat.orders.append(Order())

    # Messages of keepers

    def built(self, seat: Seat, worker: Worker) -> None:
        seat.coming = worker

    def ready(self, seat: Seat, worker: Worker) -> None:
        for ticket in [ticket for ticket in self.line.of(seat.name) if not ticket.slot and not seat.going]:
            ticket.settle(seat)
            self.line.serve(ticket)
            ticket.grant(self._lease(seat, ticket, worker))
        seat.ready(worker, len(self.line.of(seat.name)))
        self._survey.forget()

    def measured(self, seat: Seat, worker: Worker, size_bytes: int) -> None:
        """What was measured before anybody was served says too little."""
        if seat.worker is worker and seat.served and seat.plan is not None:
            seat.peak = max(seat.peak or 0, size_bytes)
            if self.terms.reckoning is not None:
                noted(self.terms.reckoning, seat.plan.key, seat.peak)

    def pulse(self, seat: Seat, worker: Worker, lives: bool) -> None:
        """The answer to whether a silent worker lives."""
        if seat.worker is not worker:
            return
        seat.asking, seat.asked_at = None, now()
        if lives or seat.going:
            return
        seat.condemned(Failed(f"Model '{seat.name}' stopped responding.", tuple(worker.log)))
        self._unload(seat)

    def ended(self, seat: Seat, failure: Failed | None) -> None:
        was_loading = seat.worker is None
        failure = seat.verdict or failure
        seat.emptied()
        self._survey.forget()
        if seat.outdated:
            self._renew(seat)
        if failure is None:
            return
        if was_loading and failure.out_of_memory and seat.stepped_down(self.terms.planned):
            seat.rung_known = seat.rung
            return
        rest_s = seat.failed(failure, backoff_s)
        # Those who wait behind a worker that served until now get the next one; behind one that
        # does not come up, waiting is no use.
        if was_loading or rest_s > 0:
            self._refuse(seat, refusal.failed(failure, rest_s))

    # What follows from them

    def _decided(self) -> tuple[list[Action], list[Ticket]]:
        waiting = list(self.line)
        queue = [ticket.local.name for ticket in waiting]
        wishes = [name for name, seat in self.seats.items() if seat.wished]
        limits = self.terms.limits
        if any(self.seats[name].state in ("out", "going") for name in {*queue, *wishes}):
            self._survey.renew(SURVEY_S, self.terms.available, self.seats.values())
            limits = limits._replace(available=self._survey.free)
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
                    _log.info("worker_unloaded", extra=self.seats[model].named | {"for": beneficiary})
                    self.seats[model].counted["evictions"] += beneficiary is not None
                    self._unload(self.seats[model])
                case Refuse(model=model, most=most):
                    seat = self.seats[model]
                    if most.places > 0 and seat.stepped_down(self.terms.planned):
                        again = True
                    else:
                        text = seat.local.format == "gguf"
                        error = refusal.no_room(model, seat.memory()[0], most, self.terms.limits, text=text)
                        _log.warning("model_refused", extra=seat.named | {"reason": error.message})
                        self._refuse(seat, error)
                        seat.missed()
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
                self.terms.build,
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
        if seat.failure is not None and seat.failure.lasting:
            return refusal.failed(seat.failure, rest_s)
        if seat.failure is not None and rest_s > 0:
            return refusal.resting(seat.failure.reason, rest_s)
        if seat.plan is None or not (seat.wished or self.line.of(seat.name)):
            seat.lay_out(self.terms.catalogue().get(seat.name, local), self.terms.planned)
        return None if seat.plan is not None else refusal.unplanned(seat.name)

    def _renew(self, seat: Seat) -> None:
        """Have a model that is not in memory run as the terms now say, the next time."""
        seat.renew(self.terms.catalogue().get(seat.name, seat.local), self.terms.planned)
        if seat.plan is None:
            self._refuse(seat, refusal.unplanned(seat.name))

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

    # What time brings

    def _due(self) -> float | None:
        """When to look again though nothing has happened."""
        due = [next_due([seat.standing() for seat in self.seats.values() if seat.serves and not seat.leases])]
        due += [seat.wish_at for seat in self.seats.values()]
        due += [since + self.terms.hang_s for seat in self.seats.values() if (since := seat.silent_since()) is not None]
        if self.line or any(seat.wished for seat in self.seats.values()):
            due.append(now() + TICK_S)
        return min((at for at in due if at is not None), default=None)

    def _watch(self) -> None:
        """Ask those who are used and silent whether they live, and bring back what is pinned and has rested."""
        for seat in self.seats.values():
            if seat.comes_back():
                self.tell(self.wished, seat.local)
            since = seat.silent_since()
            if since is not None and seat.worker is not None and now() >= since + self.terms.hang_s:
                self._ask(seat, seat.worker)

    def _ask(self, seat: Seat, worker: Worker) -> None:
        # Those that answer late, or compute on without an answer, are asked again after the next silence.
        seat.asking = asyncio.create_task(worker.responds(max(RESPONDS_S, self.terms.hang_s / 3)))
        seat.asking.add_done_callback(lambda task: self.tell(self.pulse, seat, worker, lives(task)))

    def _inform(self) -> None:
        """Keep true what those who wait are told, and send on who will not wait."""
        if self.line:
            self._survey.renew(TICK_S, self.terms.available, self.seats.values())
        room_s = outlook.room_s(self.seats.values())
        for model in self.line.models():
            seat = self.seats[model]
            for position, ticket in enumerate(self.line.of(model)):
                ticket.inform(seat, position, outlook.wait_s(seat, position, room_s))
        for ticket in self._impatient:
            seat = self.seats[ticket.local.name]
            ticket.refuse(refusal.loading(seat.name, outlook.wait_s(seat, 0, room_s)))
        self._impatient = []
