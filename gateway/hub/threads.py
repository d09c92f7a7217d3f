"""Threads for questions that block.

Of their own, so that a hub that hangs holds up nothing else, and daemons, so that it does not hold up the end.  Whoever
leaves is free at once; the thread it leaves behind ends by the question's own bounds, and counts until then.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Threads:
    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises, once one of the threads is free for it."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if answered.done():
                return
            if error is not None:
                answered.set_exception(error)
            else:
                answered.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = context.run(work)
            except BaseException as e:
                error = e
            with suppress(RuntimeError):  # the loop may have ended by now
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=run, name="hub", daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        return await answered
