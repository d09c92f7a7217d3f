"""The local models as those see them who want to use them: leases, loading, unloading, and how things stand.

Invariant: nothing is decided or changed here.  What callers want is told to the owner (`backends.local.pool.owner`),
and they await its answer; a caller that is cancelled has left, wherever it was, when its `left` has been read.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

from backends.base import Call
from backends.local.planning import Plan
from backends.local.pool import outlook
from backends.local.pool.keeper import contained
from backends.local.pool.owner import Owner
from backends.local.pool.scheduler import Room
from backends.local.pool.seat import Lease, Order, Ticket
from backends.local.pool.terms import Terms
from backends.local.worker import Failed, Worker
from backends.ports import Local, Reckoning
from compat.canonical.error import Conflict, ModelNotFound, ModelUnavailable, TimedOut

_log = logging.getLogger(__name__)

Status = Literal["unloaded", "loading", "ready", "draining", "failed"]


class Pool:
    """Starts workers when they are asked for, shares their slots out, and ends them.

    catalogue: the models there are, by name.
    plan: how a model is run on a rung of the ladder, each of which takes less memory; None: there is no such rung.
    build: makes the worker of a model, not yet started.  Raises Failed.
    glance: sees, where a model is not in memory, whether it can be run at all, in a thread; what it returns is other
    when its files are.  Raises Failed.
    memory_max: in bytes, for all models together.
    queue_max: how many may wait for one model.
    idle_unload_s: for each model.
    hang_s: how long a worker that is used may be silent before it is asked whether it lives.
    available: the bytes that the machine has free now.
    """

    def __init__(
        self,
        catalogue: Callable[[], Mapping[str, Local]],
        plan: Callable[[Local, int], Plan | None],
        build: Callable[[Local, Plan], Awaitable[Worker]],
        *,
        glance: Callable[[Local, Plan], Hashable] | None = None,
        max_loaded: int,
        memory_max: int,
        queue_max: int,
        idle_unload_s: Callable[[str], float],
        pinned: frozenset[str] = frozenset(),
        hang_s: float,
        reckoning: Reckoning | None = None,
        available: Callable[[], int],
    ) -> None:
        self._terms = Terms(
            catalogue=catalogue,
            planned=contained(plan),
            glance=glance,
            build=build,
            limits=Room(max_loaded, memory_max, sys.maxsize),
            queue_max=queue_max,
            idle_unload_s=idle_unload_s,
            pinned=pinned,
            hang_s=hang_s,
            reckoning=reckoning,
            available=available,
        )
        self._owner = Owner(self._terms)
        self._given = False
        """Another pool goes on with what this one ran."""

    def succeed(self, old: "Pool") -> None:
        """Go on with all that another pool runs and with those who wait in it, on the terms of this one.

        Callers of the old one notice nothing, and closing it ends nothing any more.  For before this one is used.
        """
        if old._owner.running:
            self._owner, old._given = old._owner, True
            self._owner.tell(self._owner.adopt, self._terms)

    @asynccontextmanager
    async def lease(self, model: str, call: Call) -> AsyncIterator[Lease]:
        """Wait for a slot of the model, loading it if need be, and hold it while the context is open.

        Keeps `call.wait` true meanwhile.  Raises ModelNotFound, QueueFull, ModelLoading, InsufficientMemory,
        ModelUnavailable, WorkerCrashed, TimedOut at the call's deadline, Overloaded when the pool is closing.
        """
        ticket = Ticket(self._find(model), call)
        try:
            yield await self._served(ticket)
        finally:
            self._owner.tell(self._owner.left, ticket)

    async def load(self, model: str, call: Call) -> None:
        """Return once the model is in memory.  Takes no slot; raises what `lease` raises."""
        ticket = Ticket(self._find(model), call, slot=False)
        try:
            await self._served(ticket)
        finally:
            self._owner.tell(self._owner.left, ticket)

    async def unload(self, model: str, *, force: bool = False) -> None:
        """Let the model finish what it runs, and return when it is out of memory.

        Those who wait for it to load are served first, others wait and have it loaded anew; a load that nobody
        waits for is broken off.  What is remembered of its failures is forgotten.  Once given, the order holds,
        even if who gave it does not wait.  Raises Conflict for a pinned one unless forced; ModelNotFound.
        """
        if model not in self._owner.seats:
            self._find(model)
        if model in self._terms.pinned and not force:
            raise Conflict(f"Model '{model}' is pinned: it is unloaded only by force.")
        if self._owner.running:
            order = Order()
            self._owner.tell(self._owner.ordered_out, model, order)
            await order.done

    def warm(self) -> None:
        """Begin to load what is pinned."""
        self._owner.start()
        catalogue = self._terms.catalogue()
        for name in sorted(self._terms.pinned):
            if name in catalogue:
                self._owner.tell(self._owner.wished, catalogue[name])
            else:
                _log.warning("pinned_model_missing", extra={"model": name})

    def status(self, model: str) -> Status:
        """How a model stands, in a word: by the time it is read, it may have changed."""
        seat = self._owner.seats.get(model)
        if seat is None or seat.keeper is None:
            return "failed" if seat is not None and seat.failure is not None else "unloaded"
        return "draining" if seat.going else "ready" if seat.worker else "loading"

    def standing(self, model: str) -> dict[str, Any]:
        """How a model stands, in full (`outlook.standing`).  Raises ModelNotFound."""
        seat = self._owner.seats.get(model) or self._owner.unseen(self._find(model))
        return outlook.standing(seat, len(self._owner.line.of(model)))

    def overview(self) -> dict[str, tuple[str, int | None]]:
        """How those stand that were ever wanted, and the memory each takes or would take; others are unloaded."""
        line = self._owner.line
        return {
            name: (outlook.status(seat, len(line.of(name))), seat.memory()[0] or None)
            for name, seat in self._owner.seats.items()
        }

    def trouble(self) -> str | None:
        """What keeps it from serving anything, in words fit for clients; None: nothing."""
        return "the local models are out of order; restart the gateway" if self._owner.failed else None

    def counts(self) -> dict[str, float]:
        """Of its models together: see `backends.base.Loads`."""
        seats = self._owner.seats.values()
        held = [seat for seat in seats if seat.keeper is not None]
        return {
            "loaded": len(held),
            "max_loaded": self._terms.limits.places,
            "memory_bytes": sum(seat.memory()[0] for seat in held),
            "memory_max_bytes": self._terms.limits.allowed,
            "waiting": sum(1 for _ in self._owner.line),
            **{act: sum(seat.counted[act] for seat in seats) for act in ("loads", "evictions", "crashes")},
        }

    def workers(self) -> dict[str, Worker]:
        """The workers that serve now, by model; a snapshot."""
        return {name: seat.worker for name, seat in self._owner.seats.items() if seat.worker is not None}

    async def aclose(self) -> None:
        """End every worker and return when their processes are gone.  Waiting callers get Overloaded."""
        if not self._given:
            await self._owner.aclose()

    def _find(self, model: str) -> Local:
        local = self._terms.catalogue().get(model)
        if local is None:
            raise ModelNotFound(f"The model '{model}' does not exist.")
        return local

    async def _served(self, ticket: Ticket) -> Lease:
        self._owner.start()
        ticket.call.wait.held = True
        try:
            async with asyncio.timeout_at(ticket.call.deadline):
                await self._look(ticket)
                self._owner.tell(self._owner.arrived, ticket)
                return await ticket.granted
        except TimeoutError as e:
            raise TimedOut(f"Model '{ticket.local.name}' did not become free in time.") from e
        finally:
            ticket.granted.cancel()  # or it would be refused, when the pool closes, with nobody to hear it
            ticket.call.wait.held = False

    async def _look(self, ticket: Ticket) -> None:
        """Before there is a thought of room for a model, see that nothing it needs is missing."""
        seat = self._owner.seats.get(ticket.local.name)
        if self._terms.glance is None or (seat is not None and seat.keeper is not None):
            return
        plan = self._owner.unseen(ticket.local).plan
        if plan is None:
            return
        try:
            ticket.look = await asyncio.to_thread(self._terms.glance, ticket.local, plan)
        except Failed as e:
            self._owner.tell(self._owner.unfit, ticket.local, e)
            raise ModelUnavailable(e.reason) from e
