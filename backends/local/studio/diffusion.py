"""The engines that make pictures, as a studio's child process runs them: diffusers with torch, or ONNX graphs without.

They differ in how one picture is painted on a canvas (a `Painter`); what is common to all is here: the order
in which pictures are made, sizes, previews, masks, files.
"""

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol

from PIL import Image

from backends.local import studio
from backends.local.studio import Job, Refused, Report
from backends.local.studio.canvas import (
    Size,
    canvas,
    encoded,
    fitted,
    hole,
    is_toy,
    opaque,
    read_picture,
    shrunk,
    spread,
)

Look = Callable[[], Image.Image | None]
"""Shows the picture as it is by now; None where this engine cannot."""
Tick = Callable[[int, int, Look], None]
"""Told after each step, and once before the first: how many are done, of how many.  Raises Cancelled."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one picture is to be.  None takes what the model takes by itself."""

    prompt: str
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    """How much of `picture` may change, 0 to 1."""
    picture: Image.Image | None = None
    """To be changed; RGB, as large as the canvas."""
    hole: Image.Image | None = None
    """White where it is to change; as large as the canvas."""


class Painter(Protocol):
    """A model in memory."""

    native: Size
    """Of the pictures that it learned from."""
    multiple: int
    """Pixels by which its canvas grows."""

    def paint(self, wish: Wish, size: Size, seed: int, tick: Tick) -> Image.Image:
        """One picture, the same for the same seed.  Raises Refused for what this model cannot do, and what `tick`
        raises."""
        ...


def serve(spec: dict[str, Any], report: Report) -> NoReturn:
    folder = Path(spec["path"])
    check_folder(folder)
    painter: Painter = import_module(_MODULES[spec["engine"]]).load(folder, spec)
    studio.serve(spec, report, partial(make, painter))


_MODULES = {"onnx": "backends.local.studio.graphs", "diffusers": "backends.local.studio.pipeline"}


def check_folder(folder: Path) -> None:
    """Raises ValueError for one that holds code, or weights in a format that can hold some."""
    for file in folder.rglob("*"):
        if file.suffix in _CODE:
            raise ValueError(f"the folder holds {file.name}, and nothing that is or may hold code is loaded")


_CODE = frozenset({".py", ".pyc", ".so", ".pkl", ".pickle", ".pt", ".pth", ".ckpt"})


def make(painter: Painter, job: Job) -> None:
    """Make the pictures of a job, one after the other."""
    body = job.body
    if len(body["images"]) > 1:
        raise Refused("This model changes one picture at a time.", "image", "unsupported_value")
    original = read_picture(_decoded(body["images"][0]), "image") if body["images"] else None
    size = _size(body, original, painter)
    alone = original is None and is_toy(painter.native)
    room = painter.native if alone else canvas(size, painter.native, painter.multiple)
    mask = read_picture(_decoded(body["mask"]), "mask") if body["mask"] is not None else None
    if mask is not None and original is None:
        raise Refused("A mask is for a picture that is to be changed.", "mask")
    wish = Wish(
        prompt=body["prompt"],
        negative_prompt=body.get("negative_prompt"),
        steps=body.get("steps"),
        guidance=body.get("guidance"),
        strength=body.get("strength"),
        picture=opaque(original, room) if original is not None else None,
        hole=hole(mask, room) if mask is not None else None,
    )
    seed, count = body.get("seed"), body["n"]
    first = secrets.randbits(32) if seed is None else seed

    def finished(made: Image.Image) -> tuple[bytes, str]:
        made = spread(made, size) if alone else fitted(made, size)
        if original is not None and mask is not None:
            # What was not to change stays as it was, to the pixel.
            made = Image.composite(made, opaque(original, size), hole(mask, size))
        return encoded(made, body)

    for index in range(count):
        tick = _ticker(job, index, finished)
        job.made(*finished(painter.paint(wish, room, first + index, tick)), index)


def _ticker(job: Job, index: int, finished: Callable[[Image.Image], tuple[bytes, str]]) -> Tick:
    """Reports the steps of one picture among all, with as many previews on the way as are wanted."""
    wanted, count = job.body["previews"], job.body["n"]
    shown = 0

    def tick(done: int, of: int, look: Look) -> None:
        nonlocal shown
        job.step(index * of + done, count * of)
        due = min(wanted, (wanted + 1) * done // of) if done < of else shown
        if done and due > shown and (seen := look()) is not None:
            job.preview(*finished(seen), index, shown)
            shown += 1

    return tick


def _size(body: dict[str, Any], original: Image.Image | None, painter: Painter) -> Size:
    """Of the pictures that are sent: as asked for, or as large as the one to change as far as that is made here, or as
    the model makes them."""
    if body["size"] is not None:
        width, height = body["size"]
        return width, height
    return painter.native if original is None else shrunk(original.size)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise Refused("The picture is not base64.", "image") from e
