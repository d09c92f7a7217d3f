"""How long texts are to a local model, and what becomes of those that are too long for it.

Engines fail at a text that they cannot read in one piece, or cut it off in silence: so none of them gets one.
"""

import json
from collections.abc import Sequence

from backends.base import Call
from backends.local.exchange import answer_of
from backends.local.pool.seat import Lease
from backends.local.settings import LongInputs
from backends.local.worker import TextSpec
from backends.relay import Wire
from compat.canonical.error import ContextTooLong
from compat.canonical.message import Value
from compat.openai.llama import TokensTap

AROUND_TOKENS = 8
"""What models put around a text, at most."""
COUNTED_BYTES = 32
"""For each token there is room for, so much of a text is counted first: if that is too long, all of it is."""

Input = str | tuple[int, ...]


class Part(Value, frozen=True):
    """A text, or a piece of one that is too long."""

    of: int
    """Which of the texts."""
    text: Input
    tokens: int
    """At most."""


class Lengths:
    """Measures texts for one request, by the worker it has leased."""

    def __init__(self, lease: Lease, wire: Wire, call: Call, long_inputs: LongInputs) -> None:
        assert isinstance(lease.spec, TextSpec)
        self._lease = lease
        self._wire = wire
        self._call = call
        self._room = min(lease.spec.context, lease.spec.n_batch)
        """In tokens, for one text with what the model puts around it."""
        self._cuts = long_inputs == "chunk"

    async def parts(self, texts: Sequence[Input], names: Sequence[str], beside: Part | None = None) -> list[Part]:
        """The texts, in their order, as the model can read them.

        names: what errors call them.
        beside: what it reads together with each of them.
        Raises ContextTooLong where one is too long and must not be cut.
        """
        room = self._room - (beside.tokens if beside else 0)
        return [
            Part(of=n, text=piece, tokens=tokens)
            for n, text in enumerate(texts)
            for piece, tokens in await self._fitting(text, names[n], room, cuts=self._cuts)
        ]

    async def whole(self, text: str, name: str, beside_tokens: int = 0) -> Part:
        """A text that is never cut, which leaves room for so many tokens.  Raises ContextTooLong."""
        await self._fitting(text, name, self._room - beside_tokens, cuts=False)
        # Counted in any case: what it does not take is left to the others.
        return Part(of=0, text=text, tokens=await self.count(text))

    async def count(self, text: str) -> int:
        """The tokens of a text, with what the model puts around it.  Raises GatewayError."""
        path, field = self._lease.engine.tokens
        watch = TokensTap()
        body = json.dumps({field: text, "add_special": True}).encode()
        await answer_of(self._wire, self._lease, path, body, watch, self._call)
        return len(watch.tokens)

    async def _fitting(self, text: Input, name: str, room: int, *, cuts: bool) -> list[tuple[Input, int]]:
        if isinstance(text, tuple):
            if len(text) <= room:
                return [(text, len(text))]
            if not cuts:
                raise _too_long(name, f"it has {len(text)}", room)
            return [(text[at : at + room], len(text[at : at + room])) for at in range(0, len(text), room)]
        # A token is a byte at least; what is taken apart (ΐ into a letter and two accents) grows by half.
        size = len(text.encode()) * 3 // 2
        if size + AROUND_TOKENS <= room:
            return [(text, size)]
        sample = text[: room * COUNTED_BYTES]
        tokens = await self.count(sample)
        if tokens <= room and len(sample) < len(text):
            tokens, sample = await self.count(text), text
        if tokens <= room:
            return [(text, tokens)]
        middle = _middle(text)
        if not cuts or middle == 0:
            raise _too_long(name, f"it has {'' if len(sample) == len(text) else 'more than '}{tokens}", room)
        # Halves, and halves of these, until each fits.
        halves = [half for half in (text[:middle], text[middle:]) if half.strip()]
        return [piece for half in halves for piece in await self._fitting(half, name, room, cuts=True)]


def _too_long(name: str, length: str, room: int) -> ContextTooLong:
    return ContextTooLong(
        f"'{name}' is too long: there is room for {room} tokens, and {length}. Shorten it, or split it up.", param=name
    )


def _middle(text: str) -> int:
    """Where a text is best cut in two: at the space nearest to its middle, if it has one in its middle half."""
    half = len(text) // 2
    before, after = text.rfind(" ", half // 2, half), text.find(" ", half, half + half // 2)
    spaces = [at for at in (before, after) if at > 0]
    return min(spaces, key=lambda at: abs(at - half), default=half)
