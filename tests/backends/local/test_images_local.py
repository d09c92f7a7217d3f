"""Pictures by the real small model: what is made, what is refused, and how soon everything stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from backends.local import LocalBackend
from compat.canonical.error import GatewayError, InvalidRequest, WorkerCrashed
from compat.canonical.event import Finished, Produced, Progress, Started
from compat.canonical.message import Media
from tests.backends.local.bench import call
from tests.backends.local.painting import (
    disc,
    far,
    left_soon_free,
    made,
    opened,
    png,
    shapes,
    started,
    stepping,
    told,
    wish,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def painter() -> AsyncIterator[LocalBackend]:
    async with started(shapes()) as backend:
        yield backend


async def test_words_become_a_picture_that_shows_them(painter: LocalBackend) -> None:
    (picture,) = await made(painter, size="64x64", extra={"steps": 20})
    centre, corner = (picture.convert("RGB").getpixel(at) for at in ((32, 32), (2, 2)))
    assert isinstance(centre, tuple)
    assert isinstance(corner, tuple)
    assert centre[0] > 130 > 100 > max(centre[1:]), "red in the middle"
    assert min(corner) > 200, "white at the edge"


async def test_the_way_to_a_picture_is_told(painter: LocalBackend) -> None:
    waiting = call()
    events = await told(painter, wish(count=2, size="64x64", previews=2), waiting)
    assert isinstance(events[0], Started)
    assert events[-1] == Finished(reason="stop")
    steps = [(event.step, event.of) for event in events if isinstance(event, Progress)]
    assert steps == [(n, 8) for n in (0, 1, 2, 3, 4, 4, 5, 6, 7, 8)]
    assert (waiting.wait.step, waiting.wait.steps) == (8, 8)
    kinds = [(event.index, event.partial) for event in events if isinstance(event, Produced)]
    assert kinds == [(0, 0), (0, 1), (0, None), (1, 0), (1, 1), (1, None)]
    assert {opened(event).size for event in events if isinstance(event, Produced)} == {(64, 64)}


async def test_a_seed_decides_and_numbers_its_pictures(painter: LocalBackend) -> None:
    first, second = await made(painter, count=2, size="64x64")
    (again,), (next_one,) = await made(painter, size="64x64"), await made(painter, size="64x64", extra={"seed": 8})
    assert far(first, again) == 0
    assert far(second, next_one) == 0
    assert far(first, second) > 0
    assert far((await made(painter, size="64x64", extra={"negative_prompt": "red"}))[0], first) > 0
    assert far(*await made(painter, size="64x64", count=2, extra={"seed": None})) > 0


async def test_a_picture_is_changed_as_a_whole_or_in_its_hole_only(painter: LocalBackend) -> None:
    original = disc((96, 64))
    (changed,) = await made(painter, prompt="a blue circle on a white background", images=(png(original),))
    assert changed.size == (96, 64)
    assert far(changed, original) > 1
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 48, 64))
    (filled,) = await made(painter, images=(png(original),), mask=png(mask))
    right = (56, 0, 96, 64)
    assert far(filled.crop(right), original.crop(right)) == 0
    assert far(filled, original) > 0


@pytest.mark.parametrize("size", ["32x32", "256x256", "384x256", "8x512"])
async def test_a_picture_has_the_size_that_was_asked_for(painter: LocalBackend, size: str) -> None:
    (picture,) = await made(painter, size=size)
    assert f"{picture.width}x{picture.height}" == size


@pytest.mark.parametrize(("kind", "mime"), [("jpeg", "image/jpeg"), ("webp", "image/webp"), ("png", "image/png")])
async def test_a_picture_is_the_kind_of_file_that_was_asked_for(painter: LocalBackend, kind: str, mime: str) -> None:
    events = await told(painter, wish(extra={"output_format": kind, "output_compression": 20}))
    (produced,) = (event for event in events if isinstance(event, Produced))
    assert produced.media.mime == mime
    assert opened(produced).format == kind.upper()


async def test_what_no_local_model_heeds_is_named(painter: LocalBackend) -> None:
    asked = call()
    await told(painter, wish(extra={"quality": "high", "num_inference_steps": 2, "vendor": 1}), asked)
    assert asked.dropped == ["quality", "vendor"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "13x16"}, "size"),
        ({"size": "0x8"}, "size"),
        ({"size": "4096x4096"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": ""}, "size"),
        ({"size": "\u0665\u0661\u0662x512"}, "size"),
        ({"extra": {"steps": "\u0665"}}, "steps"),
        ({"prompt": "x" * 8001}, "prompt"),
        ({"extra": {"steps": 0}}, "steps"),
        ({"extra": {"steps": "1.5"}}, "steps"),
        ({"extra": {"steps": True}}, "steps"),
        ({"extra": {"seed": 2**63}}, "seed"),
        ({"extra": {"guidance": float("nan")}}, "guidance"),
        ({"extra": {"negative_prompt": ["red"]}}, "negative_prompt"),
        ({"extra": {"output_format": "gif"}}, "output_format"),
        ({"images": (Media(mime="image/*", url="https://x/y.png"),)}, "image"),
        ({"images": (Media(mime="image/png", data=b"\x89PNG\r\n\x1a\n but no more"),)}, "image"),
        ({"images": (png(disc()), png(disc()))}, "image"),
        ({"mask": png(Image.new("RGBA", (8, 8)))}, "mask"),
        ({"images": (png(disc()),), "mask": png(disc())}, "mask"),
    ],
)
async def test_what_cannot_be_made_is_refused_by_the_field(
    painter: LocalBackend, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await told(painter, wish(**fields))
    assert refused.value.param == param


async def test_what_is_refused_never_begins(painter: LocalBackend) -> None:
    events = painter.run(wish(mask=png(Image.new("RGBA", (8, 8)))), call())
    with pytest.raises(GatewayError):
        await anext(events)


async def test_a_picture_of_too_many_pixels_is_not_unpacked(painter: LocalBackend) -> None:
    with pytest.raises(InvalidRequest, match="pixels"):
        await told(painter, wish(images=(png(Image.new("1", (5000, 5000))),)))


async def test_whoever_reads_slowly_keeps_nobody_waiting(painter: LocalBackend) -> None:
    async with aclosing(painter.run(wish(count=2, size="256x256", previews=1), call())) as slow, asyncio.timeout(20):
        assert isinstance(await anext(slow), Started)
        assert await made(painter, size="64x64"), "the slot is given back when the work is done"
        kinds = [(event.index, event.partial) async for event in slow if isinstance(event, Produced)]
    assert kinds == [(0, 0), (0, None), (1, 0), (1, None)]


@pytest.mark.parametrize("queued", [False, True])
async def test_whoever_leaves_frees_the_slot_within_a_second(painter: LocalBackend, queued: bool) -> None:
    async with left_soon_free(painter):
        if queued:
            waiting = call()
            second = asyncio.create_task(told(painter, wish(), waiting))
            while waiting.wait.queue_position is None:
                await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.wait({second})


async def test_a_worker_killed_in_the_middle_is_named_and_the_next_request_served(painter: LocalBackend) -> None:
    await told(painter, wish(size="64x64"))

    async def killed() -> None:
        async for _ in stepping(painter):
            process = painter.pool.workers()["shapes"]._process
            assert process is not None
            if process.returncode is None:
                process.kill()

    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        await killed()
    assert await made(painter, size="64x64")


@pytest.mark.parametrize("name", ["pipeline.py", "unet/weights.ckpt"])
async def test_a_folder_that_may_hold_code_is_not_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise AssertionError")
    async with started(shapes(path=tmp_path)) as backend:
        with pytest.raises(WorkerCrashed, match="could not be loaded") as refused:
            await told(backend, wish())
        assert str(tmp_path) not in refused.value.message


async def test_whoever_leaves_while_it_loads_harms_nobody() -> None:
    async with started(shapes()) as backend:
        leaving = asyncio.create_task(told(backend, wish()))
        while backend.pool.status("shapes") != "loading":
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert await made(backend, size="64x64")
