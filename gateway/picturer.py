"""The program of a child process that looks at one picture: whether it opens, how large it is, and as what else it is
wanted.

The parent (`artifacts.conversion`) asks by a line of JSON, {"format"}, and the picture; the answer is a line of JSON,
{"width", "height"} or {"refused": why}, then the converted picture if one was asked for.  Pictures come from strangers,
so it may use so much memory and time and no more.
"""

import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backends.bounds import serve

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MEMORY_MAX_BYTES = 2 * 1024**3
CPU_MAX_S = 30
PIXELS_MAX = 64 * 1024 * 1024
READ = ("PNG", "JPEG", "WEBP", "GIF")
SIDES_MAX = {"webp": 16_383, "jpeg": 65_500}
"""Pixels of a side that a format can hold."""
SAVED: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG", "quality": 90},
    "webp": {"format": "WEBP", "quality": 90},
}


class Refused(Exception):
    """Says why, in words for clients."""


def answered(asked: bytes) -> Iterator[bytes]:
    """A picture looked at, as the parent reads it."""
    line, _, data = asked.partition(b"\n")
    made = b""
    try:
        picture = opened(data)
        head: dict[str, Any] = {"width": picture.width, "height": picture.height}
        if (wanted := json.loads(line)["format"]) is not None:
            made = converted(picture, wanted)
    except Refused as e:
        head = {"refused": str(e)}
    except MemoryError:
        head = {"refused": "it takes too much memory"}
    yield json.dumps(head).encode() + b"\n"
    yield made


def opened(data: bytes) -> "Picture":
    """The picture, or the first of its pictures, decoded and the right way up.  Raises Refused."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # ours are counted before anything is decoded
    try:
        picture = Image.open(io.BytesIO(data), formats=READ)
        if picture.width * picture.height > PIXELS_MAX:
            raise Refused(f"it has more than {PIXELS_MAX} pixels")
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (Refused, MemoryError):
        raise
    except Exception as e:  # the bytes are a stranger's: whatever is wrong with them, it is not ours
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        raise Refused("it is damaged, or no PNG, JPEG, WebP or GIF") from e


def converted(picture: "Picture", wanted: str) -> bytes:
    """In another format, with its colours' profile and nothing else of what was said in it.  Raises Refused."""
    if max(picture.size) > SIDES_MAX.get(wanted, sys.maxsize):
        raise Refused(f"{wanted} has no room for more than {SIDES_MAX[wanted]} pixels a side")
    profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA", "P") else None
    plain = _plain(picture)
    if wanted == "jpeg" and plain.mode == "RGBA":
        plain = _on_white(plain)
    file = io.BytesIO()
    plain.save(file, icc_profile=profile, **SAVED[wanted])
    return file.getvalue()


def _plain(picture: "Picture") -> "Picture":
    """In eight bits a channel: RGBA where anything may be seen through, else RGB."""
    if picture.mode.startswith("I"):  # 16 bits, which a plain conversion cuts off at 255
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _on_white(picture: "Picture") -> "Picture":
    from PIL import Image

    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


if __name__ == "__main__":
    serve(answered, memory_max_bytes=MEMORY_MAX_BYTES, cpu_max_s=CPU_MAX_S)
