"""The same small model through diffusers and torch, which is how the large ones run.  Needs the extra `image`."""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from PIL import Image

from backends.local import LocalBackend
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Produced, Progress
from tests.backends.local.painting import disc, far, left_soon_free, made, opened, png, shapes, started, told, wish

_FOUR_LEVELS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
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


def left_open(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return mask


async def test_a_picture_is_changed(painter: LocalBackend) -> None:
    picture = png(disc((96, 64)))
    (changed,) = await made(painter, prompt="a blue circle", images=(picture,), extra={"strength": 0.6})
    assert changed.size == (96, 64)


async def test_a_model_whose_codes_diffusers_cannot_fill_says_so(painter: LocalBackend) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await made(painter, images=(png(disc((96, 64))),), mask=png(left_open((96, 64))))
    assert refused.value.param == "mask"


async def test_a_picture_is_changed_in_its_hole_only(tmp_path: Path) -> None:
    """By the classes that the large ones are of; what they have learned is no matter."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    shipped = Path(shapes("diffusers").path)
    text, words = (
        CLIPTextModel.from_pretrained(shipped / "text_encoder"),
        CLIPTokenizer.from_pretrained(shipped / "tokenizer"),
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        cross_attention_dim=text.config.hidden_size,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, **_FOUR_LEVELS),
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "model", safe_serialization=True)
    original = disc((96, 64))
    async with started(replace(shapes("diffusers"), path=str(tmp_path / "model"))) as backend:
        (filled,) = await made(backend, images=(png(original),), mask=png(left_open((96, 64))))
    right = (56, 0, 96, 64)
    assert far(filled.crop(right), original.crop(right)) == 0
    assert far(filled, original) > 0


async def test_a_parameter_that_a_pipeline_has_not_is_refused_by_its_name(painter: LocalBackend) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await told(painter, wish(extra={"strength": 0.5}))
    assert (refused.value.param, refused.value.code) == ("strength", "unsupported_parameter")


async def test_whoever_leaves_frees_the_slot_within_a_second(painter: LocalBackend) -> None:
    async with left_soon_free(painter):
        pass
