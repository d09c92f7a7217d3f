"""How well documents answer a query, by a local model.

A model made for it reads each document together with the query.  One that makes embeddings can stand in: how near
their vectors are says what both are about, not whether the one answers the other, so the answer tells that it was
measured so, in a header.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from operator import mul

from backends.base import Call
from backends.local.engine import Engine
from backends.local.exchange import answer_of
from backends.local.length import Lengths, Part
from backends.local.pool import Pool
from backends.local.pool.seat import Lease
from backends.local.portion import portions
from backends.local.settings import Settings
from backends.local.vectors import Vector, Vectors
from backends.ports import Local
from backends.relay import Wire
from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.event import Event, Finished, Metered, Ranked, Started, Usage
from compat.canonical.plain import telling
from compat.canonical.request import RerankRequest
from compat.openai.rerank import RerankTap, envelope_of, parse_answer

METHOD_HEADER = "x-gateway-rerank-method"
"""`cross-encoder` or `embedding-similarity`."""
DOCUMENT_TOKENS = 32
"""What a query must leave room for."""
_PATH = "/v1/rerank"
_IN_SHARES = ("qwen3", "qwen3vl")
"""Architectures for which llama.cpp gives a share of 1 already; others give log odds."""


class Rankings:
    """What a local backend does with documents to rank.  Callers have checked that the model can."""

    def __init__(self, pool: Pool, wire: Wire, engine: Engine, settings: Settings, vectors: Vectors) -> None:
        self._pool = pool
        self._wire = wire
        self._engine = engine
        self._settings = settings
        self._vectors = vectors

    async def run(self, request: RerankRequest, local: Local, call: Call) -> AsyncGenerator[Event, None]:
        call.drop(*telling(request.extra))
        reads_both = local.model.modality == "rerank"
        if reads_both and not self._engine.ranks:
            raise InvalidRequest(
                f"Engine {self._engine.name} does not rerank.", param="model", code="unsupported_value"
            )
        async with self._pool.lease(local.name, call) as lease:
            measure = self._read if reads_both else self._compare
            scores, tokens = await measure(request, lease, local, call)
        call.headers.append((METHOD_HEADER, "cross-encoder" if reads_both else "embedding-similarity"))
        yield Started(id=f"rerank-{call.request_id}", model=local.name, created=int(time.time()))
        for n, score in enumerate(scores):
            yield Ranked(index=n, score=score)
        yield Finished(reason="stop")
        yield Metered(usage=Usage(input_tokens=tokens))

    async def _read(self, request: RerankRequest, lease: Lease, local: Local, call: Call) -> tuple[list[float], int]:
        """By a model made for it.  The best part of a document that had to be cut stands for all of it."""
        lengths = self._lengths(lease, local, call)
        query = await lengths.whole(request.query, "query", DOCUMENT_TOKENS)
        parts = await lengths.parts(request.documents, _names(request), query)
        loop = asyncio.get_running_loop()
        scores = [0.0] * len(parts)
        tokens = 0
        for portion in portions([query.tokens + part.tokens for part in parts], loop.time):
            asked = envelope_of(request.query, tuple(str(part.text) for part in parts[portion]), local.name)
            watch = RerankTap(asked)
            found = parse_answer(await answer_of(self._wire, lease, _PATH, asked.body, watch, call))
            if sorted(one.index for one in found) != list(range(len(parts[portion]))):
                raise BadResponse(f"The engine of model '{local.name}' did not score every document.")
            for one in found:
                scores[portion.start + one.index] = _share(one.relevance_score, local.traits.architecture)
            tokens += (watch.usage.input_tokens or 0) if watch.usage else 0
        return _best(parts, scores), tokens

    async def _compare(self, request: RerankRequest, lease: Lease, local: Local, call: Call) -> tuple[list[float], int]:
        """By the cosine between vectors; what points away from the query is as far from it as what has nothing to do
        with it."""
        lengths = self._lengths(lease, local, call)
        query = await lengths.whole(request.query, "query")
        parts = await lengths.parts(request.documents, _names(request))
        vectors, tokens = await self._vectors.of([query, *parts], lease, local, call)
        return await asyncio.to_thread(_nearness, parts, vectors[0], vectors[1:]), tokens

    def _lengths(self, lease: Lease, local: Local, call: Call) -> Lengths:
        return Lengths(lease, self._wire, call, self._settings.of(local.name).long_inputs)


def _names(request: RerankRequest) -> list[str]:
    return [f"documents[{n}]" for n in range(len(request.documents))]


def _nearness(parts: Sequence[Part], query: Vector, vectors: Sequence[Vector]) -> list[float]:
    cosines = [sum(map(mul, query, vector)) for vector in vectors]
    return _best(parts, [min(max(0.0, cosine), 1.0) for cosine in cosines])


def _best(parts: Sequence[Part], scores: Sequence[float]) -> list[float]:
    """The score of each document: the best among those of its parts."""
    best: dict[int, float] = {}
    for part, score in zip(parts, scores, strict=True):
        best[part.of] = max(score, best.get(part.of, score))
    return [best[of] for of in sorted(best)]


def _share(score: float, architecture: str) -> float:
    """What an engine says of a document, as a number from 0 to 1."""
    if architecture in _IN_SHARES:
        return min(max(0.0, score), 1.0)
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
