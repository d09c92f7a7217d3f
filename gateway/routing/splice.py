"""How another route goes on with an answer that broke off: what it is asked, and where its answer joins.

Two ways.  *Prefill*: the answer so far is the beginning of the assistant's message, and the model goes
on from there.  *Regenerate*: the same question once more; what the client has already is left out, if
it is repeated to the letter.  Whether a provider understands a prefill is often unknown (some take it
for a turn that is over), so there the last pieces are held back: a model that goes on writes them first.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from msgspec import Struct

from compat.canonical.event import Cited, Event, Finished, Metered, ReasoningDelta, Started, TextDelta, ToolDelta
from compat.canonical.message import Message, Text
from compat.canonical.request import TextRequest

HELD_BACK = 3
"""Pieces of an answer that are asked for again, where a prefill has to prove that it was understood."""


class Diverged(Exception):
    """The other answer does not join: the client has seen another beginning."""


class Way(Struct, frozen=True, kw_only=True):
    """One request to a route, and how its answer must begin."""

    request: TextRequest
    beginnings: tuple[str, ...]
    """One of them; what matches is left out, the longest first."""
    prefilled: bool


class Broken(Struct):
    """An answer that broke off: what the client has of it."""

    past: list[Event]
    pieces: list[str]
    """Of its text, as they came."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def broken(past: list[Event]) -> Broken | None:
    """What can be gone on with; None where joining another answer would garble this one."""
    pieces: list[str] = []
    for event in past:
        match event:
            case TextDelta(choice=0, text=text):
                pieces.append(text)
            case Started() | Metered():
                pass
            case ReasoningDelta(choice=0) if not pieces:
                pass
            case _:
                return None
    # An open thought carries a proof that only its own model can give.
    return Broken(past, pieces) if pieces or not any(isinstance(e, ReasoningDelta) for e in past) else None


def ways(request: TextRequest, answer: Broken, prefills: bool | None) -> list[Way]:
    """How to ask a route that takes prefills (True), refuses or ignores them (False), or may do either."""
    text = answer.text
    again = Way(request=request, beginnings=(text,), prefilled=False)
    # A schema binds the whole of what a model writes, so it could only begin anew.
    if prefills is False or not text.strip() or request.schema is not None:
        return [again]
    told = text
    if prefills is None:
        told = "".join(answer.pieces[: -_held_back(answer.pieces)])
    told = told.rstrip()  # Anthropic refuses one that ends in blanks
    if not told:
        return [again]
    rest = text[len(told) :]
    beginnings: tuple[str, ...] = (text, rest, rest.lstrip())
    if prefills:
        beginnings = (rest, "")
    pieces_told = len(answer.pieces) * len(told) // len(text)
    return [Way(request=_prefilled(request, told, pieces_told), beginnings=beginnings, prefilled=True), again]


def _held_back(pieces: Sequence[str]) -> int:
    """How many of the last pieces are a proof: a few, and not blanks only, which any answer may begin with."""
    count = min(HELD_BACK, max(1, len(pieces) // 4))
    while count < len(pieces) and not "".join(pieces[-count:]).strip():
        count += 1
    return count


def _prefilled(request: TextRequest, text: str, pieces: int) -> TextRequest:
    messages = request.messages
    if messages and messages[-1].role == "assistant":
        own = messages[-1]
        messages = (*messages[:-1], msgspec.structs.replace(own, parts=(*own.parts, Text(text=text))))
    else:
        messages = (*messages, Message(role="assistant", parts=(Text(text=text),)))
    sampling = request.sampling
    if sampling.max_tokens is not None:
        sampling = msgspec.structs.replace(sampling, max_tokens=max(1, sampling.max_tokens - pieces))
    return msgspec.structs.replace(request, messages=messages, sampling=sampling)


async def joined(events: AsyncGenerator[Event, None], beginnings: Sequence[str]) -> AsyncGenerator[Event, None]:
    """The part of another answer that the client has not seen.  Raises Diverged, before the first event."""
    held = ""
    settled = not any(beginnings)

    def rest() -> str:
        found = [start for start in beginnings if held.startswith(start)]
        if not found:
            raise Diverged
        return held[len(max(found, key=len)) :]

    async with aclosing(events):
        async for event in events:
            match event:
                case Started() | ReasoningDelta():
                    continue  # the client has had its own
                case Cited() if not settled:
                    continue  # of what the client had from another
                case TextDelta(text=text) if not settled:
                    held += text
                    if any(len(start) > len(held) and start.startswith(held) for start in beginnings):
                        continue
                    settled = True
                    if new := rest():
                        yield TextDelta(text=new)
                    continue
                case ToolDelta() | Finished() if not settled:
                    settled = True
                    if new := rest():
                        yield TextDelta(text=new)
                case _:
                    pass
            yield event
