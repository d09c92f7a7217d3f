"""One request's way along its routes: which comes next, after what pause, and when to give up.

A fresh route comes before one that has failed already, and is asked at once.  A route is asked again
only for a failure that may pass, never after silence, within the plan's retries and the route's budget.
A model that loads meanwhile has not failed: it is come back to when no fresh route has answered.
"""

import asyncio
import random
from collections.abc import Sequence

from compat.canonical.error import (
    BackendError,
    ContextTooLong,
    GatewayError,
    Rejected,
    TimedOut,
    Unreachable,
    WorkerCrashed,
)
from gateway.routing.health import HealthBook
from gateway.routing.router import Route
from gateway.visit import Visit

BACKOFF_S = 0.25
BACKOFF_MAX_S = 8.0
PAUSE_MAX_S = 10.0
"""A provider that wants more than this is not waited for: the client is told how long it wants."""


class Course:
    def __init__(self, routes: Sequence[Route], retries: int, book: HealthBook, deadline: float, visit: Visit) -> None:
        self._fresh = list(routes)
        self._retries = retries
        self._book = book
        self._deadline = deadline
        self._visit = visit
        self._failed: list[tuple[Route, GatewayError]] = []
        """Those that may be asked again, the longest ago first."""
        self._crashed: set[str] = set()
        """Where a worker died already: what crashes twice is not loaded a third time for one request."""
        self._loading: list[Route] = []
        """Those whose model was begun to load, to be waited for when no other answers."""
        self._waits = False
        """That is where it has come to."""
        self._asked_again = 0
        self._verdict: GatewayError | None = None
        """What is raised in the end."""
        self._window: int | None = None
        """The context length that was too short, where it is known."""

    @property
    def left(self) -> int:
        """Routes not tried yet."""
        return len(self._fresh)

    @property
    def hurries(self) -> bool:
        """The route that was given out last need not be waited for: another may answer, or loads for longer."""
        return not self._waits and bool(self._fresh or self._loading)

    def loads(self, route: Route) -> None:
        """Take note of a route that would have to be waited for."""
        self._visit.trail.append((route.name, "loading"))
        self._loading.append(route)

    def failed(self, route: Route, error: GatewayError) -> None:
        """Take note that a route did not answer.  Raises the error if no other may be asked."""
        self._visit.trail.append((route.name, error.word))
        if isinstance(error, ContextTooLong):
            self._window = route.context_length
            # A copy of the same model has the same window.
            self._fresh = [r for r in self._fresh if r.model != route.model and self._is_wider(r)]
            self._failed = [(r, e) for r, e in self._failed if r.model != route.model and self._is_wider(r)]
        elif not isinstance(error, BackendError) and not (isinstance(error, Rejected) and error.status == 404):
            raise error
        elif self._may_pass(route, error):
            self._failed.append((route, error))
        if not isinstance(self._verdict, ContextTooLong):
            self._verdict = error

    async def next(self) -> Route:
        """The route to ask now, once it is time.  Raises what went wrong when none is left."""
        now = asyncio.get_running_loop().time()
        if self._verdict is not None and now >= self._deadline:
            raise self._verdict  # nobody could answer in no time, and would be blamed for it
        if self._fresh and (route := self._next_fresh(now)) is not None:
            self._book.of(route.key).budget.count(now)
            return route
        if self._loading:
            self._waits = True
            return self._loading.pop(0)
        return await self._next_again(now)

    def _next_fresh(self, now: float) -> Route | None:
        for n, route in enumerate(self._fresh):
            if self._book.of(route.key).admit(now, self._visit):
                for passed_over in self._fresh[:n]:
                    self._left_alone(passed_over, now)
                del self._fresh[n]
                return route
        if self._verdict is not None or self._loading:
            self._skip_rest(now)
            return None
        # None is well: the one whose time comes first is asked all the same, or nobody would answer.
        route = min(self._fresh, key=lambda r: self._book.of(r.key).free_at(now))
        self._fresh.remove(route)
        self._skip_rest(now)
        self._retries = 0
        return route

    def _skip_rest(self, now: float) -> None:
        for route in self._fresh:
            self._left_alone(route, now)
        self._fresh = []

    def _left_alone(self, route: Route, now: float) -> None:
        if all(name != route.name for name, _ in self._visit.trail):
            wait_s = self._book.of(route.key).free_at(now) - now
            how_long = f"for {wait_s:.0f} s" if wait_s > 0 else "while another request probes it"
            self._visit.trail.append((route.name, f"left alone {how_long}"))

    async def _next_again(self, now: float) -> Route:
        verdict = self._verdict or Unreachable("No route is left to try.")
        if self._asked_again >= self._retries:
            raise verdict
        for position, (route, error) in enumerate(self._failed):
            health = self._book.of(route.key)
            pause_s = error.retry_after_s
            if pause_s is None:
                pause_s = random.uniform(0, min(BACKOFF_S * 2**self._asked_again, BACKOFF_MAX_S))  # noqa: S311
            in_time = pause_s <= PAUSE_MAX_S and now + pause_s < self._deadline
            if not in_time or health.breaker.opened_until is not None or not health.budget.spend(now):
                continue
            del self._failed[position]
            self._asked_again += 1
            await asyncio.sleep(pause_s)
            return route
        raise verdict

    def _may_pass(self, route: Route, error: GatewayError) -> bool:
        """Whether the route may be asked once more after this."""
        if isinstance(error, WorkerCrashed):
            again = route.name in self._crashed
            self._crashed.add(route.name)
            return not again
        return isinstance(error, BackendError) and error.retryable and not isinstance(error, TimedOut)

    def _is_wider(self, route: Route) -> bool:
        return self._window is None or route.context_length is None or route.context_length > self._window
