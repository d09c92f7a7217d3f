"""Whether a route may be asked: a breaker, and a budget for asking again.  Pure: the time is given.

Closed → open after failures in a row, or too many of the last ones; open → one probe after a
cool-down that doubles each time the probe fails; a success closes it.  Requests that were under way
when it opened, or were sent all the same, are not the probe: so each says who it is.
"""

from typing import Annotated

from msgspec import Meta, Struct

from backends.base import Seconds


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a route is left alone, and for how long."""

    failures: Annotated[int, Meta(ge=1)] = 5
    """In a row."""
    failure_rate: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Of the requests of the last `window_s`, where there were `window_requests` or more."""
    window_s: Seconds = 30.0
    window_requests: Annotated[int, Meta(ge=1)] = 20
    cooldown_s: Seconds = 5.0
    """Doubles with every probe that fails."""
    cooldown_max_s: Seconds = 60.0


class Window:
    """Two counts over the last `span_s` seconds, in two halves: at least half of it, at most all."""

    def __init__(self, span_s: float) -> None:
        self._half_s = span_s / 2
        self._begun = 0.0
        self._old = (0, 0)
        self._new = (0, 0)

    def add(self, now: float, all_: int = 0, some: int = 0) -> None:
        self._turn(now)
        self._new = (self._new[0] + all_, self._new[1] + some)

    def counts(self, now: float) -> tuple[int, int]:
        self._turn(now)
        return self._old[0] + self._new[0], self._old[1] + self._new[1]

    def _turn(self, now: float) -> None:
        passed = now - self._begun
        if passed >= self._half_s:
            recent = passed < 2 * self._half_s
            self._old, self._new = self._new if recent else (0, 0), (0, 0)
            self._begun = self._begun + self._half_s if recent else now


class Breaker:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._row = 0
        self._recent = Window(rule.window_s)
        self._cooldown_s = rule.cooldown_s
        self._prober: object | None = None
        self.opened_until: float | None = None
        """When it may be probed; None while closed."""

    @property
    def state(self) -> str:
        return "closed" if self.opened_until is None else "open" if self._prober is None else "half_open"

    def admit(self, now: float, who: object) -> bool:
        """Whether a request may go now; of an open breaker whose time has come, one request is its probe.

        Whoever is admitted says how it went: `succeeded`, `failed` or `abandoned`.
        """
        if self.opened_until is None:
            return True
        if self._prober is not None or now < self.opened_until:
            return False
        self._prober = who
        return True

    def succeeded(self, now: float) -> None:
        self._row = 0
        self._recent.add(now, all_=1)
        if self.opened_until is not None:
            self.opened_until = None
            self._prober = None
            self._cooldown_s = self._rule.cooldown_s
            self._recent = Window(self._rule.window_s)

    def failed(self, now: float, who: object) -> None:
        self._row += 1
        self._recent.add(now, all_=1, some=1)
        if self.opened_until is None:
            requests, failures = self._recent.counts(now)
            rule = self._rule
            often = requests >= rule.window_requests and failures >= rule.failure_rate * requests
            if self._row >= rule.failures or often:
                self.opened_until = now + self._cooldown_s
        elif self._prober is who:
            self._cooldown_s = min(2 * self._cooldown_s, self._rule.cooldown_max_s)
            self.opened_until = now + self._cooldown_s
            self._prober = None

    def abandoned(self, who: object) -> None:
        """It ended without telling anything about the route: the client left, say."""
        if self._prober is who:
            self._prober = None


class Budget:
    """How often requests may be sent again: a share of the traffic, so that trouble is not multiplied."""

    SHARE = 0.2
    LEAST = 3
    WINDOW_S = 10.0

    def __init__(self) -> None:
        self._window = Window(self.WINDOW_S)

    def count(self, now: float) -> None:
        """A request was sent for the first time."""
        self._window.add(now, all_=1)

    def spend(self, now: float) -> bool:
        """Whether one may be sent again; if so, that is counted."""
        requests, resent = self._window.counts(now)
        if resent + 1 > max(self.LEAST, self.SHARE * requests):
            return False
        self._window.add(now, some=1)
        return True
