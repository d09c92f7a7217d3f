"""How large a picture is made, and pictures in and out of their files.

A model makes good pictures only of about the size it learned from.  So it works on a canvas of about that area, in
the shape that was asked for, and the picture is then brought to exactly the size asked for.  A toy knows one shape
only: what it makes of words alone is made in that.
"""

import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from backends.local.studio import Refused

PIXELS_MAX = 4096 * 4096
"""Of a picture to change: a small file may hold a large one."""
SMALL = 256
"""Pixels a side: models for less than that are toys, which fail at any size but their own."""
ROOM = 2.0
"""By how much the area of a canvas may differ from what the model learned from."""

MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

Size = tuple[int, int]


def canvas(asked: Size, native: Size, multiple: int) -> Size:
    """Width and height to work at, both multiples of this, for a picture of the size asked for."""
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
        if picture.width * picture.height > PIXELS_MAX:
            raise Image.DecompressionBombError
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except Image.DecompressionBombError as e:
        raise Refused(f"The picture in '{param}' has more than {PIXELS_MAX} pixels.", param) from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise Refused(f"What is in '{param}' is not a picture in PNG, JPEG, WebP, GIF or BMP.", param) from e
    return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


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
    """The picture at this size, undistorted: where it is of another shape, its edges go on to the sides."""
    scale = min(side / own for side, own in zip(size, picture.size, strict=True))
    inner = fitted(picture, (min(size[0], round(picture.width * scale)), min(size[1], round(picture.height * scale))))
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    around = ((top, size[1] - inner.height - top), (left, size[0] - inner.width - left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(inner), around, mode="edge"))


def encoded(picture: Image.Image, body: dict[str, Any]) -> tuple[bytes, str]:
    """The picture as the file that was asked for, and its media type."""
    kind = body.get("output_format") or "png"
    quality = body.get("output_compression")
    options: dict[str, Any] = {} if kind == "png" else {"quality": 90 if quality is None else quality}
    out = io.BytesIO()
    picture.save(out, kind.upper(), **options)
    return out.getvalue(), MIME[kind]
