"""What is known of each route from the requests it was sent: is it well, how fast, how busy."""

import asyncio
import math

from compat.canonical.error import (
    BackendError,
    EngineFailed,
    GatewayError,
    InsufficientMemory,
    ModelLoading,
    ModelUnavailable,
    QueueFull,
    Rejected,
)
from gateway.routing.breaker import Breaker, Budget, Rule

KNOWN_MAX = 2000
"""Clients may name any model of a backend; of more routes than this, those at rest are forgotten."""
WEIGHT = 0.3
"""Of the newest time to first token, in their moving average."""
FORGET_S = 60.0
"""A route that was not asked counts as faster and faster, so that it is tried again."""


_NO_FAULT = (QueueFull, ModelLoading, InsufficientMemory, ModelUnavailable, EngineFailed)
"""Errors that say nothing of how the next request will fare there.  A local backend knows itself what is loaded, full
or broken, and says so at no cost; and whatever a request was that an engine could not do, the engine has told in
words that it lives: one tenant's odd picture must not close the route for the others.  An engine that dies of it is
another matter, and is counted."""


class Health:
    """One route's."""

    def __init__(self, rule: Rule) -> None:
        self.breaker = Breaker(rule)
        self.budget = Budget()
        self.busy = 0
        """Requests under way."""
        self.trouble = ""
        """The last failure's word."""
        self.prefills: bool | None = None
        """False once it has refused to go on from the beginning of an answer."""
        self._resting_until = 0.0
        self._first_token_s: float | None = None
        self._measured = 0.0

    def admit(self, now: float, who: object) -> bool:
        return now >= self._resting_until and self.breaker.admit(now, who)

    @property
    def state(self) -> str:
        """For a status page, while it is left alone."""
        return "resting" if self.breaker.opened_until is None else self.breaker.state

    def free_at(self, now: float) -> float:
        """When it may be asked again; `now` if it may be asked at once."""
        return max(now, self._resting_until, self.breaker.opened_until or now)

    def answered(self, now: float, first_token_s: float | None) -> None:
        """It answered, or began to; None where the time says nothing of its speed."""
        self.breaker.succeeded(now)
        if first_token_s is not None:
            old = self._first_token_s
            self._first_token_s = first_token_s if old is None else old + WEIGHT * (first_token_s - old)
            self._measured = now

    def failed(self, now: float, error: GatewayError, who: object, *, hurried: bool = False) -> None:
        """hurried: the client's own time limit ended it, which says nothing of the route."""
        if isinstance(error, Rejected):
            self.breaker.succeeded(now)  # it judged the request: it is there
            return
        if not isinstance(error, BackendError):
            self.breaker.abandoned(who)  # we refused, before it was asked
            return
        self.trouble = error.word
        if hurried or isinstance(error, _NO_FAULT):
            self.breaker.abandoned(who)
        elif error.rest_s is not None:
            # It is there, and says itself when it can be asked again.
            self._resting_until = now + error.rest_s
            self.breaker.abandoned(who)
        else:
            self.breaker.failed(now, who)

    def speed(self, now: float) -> float:
        """Its time to first token in seconds, for comparison only; 0 when it is not known."""
        if self._first_token_s is None:
            return 0.0
        return self._first_token_s * math.exp((self._measured - now) / FORGET_S)


class HealthBook:
    """The health of every route, over changes of the configuration."""

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule or Rule()
        self._known: dict[str, Health] = {}

    def adopt(self, rule: Rule) -> None:
        """From now on by this rule; if it is another one, all begin anew."""
        if rule != self._rule:
            self._rule = rule
            self._known.clear()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def of(self, route: str) -> Health:
        found = self._known.get(route)
        if found is None:
            if len(self._known) >= KNOWN_MAX:
                self._known = {n: h for n, h in self._known.items() if h.busy or h.breaker.opened_until is not None}
            found = self._known[route] = Health(self._rule)
        return found

    def troubled(self, now: float) -> dict[str, str]:
        """The routes that are left alone, and why, in words for a status page."""
        return {
            name[:200]: f"{health.state}, after {health.trouble}; tried again in {health.free_at(now) - now:.0f} s"
            for name, health in self._known.items()
            # Users' own accounts are nobody else's business.
            if "#" not in name.partition("/")[0]
            if health.breaker.opened_until is not None or health.free_at(now) > now
        }

    def state(self, route: str) -> str:
        """`closed`, `open`, `half_open`, or `resting` because its provider asked for that."""
        health = self._known.get(route)
        if health is None or (health.breaker.opened_until is None and health.free_at(now := self.now()) <= now):
            return "closed"
        return health.state

    def busy(self, backend: str) -> int:
        """How many requests a backend has."""
        return sum(h.busy for n, h in self._known.items() if n.startswith((f"{backend}/", f"{backend}#")))

    def forget(self, backend: str, account: str) -> None:
        """A user's own account is gone, or is another now."""
        start = f"{backend}#{account}/"
        self._known = {n: h for n, h in self._known.items() if not n.startswith(start)}

    def open(self, backend: str) -> int:
        """How many of a backend's routes are left alone by their breakers."""
        start = f"{backend}/"
        return sum(h.breaker.opened_until is not None for n, h in self._known.items() if n.startswith(start))
