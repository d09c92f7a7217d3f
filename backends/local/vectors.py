"""Embeddings from a local model: texts on their way to a worker, and their vectors on their way back.

Invariant: a worker never gets a text that it cannot read in one piece, and never more of them at once than it
reads in a moment, since it notices late that whoever asked has gone.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from itertools import groupby

from backends.base import Call
from backends.local.engine import Engine
from backends.local.exchange import answer_of
from backends.local.length import Input, Lengths, Part
from backends.local.pool import Pool
from backends.local.pool.seat import Lease
from backends.local.portion import portions
from backends.local.settings import Settings
from backends.ports import Local
from backends.relay import Wire
from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.event import Embedded, Event, Finished, Metered, Started, Usage
from compat.canonical.plain import telling
from compat.canonical.request import EmbeddingRequest
from compat.openai.embeddings import EmbeddingsTap, envelope_of, parse_answer

_PATH = "/v1/embeddings"

Vector = tuple[float, ...]


class Vectors:
    """What a local backend does with texts to embed.  Callers have checked that the model can."""

    def __init__(self, pool: Pool, wire: Wire, engine: Engine, settings: Settings) -> None:
        self._pool = pool
        self._wire = wire
        self._engine = engine
        self._settings = settings

    async def run(self, request: EmbeddingRequest, local: Local, call: Call) -> AsyncGenerator[Event, None]:
        call.drop(*telling(request.extra), *(["user"] if request.user else []))
        names = ["input"] if len(request.inputs) == 1 else [f"input[{n}]" for n in range(len(request.inputs))]
        _check_tokens(request.inputs, names, local.traits.vocabulary)
        if not self._engine.embeds_tokens and any(isinstance(one, tuple) for one in request.inputs):
            raise InvalidRequest(
                f"Engine {self._engine.name} takes texts, not token ids.", param="input", code="unsupported_value"
            )
        async with self._pool.lease(local.name, call) as lease:
            lengths = Lengths(lease, self._wire, call, self._settings.of(local.name).long_inputs)
            parts = await lengths.parts(request.inputs, names)
            vectors, tokens = await self.of(parts, lease, local, call)
        whole = await asyncio.to_thread(_joined, parts, vectors)
        if request.dimensions is not None:
            whole = self._cut(whole, request.dimensions, local)
        yield Started(id=f"emb-{call.request_id}", model=local.name, created=int(time.time()))
        for n, vector in enumerate(whole):
            yield Embedded(index=n, vector=vector)
        yield Finished(reason="stop")
        yield Metered(usage=Usage(input_tokens=tokens))

    async def of(self, parts: Sequence[Part], lease: Lease, local: Local, call: Call) -> tuple[list[Vector], int]:
        """The unit vector of each part, and the tokens of all.  Raises GatewayError."""
        loop = asyncio.get_running_loop()
        vectors: list[Vector] = []
        tokens = 0
        for portion in portions([part.tokens for part in parts], loop.time):
            asked = envelope_of([part.text for part in parts[portion]], local.name)
            watch = EmbeddingsTap(asked)
            found = parse_answer(await answer_of(self._wire, lease, _PATH, asked.body, watch, call))
            if len(found) != len(parts[portion]):
                raise BadResponse(f"The engine of model '{local.name}' answered with fewer vectors than texts.")
            vectors += map(_unit, found)
            tokens += (watch.usage.input_tokens or 0) if watch.usage else 0
        return vectors, tokens

    def _cut(self, vectors: list[Vector], dimensions: int, local: Local) -> list[Vector]:
        """The first numbers of each vector: those of some models are made so that these say most."""
        width = len(vectors[0])
        if dimensions == width:
            return vectors
        shortens = self._settings.of(local.name).matryoshka
        if dimensions > width or not shortens:
            some = f"at most {width}" if shortens else f"{width}"
            raise InvalidRequest(
                f"Model '{local.name}' makes vectors of {some} dimensions, not of {dimensions}.",
                param="dimensions",
                code="unsupported_value",
            )
        return [_unit(vector[:dimensions]) for vector in vectors]


def _check_tokens(inputs: Sequence[Input], names: Sequence[str], vocabulary: int) -> None:
    for name, tokens in zip(names, inputs, strict=True):
        if isinstance(tokens, tuple) and vocabulary and (most := max(tokens)) >= vocabulary:
            raise InvalidRequest(
                f"Invalid '{name}': this model knows {vocabulary} tokens, and {most} is none of them. Send the text.",
                param=name,
                code="invalid_value",
            )


def _joined(parts: Sequence[Part], vectors: Sequence[Vector]) -> list[Vector]:
    """One vector for each text: its own, or the mean of its parts', each for as much as it is long."""
    whole = []
    for _, group in groupby(zip(parts, vectors, strict=True), lambda one: one[0].of):
        pieces = list(group)
        if len(pieces) == 1:
            whole.append(pieces[0][1])
        else:
            columns = zip(*([number * part.tokens for number in vector] for part, vector in pieces), strict=True)
            whole.append(_unit(tuple(map(math.fsum, columns))))
    return whole


def _unit(vector: Vector) -> Vector:
    """The vector at length 1, which some engines leave to their callers."""
    length = math.hypot(*vector)
    if length == 0 or abs(length - 1) < 1e-4:
        return vector
    return tuple(number / length for number in vector)
