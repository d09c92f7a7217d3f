"""The house: what lives as long as the process, and the estate, which a new configuration replaces.

A request takes the estate once, when it comes in, and finishes on it whatever is swapped meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from msgspec import Struct

from backends.base import Backend, Local
from gateway.auth.authenticator import Authenticator, Issued
from gateway.db.responses import ResponseRows
from gateway.registry import Registry
from gateway.routing.dispatch import Dispatcher
from gateway.routing.gate import Gate
from gateway.routing.health import HealthBook
from gateway.routing.limits import Limiter
from gateway.routing.router import Router
from gateway.settings import Config
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.usage import Ledger
from gateway.visit import Visit


class Estate(Struct, frozen=True, kw_only=True):
    """Everything that a configuration determines."""

    config: Config
    backends: Mapping[str, Backend]
    registry: Registry
    router: Router
    entry: Authenticator
    """Whom it lets in."""
    local: Mapping[str, Mapping[str, Local]]
    """Per local backend, the models found for it, by name."""


class House:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.metrics = Metrics()
        self.ledger = Ledger(self.metrics)
        self.book = HealthBook(estate.config.breaker)
        self.limiter = Limiter(estate.config.limits)
        self.dispatcher = Dispatcher(self.metrics, self.book)
        self._gate(estate)
        self.draining = False
        self.database_answers: Callable[[], Awaitable[bool]] = _no
        """Whether the database can be asked; set while the application runs."""
        self.issued: Issued | None = None
        """The keys that were given out; None until the database is open."""
        self.turns: ResponseRows | None = None
        """The conversations that are kept; None until the database is open."""
        self._guests: dict[int, tuple[Visit, asyncio.Task[None] | None]] = {}
        self.metrics.in_flight.set_function(self._guests.__len__)
        self.expelled: set[int] = set()
        """Visits cut short because the gateway is stopping."""

    def move(self, estate: Estate) -> None:
        """Swap the estate; what is known of routes and keys stays, unless its rules changed."""
        self.estate = estate
        self.book.adopt(estate.config.breaker)
        self.limiter.adopt(estate.config.limits)
        self._gate(estate)

    def _gate(self, estate: Estate) -> None:
        gates = {}
        for name, entry in estate.config.backends.items():
            self.metrics.open.labels(name).set_function(partial(self.book.open, name))
            if (places := entry.terms.concurrent) is not None:
                gate = self.dispatcher.gates.get(name) or Gate(name, places, entry.terms.queue_max)
                gate.resize(places, entry.terms.queue_max)
                self.metrics.waiting.labels(name).set_function(partial(getattr, gate, "waiting"))
                gates[name] = gate
        self.dispatcher.gates = gates

    def enter(self, visit: Visit) -> None:
        self._guests[id(visit)] = visit, asyncio.current_task()

    def leave(self, visit: Visit) -> None:
        self._guests.pop(id(visit), None)
        self.expelled.discard(id(visit))

    @property
    def guests(self) -> list[Visit]:
        return [visit for visit, _ in self._guests.values()]

    async def drain(self, within_s: float) -> None:
        """Let those under way finish; then end the rest, each with an error its client can read."""
        self.draining = True
        await self._empty(within_s)
        for key, (_, task) in list(self._guests.items()):
            self.expelled.add(key)
            if task is not None:
                task.cancel()
        await self._empty(2.0)

    async def outlive(self, visits: list[Visit], within_s: float) -> None:
        """Return when all of these visits are over, or the time is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while any(id(visit) in self._guests for visit in visits) and loop.time() < end:
            await asyncio.sleep(0.2)

    async def _empty(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._guests and loop.time() < end:
            await asyncio.sleep(0.02)


async def _no() -> bool:
    return False
