"""The bodies of POST /v1/3d/generations, both directions (docs/3d.md).

A backend makes a mesh as GLB; the house converts it, measures it and draws a poster of it, and says so in the
`extra` of each file's media (`Finished.put`).
"""

import hashlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, decode_raw, kind_of, missing, read, read_fields
from compat.canonical.error import BadResponse, GatewayError, InvalidRequest
from compat.canonical.event import Event, Finished, Produced, Progress, Result, Started
from compat.canonical.message import GLB, Media, Stored
from compat.canonical.request import Envelope, MeshRequest
from compat.magic import mime_of
from compat.openai.envelope import envelope
from compat.openai.error import render_error
from compat.openai.limits import Limits
from compat.openai.part import media_of_url, url_of_made, url_of_media
from compat.sse import frame

Format = Literal["glb", "obj", "ply", "stl"]
MIMES: dict[Format, str] = {"glb": GLB, "obj": "model/obj", "ply": "model/ply", "stl": "model/stl"}
"""Of the formats there are; PLY's is not registered, but commonly used."""
SEED_MAX = 2**63 - 1
LIMITS: Limits = {"seed": (0, SEED_MAX)}

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "prompt": ("string",),
    "image": ("string",),
    "output_formats": ("array",),
    "seed": ("number",),
    "response_format": ("string",),
    "stream": ("boolean",),
    "user": ("string",),
}
"""What the fields that are looked at may be in JSON, besides null."""


class MeshBody(Struct):
    """What is read of a request; other fields are the engine's own parameters (`steps`, `guidance`, `resolution`)."""

    model: str | None = None
    prompt: str | None = None
    image: str | None = None
    """A `data:` or `https:` URL, or an artifact's id."""
    output_formats: list[Format] | None = None
    seed: int | None = None
    response_format: Literal["url", "b64_json"] | None = None
    stream: bool | None = None
    """Only where the client accepts `text/event-stream`."""
    user: str | None = None


class Facts(Struct, frozen=True):
    """What a mesh is."""

    vertices: int
    faces: int
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Its lowest and its highest corner, in metres."""
    watertight: bool
    """It has an inside: every edge belongs to two faces, which are wound alike."""


class MeshFile(Struct, kw_only=True, omit_defaults=True):
    """One file of an answer."""

    id: str | None = None
    """The artifact's; none where the bytes came along instead."""
    url: str | None = None
    """Signed: whoever has it gets the file."""
    expires_at: str | None = None
    """Of the URL; ISO 8601, UTC."""
    b64_json: str | None = None
    format: str
    bytes: int
    sha256: str
    mesh: Facts
    poster_url: str | None = None
    """A PNG."""


class MeshAnswer(Struct):
    created: int
    """Seconds since 1970, UTC."""
    data: list[MeshFile]


_read = msgspec.json.Decoder(MeshBody)
_write = msgspec.json.Encoder().encode


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    given = [name for name in ("prompt", "image") if name in fields and kind_of(fields[name]) != "null"]
    if not given:
        raise missing("prompt")
    if len(given) > 1:
        raise InvalidRequest("Give either 'prompt' or 'image', not both.", param="image", code="invalid_value")
    return envelope("3d", fields, body)


def named_picture(asked: Envelope) -> str | None:
    """The URL or the artifact's id that stands for the picture; None where the request holds it, or has none."""
    raw = asked.fields.get("image", Raw(b"null"))
    place: str | None = None if bytes(raw).startswith(b'"data:') else decode_raw(raw)
    return None if place is None or place.startswith("data:") else place


def parse_request(asked: Envelope, given: Media | None = None) -> MeshRequest:
    """Read a request whole.  Raises InvalidRequest.

    given: the picture, where the request only names it.
    """
    body = read(asked.body, _read)
    return MeshRequest(
        model=asked.model,
        prompt="" if body.prompt is None else prompt(body.prompt, "prompt"),
        image=given if given is not None or body.image is None else picture(body.image, "image"),
        seed=seed(body.seed, "seed"),
        user=body.user or None,
        extra={name: decode_raw(raw) for name, raw in asked.fields.items() if name not in KINDS},
    )


def prompt(given: str, name: str) -> str:
    """The prompt that a client calls `name`.  Raises InvalidRequest."""
    if not given.strip():
        raise _invalid(name, "it is empty")
    return given


def seed(given: int | None, name: str) -> int | None:
    """Raises InvalidRequest."""
    if given is not None and not 0 <= given <= SEED_MAX:
        raise _invalid(name, "expected a number from 0 to 2^63 - 1")
    return given


def picture(url: str, name: str) -> Media:
    """Whether a picture can be had by its URL, the backend knows.  Raises InvalidRequest."""
    media = media_of_url(url, name, "image/*", {})
    if media.data is None:
        if not url.startswith(("https://", "http://")):
            raise _invalid(name, "expected a picture as a data URL")
        return media
    mime = mime_of(media.data)
    if mime is None:
        raise _invalid(name, "not a picture; PNG, JPEG, WebP, GIF, BMP and TIFF are")
    return msgspec.structs.replace(media, mime=mime)


def formats_of(asked: Sequence[Format] | None, name: str) -> tuple[Format, ...]:
    """The formats that are asked for, each once; GLB where none are.  Raises InvalidRequest."""
    if asked is not None and not asked:
        raise _invalid(name, f"expected at least one of {', '.join(MIMES)}")
    return tuple(dict.fromkeys(asked or ("glb",)))


def encoded(asked: Envelope) -> bool:
    """Whether the files are to come along, instead of URLs for them."""
    raw = asked.fields.get("response_format")
    return raw is not None and decode_raw(raw) == "b64_json"


def formats(asked: Envelope) -> tuple[Format, ...]:
    """Raises InvalidRequest."""
    return formats_of(read(asked.body, _read).output_formats, "output_formats")


def accepts_progress(asked: Envelope) -> bool:
    """Whether its client says that it takes events: a stream is then no surprise."""
    return "text/event-stream" in asked.headers.get("accept", "").lower()


def made(format_: Format, data: bytes, facts: Facts, poster: bytes | None) -> Media:
    """A finished mesh in one format."""
    about: dict[str, Any] = {"format": format_, "mesh": facts}
    if poster is not None:
        about["poster"] = poster
    return Media(mime=MIMES[format_], data=data, name=f"mesh.{format_}", extra=about)


def poster_url(media: Media) -> str | None:
    """The picture of a finished mesh."""
    stored: Stored | None = media.extra.get("stored")
    if stored is not None:
        return stored.poster_url
    poster = media.extra.get("poster")
    return None if poster is None else url_of_media(Media(mime="image/png", data=poster))


def render_result(result: Result, asked: Envelope) -> bytes:
    """Write finished meshes as the body of an answer."""
    return _write(_answer(result.started.created, result.produced, asked))


async def render_events(events: AsyncGenerator[Event, None], asked: Envelope) -> AsyncGenerator[bytes, None]:
    """Write a mesh on its way as SSE frames: `progress`, then `completed` with the whole answer."""
    created, files, whole = 0, list[Produced](), False
    async with aclosing(events):
        async for event in events:
            match event:
                case Started(created=created):
                    pass
                case Progress():
                    yield render_progress(event)
                case Produced(partial=None):
                    files.append(event)
                case Finished():
                    whole = True
    if not whole:
        raise BadResponse("The backend's answer ended before it was complete.")
    yield frame(_write(_answer(created, files, asked)), "completed")


def render_progress(event: Progress) -> bytes:
    """Of 0 steps: nobody knows how many there will be."""
    return frame(_write({"step": event.step, "of": event.of, "stage": event.stage}), "progress")


class Errors:
    """How an error is written."""

    def body(self, error: GatewayError) -> bytes:
        return render_error(error)

    def frame(self, error: GatewayError) -> bytes:
        return frame(render_error(error), "error")


def _answer(created: int, files: Sequence[Produced], asked: Envelope) -> MeshAnswer:
    whole = encoded(asked)
    return MeshAnswer(created=created, data=[_file(one.media, whole) for one in files])


def iso(at: float) -> str:
    """A moment (seconds since 1970, UTC) as ISO 8601."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _file(media: Media, whole: bool) -> MeshFile:
    assert media.data is not None, "finished meshes are bytes"
    stored: Stored | None = media.extra.get("stored")
    return MeshFile(
        id=None if stored is None else stored.id,
        url=None if whole else url_of_made(media),
        expires_at=None if stored is None else iso(stored.expires_at),
        b64_json=b64encode(media.data).decode() if whole else None,
        format=media.extra["format"],
        bytes=len(media.data),
        sha256=hashlib.sha256(media.data).hexdigest() if stored is None else stored.sha256,
        mesh=media.extra["mesh"],
        poster_url=poster_url(media),
    )


def _invalid(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{name}': {why}.", param=name, code="invalid_value")
