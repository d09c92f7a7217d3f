"""A backend that says what it was told to: for tests, examples and trying a configuration."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from backends.base import Call, Ports, unfit
from compat.canonical.error import Overloaded
from compat.canonical.event import Event, Finished, Metered, Started, TextDelta, Usage
from compat.canonical.model import Model
from compat.canonical.request import Request, TextRequest


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    words: tuple[str, ...] = ("Hello", " from", " the", " fake", " backend.")
    """The answer, one piece an event."""
    pause_s: float = 0.0
    """Before each piece."""
    busy: bool = False
    """Refuse everything as overloaded."""


class FakeBackend:
    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.running = 0
        """Answers under way."""

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, TextRequest):
            raise unfit(self.name, request)
        if self.settings.busy:
            raise Overloaded(f"Backend '{self.name}' is overloaded.", retry_after_s=1.0)
        self.running += 1
        try:
            yield Started(id=f"fake-{call.request_id}", model=request.model, created=int(time.time()))
            for word in self.settings.words:
                await asyncio.sleep(self.settings.pause_s)
                yield TextDelta(text=word)
            yield Finished(reason="stop")
            yield Metered(usage=Usage(input_tokens=len(request.messages), output_tokens=len(self.settings.words)))
        finally:
            self.running -= 1

    async def models(self) -> Sequence[Model]:
        return [Model(name="fake", backend=self.name, status="ready")]

    async def aclose(self) -> None:
        return


def connect(name: str, settings: Settings, ports: Ports) -> FakeBackend:  # noqa: ARG001
    return FakeBackend(name, settings)
