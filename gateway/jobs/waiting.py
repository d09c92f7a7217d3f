"""Waiting for an event, but not for ever."""

import asyncio


async def waited(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or the time is over; None is no bound."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
