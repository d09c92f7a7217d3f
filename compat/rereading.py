"""Reads back what a client was sent of a stream that broke off, so that another backend can go on."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from compat.anthropic.reading import parse_events as parse_messages
from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Started
from compat.canonical.request import Dialect
from compat.openai.answer import parse_events as parse_chat

_READERS: dict[Dialect, Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[Event, None]]] = {
    "chat": parse_chat,
    "messages": lambda frames: parse_messages(frames, created=0),
}


async def read_back(dialect: Dialect, sent: Sequence[bytes]) -> list[Event] | None:
    """The events in relayed frames, in order; None where this dialect cannot be read back."""
    reader = _READERS.get(dialect)
    if reader is None:
        return None
    events: list[Event] = []
    async with aclosing(reader(_each(sent))) as reading:
        try:
            async for event in reading:
                events.append(replace(event, sent=bool(event.id)) if isinstance(event, Started) else event)
        except BadResponse:
            pass  # that it broke off is known
    return events


async def _each(sent: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in sent:
        yield piece
