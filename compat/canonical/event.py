"""What comes back: a stream of events, and the result they fold into.

Order within one stream, which every backend promises and `tests/backends/contract.py` checks: one
Started, then any number of deltas, then one Finished for each choice, then at most one Metered.
Errors are raised, not sent; see `compat.canonical.error`.
"""

from collections.abc import AsyncIterator
from typing import Literal

from compat.canonical.error import BadResponse
from compat.canonical.message import Part, Reasoning, Tagged, Text, ToolCall, Value

Reason = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Usage(Value, frozen=True):
    """What the request cost, in tokens.  None means that the backend did not say, which is not zero."""

    input_tokens: int | None = None
    """All of the prompt, cached tokens included."""
    output_tokens: int | None = None
    """All that was generated, reasoning included."""
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Started(Tagged, frozen=True):
    id: str
    model: str
    created: int
    """Seconds since 1970, UTC."""


class TextDelta(Tagged, frozen=True):
    text: str
    choice: int = 0


class ReasoningDelta(Tagged, frozen=True):
    text: str = ""
    signature: str | None = None
    choice: int = 0


class ToolDelta(Tagged, frozen=True):
    """A piece of tool call number `call`; `id` and `name` come with its first piece only."""

    call: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0


class Finished(Tagged, frozen=True):
    reason: Reason
    raw_reason: str | None = None
    """The provider's own word, where it differs."""
    choice: int = 0


class Metered(Tagged, frozen=True):
    usage: Usage


Event = Started | TextDelta | ReasoningDelta | ToolDelta | Finished | Metered


class Choice(Value, frozen=True):
    parts: tuple[Part, ...]
    finished: Finished


class Result(Value, frozen=True):
    """A whole answer."""

    started: Started
    choices: tuple[Choice, ...]
    usage: Usage = Usage()


class _Building:
    """One choice while its deltas arrive."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thought: list[str] = []
        self.signature: str | None = None
        self.names: dict[int, tuple[str, str]] = {}
        self.calls: dict[int, list[str]] = {}
        self.finished: Finished | None = None

    def parts(self) -> tuple[Part, ...]:
        parts: list[Part] = []
        if self.thought or self.signature:
            parts.append(Reasoning(text="".join(self.thought), signature=self.signature))
        if self.text:
            parts.append(Text(text="".join(self.text)))
        for call, pieces in self.calls.items():
            id_, name = self.names[call]
            parts.append(ToolCall(id=id_, name=name, arguments="".join(pieces)))
        return tuple(parts)


async def fold(events: AsyncIterator[Event]) -> Result:
    """Read a stream to its end and return it as one result.

    Raises BadResponse when the stream ends before each of its choices has finished: a truncated
    answer is never taken for a whole one.
    """
    started: Started | None = None
    usage = Usage()
    choices: dict[int, _Building] = {}
    async for event in events:
        match event:
            case Started():
                started = event
            case Metered(usage=usage):
                pass
            case _:
                building = choices.setdefault(event.choice, _Building())
                match event:
                    case TextDelta(text=text):
                        building.text.append(text)
                    case ReasoningDelta(text=text, signature=signature):
                        building.thought.append(text)
                        building.signature = signature or building.signature
                    case ToolDelta(call=call, arguments=piece):
                        building.calls.setdefault(call, []).append(piece)
                        if event.id is not None:
                            building.names[call] = event.id, event.name or ""
                    case Finished():
                        building.finished = event
    if started is None or not choices or any(choice.finished is None for choice in choices.values()):
        raise BadResponse("The backend's answer ended before it was complete.")
    return Result(
        started=started,
        choices=tuple(
            Choice(parts=building.parts(), finished=building.finished)
            for _, building in sorted(choices.items())
            if building.finished is not None
        ),
        usage=usage,
    )
