"""A backend that says what it was told to: for tests, examples and trying a configuration."""

import asyncio
import json
import math
import struct
import time
import zlib
from collections.abc import AsyncGenerator, Sequence
from hashlib import blake2b

from msgspec import Struct

from backends.base import Call, Price
from backends.ports import Ports
from compat.canonical.error import Overloaded
from compat.canonical.event import (
    Embedded,
    Event,
    Finished,
    Metered,
    Produced,
    Progress,
    Ranked,
    Started,
    TextDelta,
    Usage,
)
from compat.canonical.message import GLB, Media
from compat.canonical.model import Model
from compat.canonical.plain import telling
from compat.canonical.request import (
    EmbeddingRequest,
    ImageRequest,
    MeshRequest,
    Request,
    RerankRequest,
    TextRequest,
)

DIMENSIONS = 8


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    words: tuple[str, ...] = ("Hello", " from", " the", " fake", " backend.")
    """The answer, one piece an event."""
    pause_s: float = 0.0
    """Before each piece."""
    busy: bool = False
    """Refuse everything as overloaded."""


class FakeBackend:
    price: Price | None = "free"
    prefills: bool | None = False

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.running = 0
        """Answers under way."""

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if self.settings.busy:
            raise Overloaded(f"Backend '{self.name}' is overloaded.", retry_after_s=1.0)
        pieces, usage = self._answer(request, call)
        self.running += 1
        try:
            yield Started(id=f"fake-{call.request_id}", model=request.model, created=int(time.time()))
            for piece in pieces:
                await asyncio.sleep(self.settings.pause_s)
                yield piece
            yield Finished(reason="stop")
            yield Metered(usage=usage)
        finally:
            self.running -= 1

    def _answer(self, request: Request, call: Call) -> tuple[Sequence[Event], Usage]:
        call.drop(*telling(request.extra))
        match request:
            case TextRequest():
                if request.choices > 1:
                    call.drop("n")
                words = self.settings.words
                return [TextDelta(text=word) for word in words], Usage(
                    input_tokens=len(request.messages), output_tokens=len(words)
                )
            case EmbeddingRequest(inputs=inputs, dimensions=dimensions):
                vectors = [_vector(repr(one), dimensions or DIMENSIONS) for one in inputs]
                tokens = sum(len(one.split()) if isinstance(one, str) else len(one) for one in inputs)
                return [Embedded(index=n, vector=v) for n, v in enumerate(vectors)], Usage(input_tokens=tokens)
            case ImageRequest(count=count):
                picture = Media(mime="image/png", data=_picture(request.prompt))
                return [Produced(media=picture, index=n) for n in range(count)], Usage()
            case RerankRequest(query=query, documents=documents):
                ranked = [Ranked(index=n, score=_likeness(query, one)) for n, one in enumerate(documents)]
                tokens = sum(len(query.split()) + len(one.split()) for one in documents)
                return ranked, Usage(input_tokens=tokens)
            case MeshRequest():
                mesh = Produced(media=Media(mime=GLB, data=tetrahedron(request.prompt)))
                return [Progress(step=1, of=2), Progress(step=2, of=2), mesh], Usage()

    async def models(self) -> Sequence[Model]:
        return [Model(name="fake", backend=self.name, status="ready")]

    async def aclose(self) -> None:
        return


def connect(name: str, settings: Settings, ports: Ports) -> FakeBackend:  # noqa: ARG001
    return FakeBackend(name, settings)


def _vector(text: str, dimensions: int) -> tuple[float, ...]:
    """A unit vector that only this text has."""
    digests = [blake2b(text.encode(), digest_size=2, person=b"%d" % n).digest() for n in range(dimensions)]
    numbers = [int.from_bytes(digest) - 32767.5 for digest in digests]
    length = math.hypot(*numbers)
    return tuple(number / length for number in numbers)


def _likeness(query: str, document: str) -> float:
    """The share of the query's words that the document has."""
    words = set(query.lower().split())
    return len(words & set(document.lower().split())) / max(1, len(words))


def _picture(text: str) -> bytes:
    """A PNG of one pixel, in a colour that goes with the text."""
    colour = blake2b(text.encode(), digest_size=3).digest()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = b"\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"
    pixels = zlib.compress(b"\x00" + colour)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


_CORNERS = ((1, 2, 1), (1, 0, -1), (-1, 2, -1), (-1, 0, 1))
_TRIANGLES = ((0, 1, 2), (0, 3, 1), (0, 2, 3), (1, 3, 2))


def tetrahedron(text: str) -> bytes:
    """A tetrahedron in GLB, in a colour that goes with the text."""
    colour = [*(part / 255 for part in blake2b(text.encode(), digest_size=3).digest()), 1.0]
    indices = struct.pack("<12H", *(index for triangle in _TRIANGLES for index in triangle))
    corners = struct.pack("<12f", *(number for corner in _CORNERS for number in corner))
    views = [{"buffer": 0, "byteLength": 24}, {"buffer": 0, "byteOffset": 24, "byteLength": 48}]
    low, high = [-1, 0, -1], [1, 2, 1]
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": colour}}],
        "accessors": [
            {"bufferView": 0, "componentType": 5123, "count": 12, "type": "SCALAR"},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC3", "min": low, "max": high},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": 72}],
    }
    described = json.dumps(tree).encode()
    described += b" " * (-len(described) % 4)
    chunks = struct.pack("<I4s", len(described), b"JSON") + described
    chunks += struct.pack("<I4s", 72, b"BIN\0") + indices + corners
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
