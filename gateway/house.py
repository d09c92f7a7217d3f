"""The house: what lives as long as the process, and the estate, which a new configuration replaces.

A request takes the estate once, when it comes in, and finishes on it whatever is swapped meanwhile.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from backends.base import Backend, Loads
from backends.ports import Local
from gateway.auth.authenticator import Authenticator
from gateway.discovery.problem import Problem
from gateway.limits.limiter import Limiter
from gateway.meshes import Meshes
from gateway.reckoning import MemoryBook
from gateway.registry import Registry
from gateway.registry.entries import Entries
from gateway.requests import Requests
from gateway.routing.dispatch import Dispatcher
from gateway.routing.gate import Gate
from gateway.routing.health import HealthBook
from gateway.routing.quota import QuotaBook
from gateway.routing.router import Router
from gateway.settings import Config
from gateway.telemetry.gauges import Gauges
from gateway.telemetry.logging import Redactor
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.prices import Prices
from gateway.telemetry.usage import Ledger
from gateway.visit import Visit

if TYPE_CHECKING:
    from gateway.archive import Archive
    from gateway.artifacts import Artifacts
    from gateway.cabinet import Cabinet
    from gateway.depot import Depot
    from gateway.storage import Storage
    from gateway.telemetry.tracing import Tracer

ENDING_S, TELLING_S = 1.0, 0.3
"""How long those that are ended may take before their watchers are sent away, and how long these are told of it."""
UNTOLD_S = 600.0
"""How long a visit is waited for that has no deadline."""


class Estate(Struct, frozen=True, kw_only=True):
    """Everything that a configuration determines."""

    config: Config
    backends: Mapping[str, Backend]
    registry: Registry
    router: Router
    prices: Prices
    entry: Authenticator
    """Whom it lets in."""
    local: Mapping[str, Mapping[str, Local]]
    """Per local backend, the models found for it, by name."""
    demanding: frozenset[str] = frozenset()
    """Backends that serve users with keys of their own only."""
    reckoning: MemoryBook
    """What local models were found to need; handed on from estate to estate."""


class Renew(Protocol):
    async def __call__(self, *, look: bool = False) -> None:
        """look: for local models in their folders again; else those that were found are served if they are there."""


async def _nothing(*, look: bool = False) -> None:
    """Before there is an application."""


class House:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.metrics = Metrics()
        self.metrics.registry.register(Gauges(self))
        self.ledger = Ledger(self.metrics)
        self.book = HealthBook(estate.config.breaker)
        self.limiter = Limiter(estate.config.limits)
        self.quotas = QuotaBook()
        self.dispatcher = Dispatcher(self.metrics, self.book, self.quotas)
        self._gate(estate)
        self.draining = False
        self._archive: Archive | None = None
        self._depot: Depot | None = None
        self._cabinet: Cabinet | None = None
        self.entries = Entries()
        """What is registered of models."""
        estate.registry.lend(self.entries)
        self.ledger.used = self.entries.used
        self.problems: tuple[Problem, ...] = ()
        """What lies in the folders of local models and cannot be served, as it was at the last look."""
        self.renew: Renew = _nothing
        """Serve the local models as they are registered now; the application lends its own."""
        self.redact = Redactor()
        """Masks secrets in a text; the application lends its own."""
        self.tracer: Tracer | None = None
        """Where traces are sent; None while nobody wants them."""
        self._guests: dict[int, tuple[Visit, asyncio.Task[None] | None]] = {}
        self.expelled: set[int] = set()
        """Visits cut short because the gateway is stopping."""
        self.requests = Requests(self)
        self.meshes = Meshes()
        self.ledger.kept = self.requests.keep

    def move(self, estate: Estate) -> None:
        """Swap the estate; what is known of routes and keys stays, unless its rules changed."""
        estate.registry.lend(self.entries, self.estate.registry)
        self.estate = estate
        self.book.adopt(estate.config.breaker)
        self.limiter.adopt(estate.config.limits)
        self._gate(estate)
        if self.tracer is not None:
            self.tracer.adopt(estate.config)
        if self._depot is not None:
            self._depot.adopt(estate.config)
        if self._cabinet is not None:
            self._cabinet.adopt(estate.config)

    def _gate(self, estate: Estate) -> None:
        gates = {}
        for name, entry in estate.config.backends.items():
            if (places := entry.terms.concurrent) is not None:
                gate = self.dispatcher.gates.get(name) or Gate(name, places, entry.terms.queue_max)
                gate.resize(places, entry.terms.queue_max)
                gates[name] = gate
        self.dispatcher.gates = gates

    def warm(self, old: Estate | None = None) -> None:
        """Have the backends that `old` did not have load what is pinned."""
        known = set() if old is None else {id(backend) for backend in old.backends.values()}
        for backend in self.estate.backends.values():
            if isinstance(backend, Loads) and id(backend) not in known:
                backend.warm()

    def enter(self, visit: Visit) -> None:
        self._guests[id(visit)] = visit, asyncio.current_task()

    def leave(self, visit: Visit) -> None:
        self._guests.pop(id(visit), None)
        self.expelled.discard(id(visit))
        if visit.lent:
            self.archive.accounts.give_back(visit)

    def cancel(self, visit: Visit) -> None:
        """End a request, wherever it is: who answers it tells its client."""
        _, task = self._guests.get(id(visit), (None, None))
        if task is not None:
            visit.cancelled = True
            task.cancel()

    @property
    def archive(self) -> "Archive":
        """What is kept in the database, which is open while the application runs."""
        assert self._archive is not None, "the database is not open"
        return self._archive

    @archive.setter
    def archive(self, archive: "Archive") -> None:
        self._archive = archive

    @property
    def depot(self) -> "Depot":
        """What brings models here, which is open while the application runs."""
        assert self._depot is not None, "the depot is not open"
        return self._depot

    @depot.setter
    def depot(self, depot: "Depot") -> None:
        self._depot = depot

    @property
    def cabinet(self) -> "Cabinet":
        """What requests leave behind, which is open while the application runs."""
        assert self._cabinet is not None, "the cabinet is not open"
        return self._cabinet

    @cabinet.setter
    def cabinet(self, cabinet: "Cabinet") -> None:
        self._cabinet = cabinet

    @property
    def storage(self) -> "Storage | None":
        """What models take of the disk; None while the depot is not open."""
        return None if self._depot is None else self._depot.storage

    @property
    def artifacts(self) -> "Artifacts | None":
        """None while the cabinet is not open."""
        return None if self._cabinet is None else self._cabinet.artifacts

    @property
    def guests(self) -> list[Visit]:
        return [visit for visit, _ in self._guests.values()]

    async def drain(self, within_s: float) -> None:
        """Let those under way finish; then end the rest, each with an error its client can read."""
        self.draining = True
        await self._empty(within_s)
        if any(visit.watches for visit in self.guests):
            self._expel([visit for visit in self.guests if not visit.watches])
            await self._empty(ENDING_S, but_watchers=True)
            await asyncio.sleep(TELLING_S)
        self._expel(self.guests)
        await self._empty(2.0)

    def _expel(self, visits: list[Visit]) -> None:
        for visit in visits:
            _, task = self._guests[id(visit)]
            if id(visit) not in self.expelled and task is not None:
                task.cancel()
            self.expelled.add(id(visit))

    async def outlive(self, visits: list[Visit]) -> None:
        """Return when each of these visits is over, or its time is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + UNTOLD_S
        while any(id(visit) in self._guests and loop.time() < (visit.deadline or end) for visit in visits):
            await asyncio.sleep(0.2)

    async def _empty(self, within_s: float, *, but_watchers: bool = False) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while any(not (but_watchers and visit.watches) for visit in self.guests) and loop.time() < end:
            await asyncio.sleep(0.02)
