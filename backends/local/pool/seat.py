"""The places of a pool: a model's seat, a caller's ticket, and the lease that joins them.

Invariant: passive.  The pool's owner task alone changes seats and tickets; a lease only notes that it
has heard of its worker.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Literal

from backends.base import Call
from backends.local.planning import Plan
from backends.local.pool.scheduler import BACKOFF_MAX_S, Standing, State
from backends.local.worker import Failed, Worker
from backends.ports import Local
from compat.canonical.error import GatewayError

DEATH_NOTICE_S = 1.0
"""How long after its connection broke a worker's death may become known."""
READ_BYTES_S = 500e6
"""How fast a model is taken to load whose loading nobody has timed yet."""
WEIGHT = 0.3
"""Of the newest among the times that are remembered."""

Source = Literal["estimate", "engine", "measured"]

_log = logging.getLogger(__name__)


class Lease:
    """A slot of a worker, for as long as its context is open."""

    def __init__(self, worker: Worker, dismiss: Callable[[], None]) -> None:
        self._worker = worker
        self.url = worker.url
        self.key = worker.key
        self.engine = worker.engine
        self.spec = worker.spec
        self.dismiss = dismiss
        """End the worker now, which is no crash: for engines that cannot be stopped otherwise.  One that
        somebody else uses too goes on."""
        self.heard_at = now()
        self.answered = False
        """Something came."""
        self.verdict: Failed | None = None
        """Why the pool has ended the worker under this lease."""

    def heard(self) -> None:
        """Something came from the worker: it lives."""
        self.heard_at, self.answered = now(), True

    @property
    def log(self) -> list[str]:
        """The last lines that the engine printed.  For operators only."""
        return list(self._worker.log)

    async def death(self) -> Failed | None:
        """How the worker died; None when it lives.  For after the connection broke: waits a moment."""
        try:
            async with asyncio.timeout(DEATH_NOTICE_S):
                death = await self._worker.gone()
        except TimeoutError:
            return self.verdict
        return self.verdict or death


class Order:
    """Something asked of the pool whose asker waits; refused when the pool closes before it is done."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def refuse(self, error: GatewayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Ticket:
    """A caller's place: in the line first, then among a worker's leases."""

    def __init__(self, local: Local, call: Call, *, slot: bool = True) -> None:
        self.local = local
        self.call = call
        self.slot = slot
        """A slot is wanted; otherwise only that the model is in memory."""
        self.caller = (call.principal.tenant, call.principal.id)
        self.turn = 0
        """Those of a model with lower ones are served first; set by the line."""
        self.since = now()
        self.granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.granted_at = 0.0
        self.lease: Lease | None = None
        self.look: Hashable = None
        """How the model's files were when it came."""

    def grant(self, lease: Lease) -> bool:
        """Hand the lease over; False when its caller has gone."""
        if self.granted.done():
            return False
        self.lease, self.granted_at = lease, now()
        self.granted.set_result(lease)
        return True

    def refuse(self, error: GatewayError) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)

    def inform(self, seat: "Seat", position: int, eta_s: float | None) -> None:
        """Tell its caller how it stands in the line, and how long that may take."""
        wait = self.call.wait
        wait.queue_position, wait.eta_s = position, eta_s
        if wait.first_position is None:
            wait.first_position = position
        comes = seat.keeper is not None and seat.worker is None and not seat.going
        wait.loading = (seat.progress or 0.0) if comes else None
        self._note(seat)

    def settle(self, seat: "Seat") -> None:
        """Write down what it has waited for, now that it waits no more."""
        self._note(seat)
        wait = self.call.wait
        wait.queue_position = wait.eta_s = wait.loading = None

    def _note(self, seat: "Seat") -> None:
        loaded = seat.ready_at or (now() if seat.keeper else seat.began_at)
        wait = self.call.wait
        wait.load_s = max(0.0, loaded - max(self.since, seat.began_at))
        wait.queue_s = max(0.0, now() - self.since - wait.load_s)


class Seat:
    """A model's place in the pool: its worker, if any, and how it has fared.

    A seat without a keeper is empty; one with a keeper and no worker is loading.
    """

    def __init__(self, local: Local, *, pinned: bool, idle_unload_s: float) -> None:
        self.local = local
        self.pinned = pinned
        self.idle_unload_s = idle_unload_s
        self.plan: Plan | None = None
        self.keeper: asyncio.Task[Failed | None] | None = None
        self.coming: Worker | None = None
        """Its next worker, which does not serve yet."""
        self.worker: Worker | None = None
        self.going = False
        self.outdated = False
        """Other terms hold by now than those its worker was begun on."""
        self.wished = False
        """It is to be loaded though nobody waits."""
        self.orders: list[Order] = []
        """To unload it."""
        self.leases: set[Ticket] = set()
        self.owed = 0
        """How many of those that wait did so already when it became ready."""
        self.began_at = self.ready_at = self.used_at = 0.0
        self.counted: Counter[str] = Counter()
        """Loads, evictions and crashes so far."""
        self.served = False
        """The worker has answered somebody."""
        self.failures = 0
        """In a row, without serving in between."""
        self.failure: Failed | None = None
        self.retry_at = 0.0
        self.look: Hashable = None
        """How its files were, as far as anybody has looked; what failed for good is tried again with others."""
        self.wish_at: float | None = None
        """When it is to be loaded again though nobody waits."""
        self.rung = 0
        """Of the ladder, on which it is run or will be."""
        self.rung_known = 0
        """Those above it cannot be: there is too little memory for them, and not only now."""
        self.steps: list[str] = []
        """What has been given up so that it fits."""
        self.taken = 0
        """Bytes that it has taken of the machine so far while it loads."""
        self.peak: int | None = None
        """The most bytes it was seen to take since it serves; None before it has served."""
        self.progress: float | None = None
        """Of loading, 0 to 1."""
        self.load_s: float | None = None
        self.request_s: float | None = None
        """How long a slot is held, from grant to release."""
        self.asking: asyncio.Task[bool] | None = None
        """Whether the silent worker lives."""
        self.asked_at = 0.0
        self.verdict: Failed | None = None
        """Why its worker is being ended, where that is a failure."""

    @property
    def name(self) -> str:
        return self.local.name

    @property
    def named(self) -> dict[str, Any]:
        """For the log."""
        return {"backend": self.local.model.backend, "model": self.name}

    @property
    def state(self) -> State:
        if self.keeper is None:
            return "out"
        if self.worker is None:
            return "going" if self.going else "coming"
        # A worker may have died a moment before its keeper's word of it is read; the dead stay dead.
        return "in" if self.serves else "going"

    def standing(self) -> Standing:
        taken, _ = self.memory()
        return Standing(
            state=self.state,
            slots=self.worker.spec.slots if self.worker else 1,
            leased=len(self.leases),
            owed=self.owed,
            bytes=taken,
            unclaimed=max(0, taken - self.taken) if self.keeper is not None and self.worker is None else 0,
            used_at=self.used_at,
            load_s=self.load_s if self.load_s is not None else 1.0 + taken / READ_BYTES_S,
            idle_unload_s=self.idle_unload_s,
            pinned=self.pinned,
            ordered_out=bool(self.orders),
        )

    def memory(self) -> tuple[int, Source]:
        """Bytes it takes, or would take, and how that is known."""
        if self.plan is None:
            return 0, "estimate"
        known = self.plan.need_bytes if self.plan.measured else 0
        if self.worker is not None and self.peak is not None:
            return max(self.peak, known), "measured"
        if known:
            return known, "measured"
        if self.worker is not None and self.worker.engine_bytes is not None:
            return self.worker.engine_bytes, "engine"
        return self.plan.need_bytes, "estimate"

    @property
    def serves(self) -> bool:
        return self.worker is not None and self.worker.alive and not self.going

    def lay_out(self, local: Local, planned: Callable[[Local, int], Plan | None]) -> None:
        """Have the model run on the highest rung that may do."""
        if local != self.local:
            self.local, self.rung_known = local, 0
        self.rung, self.steps = self.rung_known, self.steps[: self.rung_known]
        self.plan = planned(local, self.rung)

    def stepped_down(self, planned: Callable[[Local, int], Plan | None]) -> bool:
        """Have the model run more modestly the next time; False if it cannot be."""
        lower = planned(self.local, self.rung + 1)
        if lower is None:
            return False
        self.rung, self.plan = self.rung + 1, lower
        self.steps.append(lower.step or "")
        _log.warning("model_downsized", extra=self.named | {"step": lower.step, "need_bytes": lower.need_bytes})
        return True

    def suits(self, local: Local | None, planned: Callable[[Local, int], Plan | None]) -> bool:
        """Whether it is run as this plans it; None: there is no such model any more."""
        wanted = planned(local, self.rung) if local is not None else None
        return wanted is not None and self.plan is not None and wanted.key == self.plan.key

    def renew(self, local: Local, planned: Callable[[Local, int], Plan | None]) -> None:
        """Have the model, which is not in memory, run as other terms plan it; what failed otherwise may do now."""
        self.rung_known = 0
        self.lay_out(local, planned)
        if self.outdated:
            self.failure, self.failures, self.retry_at = None, 0, 0.0
            self.outdated, self.wish_at = False, None
            self.wished = (self.wished or self.pinned) and self.plan is not None

    def silent_since(self) -> float | None:
        """Since when somebody who uses it has heard nothing; None where nobody does, or it has been asked why."""
        if not self.serves or self.asking is not None:
            return None
        heard = [ticket.lease.heard_at for ticket in self.leases if ticket.lease is not None]
        return max(min(heard), self.asked_at) if heard else None

    def began(self) -> None:
        """Its keeper has been started."""
        self.began_at, self.ready_at, self.wish_at = now(), 0.0, None
        self.served, self.verdict, self.peak, self.progress, self.taken = False, None, None, None, 0

    def ready(self, worker: Worker, waiting: int) -> None:
        """Its worker serves; so many wait for it."""
        self.worker, self.coming = worker, None
        self.failure, self.wished, self.owed = None, False, waiting
        self.used_at = self.ready_at = now()
        self.load_s = blended(self.load_s, self.ready_at - self.began_at)
        self.counted["loads"] += 1

    def failed(self, failure: Failed, backoff_s: Callable[[int], float]) -> float:
        """Its worker is gone, and not because it had to.  Returns how many seconds it rests."""
        self.failure, self.wished = failure, False
        self.failures = self.failures if self.served else self.failures + 1
        # What fails for good need not rest: it is not tried again until something has changed.
        self.retry_at, self.served = now() + (0.0 if failure.lasting else backoff_s(self.failures)), False
        self.counted["crashes"] += not failure.lasting
        self.wish_at = self.retry_at if self.pinned and not failure.lasting else None
        rest_s = max(0.0, self.retry_at - now())
        told = {"reason": failure.reason, "retry_in_s": round(rest_s, 3), "log": "\n".join(failure.log)}
        _log.error("worker_failed", extra=self.named | told)
        return rest_s

    def missed(self) -> None:
        """There was no room for it.  What is pinned is tried again later."""
        self.wish_at = now() + BACKOFF_MAX_S if self.pinned else None

    def comes_back(self) -> bool:
        """Whether it is pinned and out of memory, and it is time to load it again; says so once."""
        if self.wish_at is None or now() < self.wish_at:
            return False
        self.wish_at = None
        return self.pinned

    def condemned(self, verdict: Failed) -> None:
        """Its worker is to be ended for this, of which those who use it are told."""
        self.verdict = verdict
        for ticket in self.leases:
            if ticket.lease is not None:
                ticket.lease.verdict = verdict

    def unfit(self, failure: Failed) -> None:
        """It was looked at while it was not in memory, and something that it needs is missing."""
        if self.keeper is None:
            if self.failure is None or self.failure.reason != failure.reason:
                _log.warning("model_unavailable", extra=self.named | {"reason": failure.reason})
            self.failure, self.look, self.retry_at = failure, None, now()

    def seen(self, look: Hashable) -> None:
        """Its files are like this now."""
        if self.keeper is None and look != self.look:
            self.look = look
            if self.failure is not None and self.failure.lasting:
                self.failure, self.failures, self.retry_at = None, 0, 0.0

    def survey(self) -> None:
        """See how far a worker that is coming has come."""
        if self.coming is not None:
            self.taken, self.progress = self.coming.measured_bytes() or 0, self.coming.progress

    def released(self, ticket: Ticket) -> None:
        """Somebody who held a slot has let go of it.  Only who was answered shows that the worker serves."""
        self.leases.discard(ticket)
        self.used_at = now()
        if self.worker is not None and self.worker.alive and ticket.lease is not None and ticket.lease.answered:
            self.served, self.failures = True, 0
            self.request_s = blended(self.request_s, now() - ticket.granted_at)

    def emptied(self) -> None:
        """Its worker is gone."""
        self.worker = self.coming = self.keeper = None
        self.going, self.owed, self.leases = False, 0, set()
        if self.asking is not None:
            self.asking.cancel()
            self.asking = None
        for order in self.orders:
            order.finish()
        self.orders = []


def blended(old: float | None, new: float) -> float:
    """A remembered time in seconds, a new one taken in."""
    return new if old is None else old + WEIGHT * (new - old)


def now() -> float:
    """Seconds on the event loop's clock."""
    return asyncio.get_running_loop().time()
