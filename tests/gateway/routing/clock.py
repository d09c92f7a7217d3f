"""A clock that tests turn: time passes only where everybody waits for it, and then at once."""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Everybody waits, and for nothing that time would bring."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self.wrong: list[Mapping[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.wrong.append(context))

    def time(self) -> float:
        return self._clock.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work on a clock of its own, and hold it to leaving no task behind and no error unheard."""
    loop = _Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def watched() -> T:
            result = await work
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
            return result

        result = runner.run(watched())
    assert not loop.wrong, loop.wrong
    return result
