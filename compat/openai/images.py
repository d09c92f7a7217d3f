"""OpenAI's images: requests to make and to edit them.

Sources: https://platform.openai.com/docs/api-reference/images/create and …/images/createEdit.  An edit
comes as a form with files, or as JSON whose `images` are data URLs.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import (
    CREDENTIAL_FIELDS,
    check_kinds,
    credential,
    decode_raw,
    kind_of,
    missing,
    read,
    read_fields,
    whole_number,
)
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media
from compat.canonical.request import Dialect, Envelope, ImageRequest
from compat.form import Field, Form, read_form
from compat.magic import mime_of
from compat.openai.envelope import envelope
from compat.openai.limits import check_word
from compat.openai.part import media_of_url

LIMITS = {"n": (1, 10), "partial_images": (0, 3)}
"""Pictures in one request, and partial images of one picture: OpenAI's own limits."""

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "prompt": ("string",),
    "n": ("number",),
    "size": ("string",),
    "quality": ("string",),
    "style": ("string",),
    "background": ("string",),
    "moderation": ("string",),
    "output_format": ("string",),
    "output_compression": ("number",),
    "response_format": ("string",),
    "input_fidelity": ("string",),
    "stream": ("boolean",),
    "partial_images": ("number",),
    "user": ("string",),
    "images": ("array",),
}
"""What the fields that are looked at may be in JSON, besides null."""
_image = re.compile(r"image(\[\d*\])?").fullmatch
"""`image` once, or `image[]` several times, as OpenAI's SDKs send it; some clients number them."""
_SINGLE = frozenset(KINDS) | {"mask"}
_CARRIED = frozenset(
    {"model", "prompt", "n", "size", "user", "image", "images", "mask", "stream", "partial_images", "response_format"}
)
"""What the internal model says, or whoever writes the answer sees to."""
PLACES = ("url", "b64_json")


class ImagesRequest(Struct):
    """What is read of a request when it has to be translated."""

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    moderation: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    response_format: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    user: str | None = None


class ImageRef(Struct):
    """A picture by its place; a data URL is the picture itself."""

    image_url: str | None = None
    file_id: str | None = None


class ImageEditRequest(ImagesRequest):
    """What is read of an edit that comes as JSON."""

    images: list[ImageRef] | None = None
    mask: ImageRef | None = None
    input_fidelity: str | None = None


_read_request = msgspec.json.Decoder(ImagesRequest)
_read_edit = msgspec.json.Decoder(ImageEditRequest)
_encode = msgspec.json.Encoder().encode
_NONE: Mapping[str, Media] = {}


def peek(body: bytes) -> Envelope:
    """Read as much of a request to make pictures as routing needs.  Raises InvalidRequest."""
    return _peeked("images", body)


def peek_edit(body: bytes) -> Envelope:
    """Read as much of an edit in JSON as routing needs.  Raises InvalidRequest."""
    found = _peeked("image_edits", body)
    if not any(name in found.fields for name in ("images", "image")):
        raise missing("images")
    return found


def peek_edit_form(body: bytes, content_type: str) -> Envelope:
    """Read as much of an edit in a form as routing needs.  Raises InvalidRequest."""
    form = read_form(body, content_type)
    seen: set[str] = set()
    fields: dict[str, Raw] = {}
    for field in form.fields:
        if field.name in CREDENTIAL_FIELDS:
            raise credential(field.name)
        if field.name in seen and field.name in _SINGLE:
            raise InvalidRequest(
                f"The field '{field.name}' is given more than once.", param=field.name, code="invalid_value"
            )
        seen.add(field.name)
        if field.filename is None and not _image(field.name):
            fields[field.name] = Raw(_encode(form.text(field)))
    if not any(_image(name) for name in seen):
        raise missing("image")
    if "prompt" not in fields:
        raise missing("prompt")
    said = fields.get("stream")
    return Envelope(
        dialect="image_edits",
        model=msgspec.json.decode(fields["model"]) if "model" in fields else "",
        stream=said is not None and bytes(said).lower() in (b'"true"', b'"1"'),
        fields=fields,
        body=body,
        content_type=content_type,
    )


def parse_request(asked: Envelope) -> ImageRequest:
    """Read a request to make pictures whole.  Raises InvalidRequest."""
    body = read(asked.body, _read_request)
    check_word("response_format", body.response_format, PLACES)
    return _request(asked, body.prompt, body.n, body.size, body.partial_images, body.user, _extra(asked))


def named_pictures(asked: Envelope) -> list[tuple[str, str]]:
    """The pictures that an edit names instead of holding them: the path of each, and what stands there."""
    if asked.dialect != "image_edits" or asked.content_type:
        return []
    body = read(asked.body, _read_edit)
    named = [(f"images[{n}].image_url", one.image_url) for n, one in enumerate(body.images or ())]
    named += [("mask.image_url", body.mask.image_url)] if body.mask is not None else []
    return [(at, url) for at, url in named if url is not None and not url.startswith("data:")]


def parse_edit(asked: Envelope, pictures: Mapping[str, Media] = _NONE) -> ImageRequest:
    """Read an edit whole, whichever way it came.  Raises InvalidRequest.

    pictures: those of `named_pictures`, by what stands for them.
    """
    if asked.content_type:
        return _parse_form(asked)
    body = read(asked.body, _read_edit)
    check_word("response_format", body.response_format, PLACES)
    images = tuple(_media(one, f"images[{n}]", pictures) for n, one in enumerate(body.images or ()))
    if not images:
        raise missing("images")
    mask = _media(body.mask, "mask", pictures) if body.mask is not None else None
    return _request(asked, body.prompt, body.n, body.size, body.partial_images, body.user, _extra(asked), images, mask)


def count_of(asked: Envelope) -> int:
    """How many pictures are asked for; 1 where that cannot be read."""
    raw = bytes(asked.fields.get("n", b"")).strip(b'"')
    return int(raw) if raw.isdigit() and len(raw) < 4 else 1


def wants_url(asked: Envelope) -> bool:
    """Whether the answer is to say where each picture is, instead of holding it."""
    raw = asked.fields.get("response_format")
    return raw is not None and bytes(raw) == b'"url"'


def check_count(name: str, given: int | None, at: str | None = None) -> None:
    """Hold a number to its `LIMITS`.  Raises InvalidRequest.

    at: where it stands in the request; None: at the top, by its own name.
    """
    (least, most), at = LIMITS[name], at or name
    if given is not None and not least <= given <= most:
        raise InvalidRequest(
            f"Invalid value for '{at}': expected a number from {least} to {most}.", param=at, code="invalid_value"
        )


def _peeked(dialect: Dialect, body: bytes) -> Envelope:
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    prompt = fields.get("prompt")
    if prompt is None or kind_of(prompt) == "null":
        raise missing("prompt")
    # Usage comes with every answer, and there are no stream_options to ask for it.
    return msgspec.structs.replace(envelope(dialect, fields, body), wants_usage=True)


def _parse_form(asked: Envelope) -> ImageRequest:
    form = read_form(asked.body, asked.content_type)
    texts = {name: msgspec.json.decode(raw) for name, raw in asked.fields.items()}
    images: list[Media] = []
    mask: Media | None = None
    extra = _extra(asked)
    for field in form.fields:
        if _image(field.name):
            images.append(_file(form, field))
        elif field.name == "mask":
            mask = _file(form, field)
        elif field.filename is not None:
            extra[field.name] = field.filename
    check_word("response_format", texts.get("response_format"), PLACES)
    count, previews = _whole(texts, "n"), _whole(texts, "partial_images")
    size, user = texts.get("size"), texts.get("user")
    return _request(asked, texts["prompt"], count, size, previews, user, extra, tuple(images), mask)


def _whole(texts: dict[str, str], name: str) -> int | None:
    """A number in a form, or one that is refused like any that is too large.  Raises InvalidRequest."""
    said = texts.get(name)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit()):
        raise InvalidRequest(f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type")
    _, most = LIMITS[name]
    number = whole_number(said, most)
    return most + 1 if number is None else number


def _request(
    asked: Envelope,
    prompt: str,
    n: int | None,
    size: str | None,
    previews: int | None,
    user: str | None,
    extra: dict[str, Any],
    images: tuple[Media, ...] = (),
    mask: Media | None = None,
) -> ImageRequest:
    for name, said in (("prompt", prompt), ("size", size)):
        if said is not None and not said.strip():
            raise InvalidRequest(f"Invalid value for '{name}': it is empty.", param=name, code="invalid_value")
    check_count("n", n)
    check_count("partial_images", previews)
    return ImageRequest(
        model=asked.model,
        prompt=prompt,
        images=images,
        mask=mask,
        count=n or 1,
        size=None if size == "auto" else size,
        previews=(previews or 0) if asked.stream else 0,
        user=user or None,
        extra=extra,
    )


def _extra(asked: Envelope) -> dict[str, Any]:
    """Fields for the backend to carry over or to name as dropped: not those that say what happens anyway."""
    out = {}
    for name, raw in asked.fields.items():
        if name in _CARRIED:
            continue
        value = decode_raw(raw)
        if value in (None, "auto"):
            continue
        out[name] = value
    return out


def _media(ref: ImageRef, at: str, pictures: Mapping[str, Media]) -> Media:
    if ref.image_url is None:
        raise InvalidRequest(
            f"Invalid value for '{at}': this model's provider takes pictures as 'image_url' only.",
            param=at,
            code="unsupported_value",
        )
    return pictures.get(ref.image_url) or media_of_url(ref.image_url, f"{at}.image_url", "image/*", {})


def _file(form: Form, field: Field) -> Media:
    """Raises InvalidRequest for what is plainly no file."""
    data = form.value(field)
    if field.filename is None and mime_of(data) is None:
        raise InvalidRequest(
            f"Invalid value for '{field.name}': expected a file, not a text field (with curl: -F {field.name}=@FILE).",
            param=field.name,
            code="invalid_value",
        )
    said = field.mime if field.mime and field.mime.startswith("image/") else None
    return Media(mime=mime_of(data) or said or "application/octet-stream", data=data, name=field.filename)
