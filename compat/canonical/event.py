"""What comes back: a stream of events, and the result they fold into.

Order within one stream, which every backend promises and `tests/backends/contract.py` checks: one
Started, then any number of deltas (or Embedded, Ranked, Progress, Produced), one Finished for each choice
(one, for all that is not text), at most one Metered.
Errors are raised, not sent; see `compat.canonical.error`.
"""

from collections.abc import AsyncIterator
from typing import Any, Literal

from compat.canonical.error import BadResponse
from compat.canonical.message import Media, Part, Reasoning, Tagged, Text, ToolCall, Value

Reason = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Usage(Value, frozen=True):
    """What the request cost, in tokens.  None means that the backend did not say, which is not zero."""

    input_tokens: int | None = None
    """All of the prompt, cached tokens included."""
    output_tokens: int | None = None
    """All that was generated, reasoning included."""
    cached_tokens: int | None = None
    """Read from a cache of prompts."""
    reasoning_tokens: int | None = None
    cache_written_tokens: int | None = None
    """Put into a cache of prompts; some providers charge more for these."""
    long_cached_tokens: int | None = None
    """Of cache_written_tokens, those that the cache keeps for long, at another price."""


class Started(Tagged, frozen=True):
    id: str
    model: str
    created: int
    """Seconds since 1970, UTC."""
    usage: Usage | None = None
    """What is known of the prompt by then, where the backend says: Metered says it all again."""
    sent: bool = False
    """The client has been sent this id, so it stays as it is, whatever ids of its dialect look like."""


class TextDelta(Tagged, frozen=True):
    text: str
    choice: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    """Of its tokens, in OpenAI's words, where they were asked for."""


class ReasoningDelta(Tagged, frozen=True):
    text: str = ""
    signature: str | None = None
    """Comes last in its block, which it closes."""
    redacted: str | None = None
    """A whole redacted block, opaque."""
    choice: int = 0


class ToolDelta(Tagged, frozen=True):
    """A piece of tool call number `call`; `id` and `name` come with its first piece only."""

    call: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0


class Cited(Tagged, frozen=True):
    """A page that supports a stretch of the answer's text so far; comes once that stretch is complete."""

    url: str
    start: int
    """In characters of the choice's whole text; `end` is exclusive."""
    end: int
    title: str | None = None
    choice: int = 0


class Embedded(Tagged, frozen=True):
    index: int
    vector: tuple[float, ...]


class Ranked(Tagged, frozen=True):
    """How well a document answers a query; more is better."""

    index: int
    score: float


class Progress(Tagged, frozen=True):
    """How far the work on a picture or a mesh is.  Whoever has been told of it stays with the route that told."""

    step: int
    of: int
    """Steps in all; 0 where that is not known."""
    stage: str = "generating"
    """One word for people: `generating`, `decoding`, `meshing`, …"""


class Produced(Tagged, frozen=True):
    """A picture or a mesh, whole; or, `partial`, how it looks by now."""

    media: Media
    index: int = 0
    revised_prompt: str | None = None
    partial: int | None = None
    """Counts the previews of one picture from 0; None is the thing itself."""


class Finished(Tagged, frozen=True):
    reason: Reason
    raw_reason: str | None = None
    """The provider's own word, where it differs."""
    stop: str | None = None
    """The client's stop sequence that was met, where the provider says."""
    choice: int = 0
    state: dict[str, Any] = {}
    """What the provider wants brought back with the next turn, by name."""


class Metered(Tagged, frozen=True):
    usage: Usage


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | ToolDelta
    | Cited
    | Embedded
    | Ranked
    | Progress
    | Produced
    | Finished
    | Metered
)


class Choice(Value, frozen=True):
    parts: tuple[Part, ...]
    finished: Finished
    cited: tuple[Cited, ...] = ()


class Result(Value, frozen=True):
    """A whole answer; the task of the request says which of its parts are filled."""

    started: Started
    choices: tuple[Choice, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    produced: tuple[Produced, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    """In the order in which they came."""
    usage: Usage = Usage()


class _Building:
    """One choice while its deltas arrive: its parts in the order in which they began."""

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self.cited: list[Cited] = []
        self._open: list[_Open] = []
        self._calls: dict[int, _Open] = {}

    def add(self, event: TextDelta | ReasoningDelta | ToolDelta) -> None:
        last = self._open[-1] if self._open else None
        match event:
            case TextDelta(text=text):
                if last is None or last.kind != "text":
                    self._open.append(last := _Open("text"))
                last.pieces.append(text)
                last.logprobs += event.logprobs
            case ReasoningDelta(text=text, signature=signature, redacted=redacted):
                # A signature closes its block, and a redacted block is whole.
                closed = last is not None and (last.proof is not None or last.redacted is not None)
                if last is None or last.kind != "thought" or closed or redacted is not None:
                    self._open.append(last := _Open("thought"))
                last.pieces.append(text)
                last.proof = signature
                last.redacted = redacted
            case ToolDelta(call=call, arguments=piece):
                if call not in self._calls:
                    self._calls[call] = opened = _Open("call")
                    self._open.append(opened)
                opened = self._calls[call]
                opened.pieces.append(piece)
                opened.id = event.id or opened.id
                opened.name = event.name or opened.name

    def parts(self) -> tuple[Part, ...]:
        return tuple(part.closed() for part in self._open)


class _Open:
    """A part while its pieces arrive."""

    def __init__(self, kind: Literal["text", "thought", "call"]) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.proof: str | None = None
        self.redacted: str | None = None
        self.id = ""
        self.name = ""

    def closed(self) -> Part:
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return Text(text=text, extra={"logprobs": self.logprobs} if self.logprobs else {})
            case "thought":
                return Reasoning(text=text, signature=self.proof, redacted=self.redacted)
            case "call":
                return ToolCall(id=self.id, name=self.name, arguments=text)


async def fold(events: AsyncIterator[Event]) -> Result:
    """Read a stream to its end and return it as one result.

    Raises BadResponse when the stream ends before each of its choices has finished: a truncated
    answer is never taken for a whole one.
    """
    started: Started | None = None
    usage = Usage()
    choices: dict[int, _Building] = {}
    vectors: dict[int, tuple[float, ...]] = {}
    produced: dict[int, Produced] = {}
    ranked: list[Ranked] = []
    async for event in events:
        match event:
            case Started():
                started = event
            case Metered(usage=usage):
                pass
            case Embedded(index=index, vector=vector):
                vectors[index] = vector
            case Produced(index=index):
                if event.partial is None:
                    produced[index] = event
            case Ranked():
                ranked.append(event)
            case Progress():
                pass
            case _:
                building = choices.setdefault(event.choice, _Building())
                if isinstance(event, Finished):
                    building.finished = event
                elif isinstance(event, Cited):
                    building.cited.append(event)
                else:
                    building.add(event)
    if started is None or not choices or any(choice.finished is None for choice in choices.values()):
        raise BadResponse("The backend's answer ended before it was complete.")
    return Result(
        started=started,
        choices=tuple(
            Choice(parts=building.parts(), finished=building.finished, cited=tuple(building.cited))
            for _, building in sorted(choices.items())
            if building.finished is not None
        ),
        vectors=tuple(vector for _, vector in sorted(vectors.items())),
        produced=tuple(one for _, one in sorted(produced.items())),
        ranked=tuple(ranked),
        usage=usage,
    )
