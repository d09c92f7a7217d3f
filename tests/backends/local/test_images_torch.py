"""The same small model through diffusers and torch, which is how the large ones run.  Needs the extra `image`."""

import asyncio
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest
import pytest_asyncio
from PIL import Image

from backends.local import LocalBackend
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Produced, Progress
from tests.backends.local.painting import disc, far, made, opened, png, shapes, started, stepping, told, wish

HAS_TORCH = find_spec("torch") is not None and find_spec("diffusers") is not None

pytestmark = [
    pytest.mark.skipif(not HAS_TORCH, reason="the extra `image` is not installed"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def painter() -> AsyncIterator[LocalBackend]:
    """Torch takes its time to load."""
    async with started(shapes("diffusers")) as backend:
        yield backend


async def test_words_become_a_picture_step_by_step(painter: LocalBackend) -> None:
    events = await told(painter, wish(count=2, size="64x64", previews=1, extra={"steps": 12, "guidance": 5}))
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == [*range(13), *range(12, 25)]
    produced = [event for event in events if isinstance(event, Produced)]
    assert [(event.index, event.partial) for event in produced] == [(0, 0), (0, None), (1, 0), (1, None)]
    centre = opened(produced[1]).convert("RGB").getpixel((32, 32))
    assert isinstance(centre, tuple)
    assert centre[0] > 130 > 100 > max(centre[1:]), "red in the middle"


async def test_a_seed_decides(painter: LocalBackend) -> None:
    first, second = await made(painter, count=2, size="64x64")
    (again,) = await made(painter, size="64x64")
    assert far(first, again) == 0
    assert far(first, second) > 0


async def test_a_picture_is_changed_as_a_whole_or_in_its_hole_only(painter: LocalBackend) -> None:
    original = disc((96, 64))
    (changed,) = await made(painter, prompt="a blue circle", images=(png(original),), extra={"strength": 0.6})
    assert changed.size == (96, 64)
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 48, 64))
    (filled,) = await made(painter, images=(png(original),), mask=png(mask))
    right = (56, 0, 96, 64)
    assert far(filled.crop(right), original.crop(right)) == 0
    assert far(filled, original) > 0


async def test_a_parameter_that_a_pipeline_has_not_is_refused_by_its_name(painter: LocalBackend) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await told(painter, wish(extra={"strength": 0.5}))
    assert (refused.value.param, refused.value.code) == ("strength", "unsupported_parameter")


async def test_whoever_leaves_frees_the_slot_within_a_second(painter: LocalBackend) -> None:
    began = time.monotonic()
    await told(painter, wish(size="64x64"))
    usual_s = time.monotonic() - began
    reached = asyncio.Event()

    async def work() -> None:
        async for _ in stepping(painter):
            reached.set()

    working = asyncio.create_task(work())
    await reached.wait()
    working.cancel()
    await asyncio.wait({working})
    began = time.monotonic()
    await told(painter, wish(size="64x64"))
    assert time.monotonic() - began < usual_s + 1.0
