"""Meshy's wire format: tasks that make meshes, and how they stand.

Sources: https://docs.meshy.ai/api/text-to-3d, /api/image-to-3d, /api/errors and /api/rate-limits.
"""

import base64
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.message import Media
from compat.canonical.request import MeshRequest
from compat.magic import mime_of

PROMPT_MAX = 600
"""Characters."""
CARRIED = frozenset(
    {"auto_size", "decimation_mode", "moderation", "origin_at", "pose_mode", "should_remesh", "target_polycount"}
    | {"topology"}
)
"""What a request may say of the shape, by Meshy's names."""
TEXTURING = frozenset({"enable_pbr", "hd_texture", "remove_lighting", "texture_prompt"})
"""What it may say of the texture, where it wants one."""
_PICTURES = ("image/png", "image/jpeg")
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}").fullmatch
"""A safe part of a path, whatever shape ids have."""
_TELLING = re.compile(r"https?:|[/\\@<>{}]").search

Status = Literal["PENDING", "IN_PROGRESS", "SUCCEEDED", "FAILED", "CANCELED", "EXPIRED"]


class TaskError(Struct, frozen=True):
    type: str | None = None
    message: str | None = None
    code: str | None = None

    @property
    def reason(self) -> str:
        """Its words as a sentence, where they are fit for anybody; else nothing."""
        words = (self.message or "").strip()
        if not words or len(words) > 300 or not words.isprintable() or _TELLING(words):
            return ""
        return words if words.endswith((".", "!", "?")) else f"{words}."


class Task(Struct, frozen=True):
    status: Status
    progress: int = 0
    """In percent."""
    model_urls: dict[str, str] | None = None
    task_error: TaskError | None = None


class _Created(Struct, frozen=True):
    result: str


_read_created = msgspec.json.Decoder(_Created).decode
_read_task = msgspec.json.Decoder(Task).decode


def preview_of(request: MeshRequest, *, textured: bool) -> dict[str, Any]:
    """A task that makes a mesh from words; where it will be textured, that is what gets its size."""
    if len(request.prompt) > PROMPT_MAX:
        raise InvalidRequest(
            f"Meshy takes prompts of {PROMPT_MAX} characters at most.", param="prompt", code="string_above_max_length"
        )
    sized = {} if textured else {"auto_size": True}
    said = {name: value for name, value in request.extra.items() if name in CARRIED}
    return {"mode": "preview", "prompt": request.prompt, **_asked(request), **sized, **said}


def refinement_of(request: MeshRequest, preview: str) -> dict[str, Any]:
    """A task that textures what an earlier one has made."""
    said = {n: v for n, v in request.extra.items() if n in TEXTURING or n in ("auto_size", "origin_at", "moderation")}
    return {"mode": "refine", "preview_task_id": preview, **_asked(request), "auto_size": True, **said}


def depiction_of(request: MeshRequest, picture: Media, *, textured: bool) -> dict[str, Any]:
    """A task that makes a mesh from a picture."""
    said = {name: value for name, value in request.extra.items() if name in CARRIED or (textured and name in TEXTURING)}
    if textured and request.prompt:
        said.setdefault("texture_prompt", request.prompt[:PROMPT_MAX])
    return {
        "image_url": _url_of(picture),
        "should_texture": textured,
        **_asked(request),
        "auto_size": True,
        **said,
    }


def parse_created(body: bytes) -> str:
    """The id of a new task.  Raises BadResponse."""
    try:
        id_ = _read_created(body).result
    except (msgspec.DecodeError, RecursionError) as e:
        raise BadResponse("Meshy did not say which task it has begun.") from e
    if _ID(id_) is None:
        raise BadResponse("Meshy named its task by what is no id.")
    return id_


def parse_task(body: bytes) -> Task:
    """How a task stands.  Raises BadResponse."""
    try:
        return _read_task(body)
    except (msgspec.DecodeError, RecursionError) as e:
        raise BadResponse("Meshy did not say how its task stands.") from e


def _asked(request: MeshRequest) -> dict[str, Any]:
    return {"ai_model": request.model, "target_formats": ["glb"]}


def _url_of(picture: Media) -> str:
    if picture.data is None:
        return picture.url or ""
    mime = mime_of(picture.data)
    if mime not in _PICTURES:
        raise InvalidRequest("Meshy takes pictures as PNG or JPEG.", param="image", code="unsupported_value")
    return f"data:{mime};base64,{base64.b64encode(picture.data).decode()}"
