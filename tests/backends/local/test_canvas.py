"""Sizes that are asked for, pictures that are handed in, and what becomes of a toy's square ones."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from backends.local.studio import PIXELS_MAX, SIDE_MAX, Refused
from backends.local.studio.canvas import LONG, canvas, read_picture, shrunk, spread


def jpeg(exif: bytes = b"") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and is small."""
    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + head + zlib.crc32(head).to_bytes(4) + b"\x00\x00\x00\x00IDAT"


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ((1, 16_777_216), "at most 8192 pixels a side"),
        ((8200, 2000), "at most 8192 pixels a side"),
        ((5000, 5000), "16777216 pixels in all"),
        ((30_000, 30_000), "at most 8192 pixels a side"),
        ((100, 801), "more than 8 times"),
    ],
)
def test_a_picture_too_large_or_too_long_is_refused_unread(size: tuple[int, int], why: str) -> None:
    with pytest.raises(Refused, match=f"'image'.*{why}") as refused:
        read_picture(claiming(*size), "image")
    assert refused.value.error["param"] == "image"


ODD = b"Exif\0\0MM\0*\0\0\0\x08\0\2\1\0\0\2\0\0\0\6\0\0\0&\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0hello\0"
"""An orientation beside a width that is said in letters."""


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", jpeg()[:200], jpeg(ODD)])
def test_whatever_breaks_the_reader_is_the_files_fault(data: bytes) -> None:
    with pytest.raises(Refused, match="'mask' is not a picture") as refused:
        read_picture(data, "mask")
    assert refused.value.error["param"] == "mask"


@pytest.mark.parametrize(
    ("size", "made"),
    [((640, 480), (640, 480)), ((4096, 3000), (2392, 1752)), ((8000, 1000), (4096, 512)), ((4096, 4096), (2048, 2048))],
)
def test_what_is_made_of_a_large_picture_is_within_the_limits(size: tuple[int, int], made: tuple[int, int]) -> None:
    width, height = shrunk(size)
    assert (width, height) == pytest.approx(made, abs=2)
    assert max(width, height) <= SIDE_MAX
    assert width * height <= PIXELS_MAX


@pytest.mark.parametrize("asked", [(8, 4096), (4096, 8), (512, 512), (2048, 2048)])
@pytest.mark.parametrize("native", [64, 512])
def test_a_canvas_is_of_a_bounded_shape_and_area(asked: tuple[int, int], native: int) -> None:
    width, height = canvas(asked, (native, native), 16)
    assert max(width, height) <= 1.5 * LONG * min(width, height)
    assert width * height <= 3 * native**2


@pytest.mark.parametrize("size", [(384, 192), (1536, 1024), (256, 512), (8, 512)])
@pytest.mark.parametrize("ground", [(10, 20, 30), (250, 180, 220)])
def test_a_square_picture_goes_over_into_its_ground_without_seams(
    size: tuple[int, int], ground: tuple[int, int, int]
) -> None:
    drawn = Image.new("RGB", (64, 64), (128, 0, 0))  # the frame that decoders leave
    drawn.paste(ground, (1, 1, 63, 63))
    drawn.paste((255, 255, 255), (24, 24, 40, 40))
    pixels = np.asarray(spread(drawn, size)).astype(int)
    assert pixels.shape == (size[1], size[0], 3)
    assert abs(pixels[size[1] // 2, size[0] // 2] - 255).max() < 40, "what was drawn is in the middle"
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert abs(edge - ground).max() <= 8, "all around is the ground's colour"


def test_a_toys_picture_at_its_own_size_is_left_alone() -> None:
    drawn = Image.new("RGB", (64, 64), "red")
    assert spread(drawn, (64, 64)) is drawn
