"""What the tests of local pictures work with: the small model, wishes, and pictures to compare."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import backends.local
from backends.base import Call
from backends.local import LocalBackend, Settings, connect
from backends.ports import Format, Local, Ports
from compat.canonical.event import Event, Produced, Progress
from compat.canonical.message import Media
from compat.canonical.model import Model
from compat.canonical.request import ImageRequest
from tests.backends.local.bench import call

FOLDER = Path(backends.local.__file__).parent / "models" / "tiny-shapes"
RED = "a red circle on a white background"


def shapes(kind: Format = "onnx", path: Path = FOLDER) -> Local:
    return Local(
        name="shapes",
        path=str(path),
        format=kind,
        model=Model(name="shapes", backend="local", modality="image", size_bytes=8_000_000),
    )


@asynccontextmanager
async def started(local: Local) -> AsyncIterator[LocalBackend]:
    backend = connect("local", Settings(threads=1), Ports(catalogue=lambda: {local.name: local}))
    try:
        yield backend
    finally:
        await backend.aclose()


def wish(**fields: Any) -> ImageRequest:
    extra = {"steps": 4, "seed": 7, **fields.pop("extra", {})}
    return ImageRequest(**{"model": "shapes", "prompt": RED, "extra": extra, **fields})


async def told(backend: LocalBackend, request: ImageRequest, of: Call | None = None) -> list[Event]:
    async with aclosing(backend.run(request, of or call())) as events:
        return [event async for event in events]


async def made(backend: LocalBackend, **fields: Any) -> list[Image.Image]:
    events = await told(backend, wish(**fields))
    return [opened(event) for event in events if isinstance(event, Produced) and event.partial is None]


def opened(event: Produced) -> Image.Image:
    assert event.media.data is not None
    return Image.open(io.BytesIO(event.media.data))


def png(picture: Image.Image) -> Media:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return Media(mime="image/png", data=out.getvalue())


def disc(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A red one on white."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse([size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4], fill="red")
    return picture


def far(one: Image.Image, other: Image.Image) -> float:
    """How much two pictures differ, in levels of 256."""
    return float(np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean())


async def stepping(backend: LocalBackend, **fields: Any) -> AsyncIterator[Event]:
    """The events of a long piece of work, from its first step on."""
    events = backend.run(wish(extra={"steps": 500}, size="64x64", count=10, **fields), call())
    async for event in events:
        if isinstance(event, Progress) and event.step:
            yield event


@asynccontextmanager
async def left_soon_free(backend: LocalBackend) -> AsyncIterator[None]:
    """Somebody's long work is under way; at the end of the context they leave, and the next is served soon."""
    began = time.monotonic()
    await told(backend, wish(size="64x64"))
    usual_s = time.monotonic() - began
    reached = asyncio.Event()

    async def work() -> None:
        async for _ in stepping(backend):
            reached.set()

    working = asyncio.create_task(work())
    await reached.wait()
    yield
    working.cancel()
    await asyncio.wait({working})
    began = time.monotonic()
    await told(backend, wish(size="64x64"))
    assert time.monotonic() - began < usual_s + 1.0
