"""What a studio is asked to make: a request for pictures or a mesh as the body of its job.

A parameter may come as text, which is all that a form can say.  Invariant: what leaves here is within
bounds that are the same for every engine; what an engine or a model cannot do, the engine refuses itself.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from backends.local.studio import PIXELS_MAX, SIDE_MAX
from backends.local.studio.field import RESOLUTION_MAX, RESOLUTION_MIN
from backends.ports import Local
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Value
from compat.canonical.plain import telling
from compat.canonical.request import ImageRequest, MeshRequest

SIDE_STEP = 8
"""A picture's sides are multiples of it: models work on squares of so many pixels."""
PROMPT_MAX = 8000
"""Characters; the models themselves read less."""

_STEP_BYTES = 3 * 64 * 1024
"""Of a picture, encoded at once: in a thread others have their turn between two."""

Json = dict[str, Any]

_write = msgspec.json.Encoder().encode
_size = re.compile(r"([0-9]{1,5})x([0-9]{1,5})").fullmatch
_numeral = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)").fullmatch


class _Number(Value, frozen=True):
    least: float
    most: float
    whole: bool = True

    def read(self, name: str, given: Any) -> int | float:
        """Raises InvalidRequest."""
        kind = int if self.whole else float
        spelled = isinstance(given, int) or (isinstance(given, str) and _numeral(given))
        try:
            value = kind(given) if spelled else given
        except (ValueError, OverflowError):
            value = None
        if isinstance(given, bool) or not isinstance(value, (kind, int)) or not self.least <= value <= self.most:
            what = "a whole number" if self.whole else "a number"
            raise _invalid(name, f"expected {what} from {self.least} to {self.most}")
        return value


class _Word(Value, frozen=True):
    words: tuple[str, ...] = ()
    """Those there are; none: any text."""

    def read(self, name: str, given: Any) -> str:
        """Raises InvalidRequest."""
        if not isinstance(given, str) or len(given) > PROMPT_MAX:
            raise _invalid(name, f"expected text of at most {PROMPT_MAX} characters")
        if self.words and given not in self.words:
            raise _invalid(name, f"expected one of {', '.join(self.words)}")
        return given


_ALIKE = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
"""Other names by which clients know a parameter."""
_SEED = _Number(least=0, most=2**63 - 1)
_STEPS = _Number(least=1, most=500)
_GUIDANCE = _Number(least=0, most=100, whole=False)
_PICTURE: Mapping[str, _Number | _Word] = {
    "seed": _SEED,
    "steps": _STEPS,
    "guidance": _GUIDANCE,
    "negative_prompt": _Word(),
    "strength": _Number(least=0.01, most=1, whole=False),
    "output_format": _Word(words=("png", "jpeg", "webp")),
    "output_compression": _Number(least=0, most=100),
}
_MESH: Mapping[str, _Number | _Word] = {
    "seed": _SEED,
    "steps": _STEPS,
    "guidance": _GUIDANCE,
    "resolution": _Number(least=16, most=256),
}
"""Of Shap-E."""
_FIELD = {"seed": _SEED, "resolution": _Number(least=RESOLUTION_MIN, most=RESOLUTION_MAX)}
"""Of our own, which work in no steps."""


def parameters(local: Local) -> Mapping[str, _Number | _Word]:
    """What a model of pictures or meshes may be told besides what is wanted."""
    if local.model.modality == "image":
        return _PICTURE
    return _FIELD if local.format == "field" else _MESH


def bounds(local: Local) -> dict[str, Json]:
    """The same in words of JSON Schema, and what sizes there are: what `order` holds a request to."""
    out: dict[str, Json] = {}
    for name, rule in parameters(local).items():
        if isinstance(rule, _Number):
            out[name] = {"minimum": rule.least, "maximum": rule.most}
        elif rule.words:
            out[name] = {"enum": list(rule.words)}
    if local.model.modality == "image":
        out["size"] = {"side_multiple_of": SIDE_STEP, "side_maximum": SIDE_MAX, "pixels_maximum": PIXELS_MAX}
    return out


def order(request: ImageRequest | MeshRequest, local: Local) -> tuple[Json, tuple[str, ...]]:
    """The body of the job, and the client's names for what it leaves out.  Raises InvalidRequest."""
    if len(request.prompt) > PROMPT_MAX:
        raise _invalid("prompt", f"expected at most {PROMPT_MAX} characters")
    if isinstance(request, MeshRequest):
        given = request.extra if request.seed is None else {**request.extra, "seed": request.seed}
        more, lost = _parameters(given, local)
        picture = _encoded(request.image, "image") if request.image is not None else None
        return {"prompt": request.prompt, "image": picture, **more}, lost
    more, lost = _parameters(request.extra, local)
    usual = None if request.images else local.defaults.get("size")
    lost += ("user",) if request.user else ()
    body = {
        "prompt": request.prompt,
        "n": request.count,
        "size": _sides(usual if request.size is None else request.size),
        "previews": request.previews,
        "images": [_encoded(one, "image") for one in request.images],
        "mask": _encoded(request.mask, "mask") if request.mask is not None else None,
    }
    return body | more, lost


def _parameters(extra: Json, local: Local) -> tuple[Json, tuple[str, ...]]:
    known = parameters(local)
    defaults = {name: value for name, value in local.defaults.items() if name in known}
    told = telling(extra)
    read = {name: _ALIKE.get(name, name) for name in told}
    given = {to: known[to].read(name, extra[name]) for name, to in read.items() if to in known}
    return defaults | given, tuple(name for name, to in read.items() if to not in known)


def _sides(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    found = _size(size)
    if found is None:
        raise _invalid("size", "expected WIDTHxHEIGHT in pixels, such as 512x512, or auto")
    width, height = int(found[1]), int(found[2])
    if width % SIDE_STEP or height % SIDE_STEP or not width or not height:
        raise _invalid("size", f"width and height must be multiples of {SIDE_STEP}")
    if max(width, height) > SIDE_MAX or width * height > PIXELS_MAX:
        raise _invalid("size", f"at most {SIDE_MAX} pixels a side and {PIXELS_MAX} in all are made here")
    return width, height


def _encoded(media: Media, name: str) -> Raw:
    """Its bytes as JSON: base64, which nothing has to look at again."""
    if media.data is None:
        raise InvalidRequest(
            f"Invalid value for '{name}': the picture must come with the request, as a file or a data URL.",
            param=name,
            code="unsupported_value",
        )
    pieces = [base64.b64encode(media.data[n : n + _STEP_BYTES]) for n in range(0, len(media.data), _STEP_BYTES)]
    return Raw(b'"%b"' % b"".join(pieces))


def written(body: Json) -> bytes:
    """The body as it is sent: what is large is copied once, and not encoded with the rest."""
    pictures = {name: body[name] for name in ("image", "images", "mask") if body.get(name)}
    pieces: list[bytes | Raw] = [_write({name: value for name, value in body.items() if name not in pictures})[:-1]]
    for name, value in pictures.items():
        several = value if isinstance(value, list) else [value]
        pieces.append(b',"%b":%b' % (name.encode(), b"[" if several is value else b""))
        for n, one in enumerate(several):
            pieces += (b"," if n else b"", one)
        pieces.append(b"]" if several is value else b"")
    return b"".join((*pieces, b"}"))


def size_bytes(request: ImageRequest | MeshRequest) -> int:
    """Of the pictures that come along."""
    given = [request.image] if isinstance(request, MeshRequest) else [*request.images, request.mask]
    return sum(len(one.data) for one in given if one is not None and one.data is not None)


def _invalid(name: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{name}': {expected}.", param=name, code="invalid_value")
