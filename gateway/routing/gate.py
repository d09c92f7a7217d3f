"""A backend's door: so many requests at once, a bounded queue before it, and nobody waits in vain.

The queue is fair between callers: each one's next request comes before anybody's second, and where
it is full, the last of whoever has most in it makes room for one who has less.  Who would not be
served before their deadline is told so at once, with an honest estimate.
"""

import asyncio
from collections import deque

from backends.base import Call
from compat.canonical.error import Overloaded, QueueFull

WEIGHT = 0.2
"""Of the newest request, in the moving average of how long one takes."""


class Gate:
    def __init__(self, backend: str, places: int, queue_max: int) -> None:
        self._backend = backend
        self._places = places
        self._queue_max = queue_max
        self._inside = 0
        self._takes_s: float | None = None
        """How long a request stays inside, on average."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By caller, in the order in which they have their turn."""

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def resize(self, places: int, queue_max: int) -> None:
        self._places, self._queue_max = places, queue_max
        self._hand_over()

    async def enter(self, call: Call) -> None:
        """Return with a place, which `leave` gives back.  Raises QueueFull and Overloaded."""
        if self._inside < self._places and not self._waiting:
            self._inside += 1
            return
        loop = asyncio.get_running_loop()
        ahead = self._ahead(call.principal.id)
        wait_s = self._estimate(ahead)
        if self.waiting >= self._queue_max and not self._make_room(call.principal.id):
            raise self._full(wait_s)
        if loop.time() + wait_s > call.deadline:
            raise Overloaded(
                f"Backend '{self._backend}' would not be free before the request's deadline.",
                retry_after_s=max(wait_s, 1.0),
            )
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(call.principal.id, deque()).append(turn)
        call.wait.queue_position, call.wait.first_position, call.wait.held = ahead, ahead, True
        began = loop.time()
        try:
            async with asyncio.timeout_at(call.deadline):
                await turn
        except TimeoutError as e:
            self._forget(call.principal.id, turn)
            raise Overloaded(
                f"Backend '{self._backend}' did not become free before the request's deadline.",
                retry_after_s=max(self._estimate(self.waiting), 1.0),
            ) from e
        except asyncio.CancelledError:
            self._forget(call.principal.id, turn)
            raise
        finally:
            call.wait.held = False
            call.wait.queue_s += loop.time() - began

    def leave(self, took_s: float | None) -> None:
        """Give a place back, to whoever is next; `took_s` is None where nothing was done in it."""
        if took_s is not None:
            self._takes_s = took_s if self._takes_s is None else self._takes_s + WEIGHT * (took_s - self._takes_s)
        self._free()

    def _free(self) -> None:
        self._inside -= 1
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting and self._inside < self._places:
            caller = next(iter(self._waiting))
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns  # to the end: the others come first
            if not turn.done():
                self._inside += 1
                turn.set_result(None)

    def _forget(self, caller: str, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            if turn.exception() is None:
                self._free()  # the place came in the very moment of leaving
            return
        turns = self._waiting.get(caller)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[caller]

    def _make_room(self, caller: str) -> bool:
        """Turn away the last of the longest queue, unless it is this caller's own or no longer than theirs will be."""
        longest = max(self._waiting.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self._waiting.get(caller, ())) + 1:
            return False
        last = longest.pop()
        if not last.done():
            last.set_exception(self._full(self._estimate(self.waiting)))
        return True

    def _full(self, wait_s: float) -> QueueFull:
        return QueueFull(f"The queue of backend '{self._backend}' is full.", retry_after_s=max(wait_s, 1.0))

    def _ahead(self, caller: str) -> int:
        """How many would have their turn before another request of this caller, as things stand."""
        own = ahead = len(self._waiting.get(caller, ()))
        before = 1
        for other, turns in self._waiting.items():
            if other == caller:
                before = 0
            else:
                ahead += min(len(turns), own + before)
        return ahead

    def _estimate(self, ahead: int) -> float:
        """Seconds until one with so many before it has its turn; 0 while nothing is known."""
        return (self._takes_s or 0.0) * (ahead + 1) / self._places
