"""What there is of an answer while it comes: kept where it does not come to its end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from compat.canonical.event import Event, Produced, TextDelta
from compat.canonical.message import Stored
from gateway.requests import Made, Partial


class Seen:
    """The text and the artifacts of one answer so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._made: list[Made] = []

    def clear(self) -> None:
        self._text.clear()
        self._made.clear()

    def note(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            if not event.choice:
                self._text.append(event.text)
        elif isinstance(event, Produced) and event.partial is None:
            stored = event.media.extra.get("stored")
            if isinstance(stored, Stored):
                url = f"/v1/artifacts/{stored.id}/content"
                self._made.append(
                    Made(id=stored.id, url=url, mime=event.media.mime, bytes=stored.size_bytes, sha256=stored.sha256)
                )

    def partial(self) -> Partial | None:
        """None where there is nothing yet."""
        if not self._text and not self._made:
            return None
        return Partial(text="".join(self._text), artifacts=self._made)


async def noted(events: AsyncGenerator[Event, None], seen: Seen) -> AsyncGenerator[Event, None]:
    """The same events, each taken note of; closes them."""
    async with aclosing(events):
        async for event in events:
            seen.note(event)
            yield event
