"""An event loop on which no time passes but what is slept: hours of waiting take milliseconds.

When nothing is ready, its clock jumps to the next timer.  When there is no timer either, nothing can ever happen any
more, and it says so instead of waiting for ever.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingLeft(AssertionError):
    """Somebody waits, and nothing will ever wake them."""


class VirtualLoop(asyncio.BaseEventLoop):
    """look: called between any two steps, and may raise."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._selector = self
        self._moment = 0.0
        self.look = look

    def time(self) -> float:
        return self._moment

    def select(self, timeout: float | None) -> list[object]:
        try:
            self.look()
        except BaseException:
            self.look = lambda: None  # what is left to do is to end
            raise
        if timeout is None:
            raise NothingLeft
        self._moment += timeout
        return []

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """At once and here: a thread would live in real time."""
        done = self.create_future()
        done.set_result(func(*args))
        return done

    def _process_events(self, events: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
