"""Events between a maker and a reader who takes his time."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from backends.local.backlog import BYTES_MAX, EVENTS_MAX, ahead
from compat.canonical.error import UpstreamFailed
from compat.canonical.event import Event, Finished, Produced, Progress, Started
from compat.canonical.message import Media

PICTURE = Media(mime="image/png", data=bytes(BYTES_MAX))


class Maker:
    """Yields these events, and then ends as told."""

    def __init__(self, *events: Event, error: Exception | None = None, stuck: bool = False) -> None:
        self._given = events
        self._error = error
        self._stuck = stuck
        self.at_rest, self.closed = asyncio.Event(), asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self._given:
                yield event
            self.at_rest.set()
            if self._stuck:
                await asyncio.Event().wait()
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


START, END = Started(id="x", model="m", created=1), Finished(reason="stop")


async def test_what_soon_is_stale_is_let_go_of_and_nothing_else() -> None:
    steps = [Progress(step=n, of=500) for n in range(500)]
    pictures = [Produced(media=PICTURE, index=n) for n in range(3)]
    maker = Maker(START, *steps, *pictures, Produced(media=PICTURE, partial=0), END)
    events = ahead(maker.events())
    assert await anext(events) == START
    await maker.closed.wait()
    rest = [event async for event in events]
    assert rest[-4:] == [*pictures, END]
    assert 0 < len(rest) - 4 <= EVENTS_MAX + 1


async def test_an_error_comes_after_what_was_before_it() -> None:
    maker = Maker(START, error=UpstreamFailed("no"))
    events = ahead(maker.events())
    assert await anext(events) == START
    with pytest.raises(UpstreamFailed):
        await anext(events)


async def test_whoever_leaves_ends_the_making() -> None:
    maker = Maker(START, stuck=True)
    events = ahead(maker.events())
    await anext(events)
    await maker.at_rest.wait()
    await events.aclose()
    assert maker.closed.is_set()


async def test_a_cancelled_reader_ends_the_making() -> None:
    maker = Maker(stuck=True)
    reading = asyncio.ensure_future(anext(ahead(maker.events())))
    await maker.at_rest.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert maker.closed.is_set()
