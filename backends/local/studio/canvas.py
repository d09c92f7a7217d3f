"""How large a picture is made, and pictures in and out of their files.

A model makes good pictures only of about the size it learned from.  So it works on a canvas of about that area, in
the shape that was asked for, and the picture is then brought to exactly the size asked for.  A toy knows one shape
only: what it makes of words alone is made in that.
"""

import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from backends.local.studio import PIXELS_MAX, SIDE_MAX, Refused

ORIGINAL_SIDE_MAX, ORIGINAL_PIXELS_MAX = 8192, 4096 * 4096
"""Of a picture to change: a small file may hold a large one."""
LONG = 8
"""How many times its shorter side the longer one of a canvas, or of a picture to change, may be."""
SMALL = 256
"""Pixels a side: models for less than that are toys, which fail at any size but their own."""
ROOM = 2.0
"""By how much the area of a canvas may differ from what the model learned from."""

FRAME, SOFT = 0.03, 0.15
"""Of the shorter side of a toy's picture: how wide an edge it loses, and how wide it fades into the ground."""

MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

Size = tuple[int, int]


def canvas(asked: Size, native: Size, multiple: int) -> Size:
    """Width and height to work at, both multiples of this, for a picture of the size asked for."""
    least = max(asked) / LONG
    asked = max(asked[0], math.ceil(least)), max(asked[1], math.ceil(least))
    area = native[0] * native[1]
    room = 1.0 if is_toy(native) else ROOM
    goal = min(max(asked[0] * asked[1], area / room), area * room)
    scale = math.sqrt(goal / (asked[0] * asked[1]))
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in asked)
    return width, height


def is_toy(native: Size) -> bool:
    return min(native) < SMALL


def read_picture(data: bytes, param: str) -> Image.Image:
    """Upright, with its transparency if it has any.  Raises Refused."""
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP"))
        _check_size(picture.size, param)
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (MemoryError, Refused):
        raise
    except Image.DecompressionBombError as e:
        raise _too_large(param) from e
    except Exception as e:
        # A broken file breaks its reader in ways of its own: whatever it is, it is the file's fault.
        raise Refused(f"What is in '{param}' is not a picture in PNG, JPEG, WebP, GIF or BMP.", param) from e


def _check_size(size: Size, param: str) -> None:
    if max(size) > ORIGINAL_SIDE_MAX or size[0] * size[1] > ORIGINAL_PIXELS_MAX:
        raise _too_large(param)
    if max(size) > LONG * min(size):
        raise Refused(f"The picture in '{param}' is more than {LONG} times as long as it is wide; crop it.", param)


def _too_large(param: str) -> Refused:
    return Refused(
        f"The picture in '{param}' is too large: at most {ORIGINAL_SIDE_MAX} pixels a side and {ORIGINAL_PIXELS_MAX} "
        "pixels in all are read here; shrink it.",
        param,
    )


def shrunk(size: Size) -> Size:
    """This size, or the largest in its shape that is made here."""
    scale = min(1.0, SIDE_MAX / max(size), math.sqrt(PIXELS_MAX / (size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def opaque(picture: Image.Image, size: Size) -> Image.Image:
    """The picture without transparency, white behind it, at this size."""
    if picture.mode == "RGBA":
        behind = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(behind, picture)
    return fitted(picture.convert("RGB"), size)


def hole(mask: Image.Image, size: Size) -> Image.Image:
    """White where the picture is to change, which is where OpenAI's mask is transparent.  Raises Refused."""
    if mask.mode != "RGBA":
        raise Refused("The mask must have an alpha channel: it is transparent where the picture is to change.", "mask")
    return ImageOps.invert(mask.getchannel("A")).resize(size, Image.Resampling.BILINEAR)


def fitted(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def spread(picture: Image.Image, size: Size) -> Image.Image:
    """A toy's picture at this size, undistorted: where it is of another shape, it fades into a plain ground."""
    if picture.size == size:
        return picture
    # At its very edge, where a decoder sees nothing beyond, the colours are off.
    frame = max(1, round(min(picture.size) * FRAME))
    picture = ImageOps.crop(picture, frame)
    scale = min(side / own for side, own in zip(size, picture.size, strict=True))
    inner = fitted(picture, (min(size[0], round(picture.width * scale)), min(size[1], round(picture.height * scale))))
    ground = Image.new("RGB", size, _ground(picture))
    ground.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2), _faded(inner.size, size))
    return ground


def _ground(picture: Image.Image) -> tuple[int, ...]:
    """The colour that is usual at the edges of a picture."""
    pixels = np.asarray(picture)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(level) for level in np.median(edges, axis=0))


def _faded(inner: Size, size: Size) -> Image.Image:
    """How much of a picture is seen on its ground: all of it but for the edges that lie within the size."""
    soft = max(1.0, min(inner) * SOFT)
    weights = []
    for own, side in zip(inner, size, strict=True):
        inwards = np.minimum(np.arange(own), np.arange(own)[::-1]) + 0.5
        weights.append(np.minimum(1.0, inwards / soft) if own < side else np.ones(own))
    return Image.fromarray(np.round(255 * np.outer(weights[1], weights[0])).astype(np.uint8))


def encoded(picture: Image.Image, body: dict[str, Any]) -> tuple[bytes, str]:
    """The picture as the file that was asked for, and its media type."""
    kind = body.get("output_format") or "png"
    quality = body.get("output_compression")
    options: dict[str, Any] = {} if kind == "png" else {"quality": 90 if quality is None else quality}
    out = io.BytesIO()
    picture.save(out, kind.upper(), **options)
    return out.getvalue(), MIME[kind]
