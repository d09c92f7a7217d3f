"""Events on their way from whoever makes them to whoever reads them, who may be slow.

Invariant: the maker never waits for the reader.  What soon is stale, steps and previews, is let go of while much
waits to be read; all else is kept, which is as much as the request may ask for.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from compat.canonical.event import Event, Produced, Progress

EVENTS_MAX, BYTES_MAX = 64, 8 * 1024 * 1024
"""Waiting to be read; while there is more, no steps and previews are added."""


async def ahead(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The same events, taken as soon as there are any; closing this closes them.  Raises what they raise."""
    backlog = Backlog()
    taking = asyncio.create_task(_take(events, backlog))
    try:
        while (event := await backlog.get()) is not None:
            yield event
        await taking
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


async def _take(events: AsyncGenerator[Event, None], backlog: "Backlog") -> None:
    try:
        async with aclosing(events):
            async for event in events:
                backlog.put(event)
    finally:
        backlog.end()


class Backlog:
    """Events that nobody has read yet, in their order."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._ended = False
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        if _fleeting(event) and (len(self._events) >= EVENTS_MAX or self._bytes >= BYTES_MAX):
            return
        self._events.append(event)
        self._bytes += _size(event)
        self._news.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._news.set()

    async def get(self) -> Event | None:
        """The next one, once there is one; None at the end."""
        while not self._events:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        event = self._events.popleft()
        self._bytes -= _size(event)
        return event


def _fleeting(event: Event) -> bool:
    return isinstance(event, Progress) or (isinstance(event, Produced) and event.partial is not None)


def _size(event: Event) -> int:
    return len(event.media.data or b"") if isinstance(event, Produced) else 0
