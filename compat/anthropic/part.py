"""Anthropic's content blocks, both directions.

Source: https://platform.claude.com/docs/en/api/messages/create (the body's `messages`)
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import decode_raw, kind_of, missing, read
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.plain import telling
from compat.canonical.request import Dialect

_Block = dict[str, Raw]
Content = str | list[_Block]
"""The value of a `content` key, its blocks' fields not decoded yet."""
_read_content = msgspec.json.Decoder(Content | None)
_read_fields = msgspec.json.Decoder(dict[str, Raw])
_MIMES = {"image": "image/*", "document": "application/pdf"}
"""Of what a URL leads to, as far as the block tells."""
_foreign = re.compile(r"[^a-zA-Z0-9_-]")


class _Object(Struct):
    """Reads any JSON object and keeps none of it."""


_check_object = msgspec.json.Decoder(_Object).decode


def parse_content(content: Content | None, at: str) -> tuple[Part, ...]:
    """Read what was said: a text or blocks; `at` is its path, for errors.

    A block or source of a kind that the internal model lacks comes out opaque.  Raises InvalidRequest.
    """
    if isinstance(content, str):
        return (Text(text=content),)
    return tuple(_parse_block(block, f"{at}[{n}]") for n, block in enumerate(content or ()))


def _parse_block(block: _Block, at: str) -> Part:
    kind = _text(block, "type", at)
    match kind:
        case "text":
            return Text(text=_text(block, "text", at), extra=_others(block, "text"))
        case "image" | "document":
            return _parse_media(kind, block, at)
        case "search_result":
            return _parse_found(block, at)
        case "thinking":
            return Reasoning(text=_text(block, "thinking", at), signature=_text(block, "signature", at) or None)
        case "redacted_thinking":
            return Reasoning(text="", redacted=_text(block, "data", at))
        case "tool_use":
            if "input" not in block:
                raise missing(f"{at}.input")
            _check_kind(block["input"], "object", f"{at}.input")
            return ToolCall(
                id=_text(block, "id", at),
                name=_text(block, "name", at),
                arguments=bytes(block["input"]).decode(),
                # That the model made it is so of every call, and answers of this gateway say so.
                extra={k: v for k, v in _others(block, "id", "name", "input").items() if v != {"type": "direct"}},
            )
        case "tool_result":
            inner = _parse_inner(block, at)
            if "is_error" in block:
                _check_kind(block["is_error"], "boolean", f"{at}.is_error")
            return ToolResult(
                id=_text(block, "tool_use_id", at),
                parts=inner,
                failed=bytes(block.get("is_error", b"")) == b"true",
                extra=_others(block, "tool_use_id", "content", "is_error"),
            )
    return _opaque(kind, block)


def _parse_inner(block: _Block, at: str) -> tuple[Text | Media | Opaque, ...]:
    """Read the content inside a block: what may be said there, not done."""
    path = f"{at}.content"
    content = read(bytes(block.get("content", b"null")), _read_content, path)
    parts: list[Text | Media | Opaque] = []
    for n, part in enumerate(parse_content(content, path)):
        if not isinstance(part, (Text, Media, Opaque)):
            raise InvalidRequest("That type cannot stand here", param=f"{path}[{n}].type", code="invalid_value")
        parts.append(part)
    return tuple(parts)


def _parse_media(kind: str, block: _Block, at: str) -> Media | Opaque:
    if "source" not in block:
        raise missing(f"{at}.source")
    path = f"{at}.source"
    source = read(bytes(block["source"]), _read_fields, path)
    extra = _others(block, "source", "title")
    name = _text(block, "title", at) if _given(block, "title") else None
    match _text(source, "type", path):
        case "base64":
            mime, data = _text(source, "media_type", path), _text(source, "data", path)
            if kind == "image" and not mime.startswith("image/"):
                raise InvalidRequest("Input should be an image's", param=f"{path}.media_type", code="invalid_value")
            return Media(mime=mime, data=_bytes(data, f"{path}.data"), name=name, extra=extra)
        case "url":
            return Media(mime=_MIMES[kind], url=_text(source, "url", path), name=name, extra=extra)
        case "text" if kind == "document":
            return Media(mime="text/plain", data=_text(source, "data", path).encode(), name=name, extra=extra)
        case "content" if kind == "document":
            context = [_text(block, "context", at)] if _given(block, "context") else []
            about = tuple(Text(text=words) for words in (name, *context) if words)
            return _opaque(kind, block, _told(about, _parse_inner(source, path)))
    return _opaque(kind, block)


def _parse_found(block: _Block, at: str) -> Opaque:
    title, source = _text(block, "title", at), _text(block, "source", at)
    if "content" not in block:
        raise missing(f"{at}.content")
    _check_kind(block["content"], "array", f"{at}.content")
    about = (Text(text=f"{title}\n{source}"),)
    return _opaque("search_result", block, _told(about, _parse_inner(block, at)))


def _told(about: tuple[Text, ...], parts: tuple[Text | Media | Opaque, ...]) -> tuple[Text | Media, ...]:
    """What a block says, for models that do not know its kind; nothing, if that would not be all of it."""
    told = tuple(part for part in parts if isinstance(part, (Text, Media)))
    return about + told if len(told) == len(parts) else ()


class Blocks:
    """Writes parts as blocks; `lost` collects the client's names for what it had to leave out."""

    def __init__(self, dialect: Dialect) -> None:
        self.lost: dict[str, None] = {}
        self._dialect = dialect

    def write(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """Raises InvalidRequest for what the model was to read and Anthropic has no block for."""
        return [block for part in parts if (block := self._block(part)) is not None]

    def content(self, parts: Sequence[Part]) -> str | list[dict[str, Any]]:
        """A single plain text is written as a string."""
        if len(parts) == 1 and isinstance(parts[0], Text) and not parts[0].extra:
            return parts[0].text if self._says(parts[0].text) else ""
        return self.write(parts)

    def others(self, extra: dict[str, Any]) -> dict[str, Any]:
        """What of a foreign dialect's fields means the same here: `cache_control`, which several have adopted."""
        if self._dialect == "messages" or not extra:
            return extra
        kept = {"cache_control"} | ({"detail"} if extra.get("detail") == "auto" else set())
        self.lost |= dict.fromkeys(name for name in telling(extra) if name not in kept)
        return {"cache_control": extra["cache_control"]} if extra.get("cache_control") else {}

    def _block(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text():
                said = self._says(part.text)
                return {"type": "text", "text": part.text, **self.others(part.extra)} if said else None
            case Media():
                return self._media(part)
            case Reasoning(redacted=str(data)):
                return {"type": "redacted_thinking", "data": data}
            case Reasoning(signature=str(signature)):
                return {"type": "thinking", "thinking": part.text, "signature": signature}
            case Reasoning():
                # Thoughts of another model; without a signature they are refused.
                self.lost["reasoning_content"] = None
            case ToolCall():
                call = {"type": "tool_use", "id": _id(part.id), "name": part.name, "input": input_of(part.arguments)}
                return call | self.others(part.extra)
            case ToolResult():
                result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(part.id)}
                if part.parts:
                    result["content"] = self.content(part.parts)
                if part.failed:
                    result["is_error"] = True
                return result | self.others(part.extra)
            case Opaque():
                if self._dialect == "messages":
                    return part.body
                self.lost[part.type] = None
        return None

    def _says(self, text: str) -> bool:
        """Whether a text may be sent: those of nothing but white space are refused."""
        return bool(text if self._dialect == "messages" else text.strip())

    def _media(self, media: Media) -> dict[str, Any]:
        image = media.mime.startswith("image/")
        source: dict[str, Any] = {"type": "url", "url": media.url}
        if media.data is not None:
            if media.mime.startswith("text/") or media.mime == "application/json":
                text = media.data.decode("utf-8", "replace")
                source = {"type": "text", "media_type": "text/plain", "data": text}
            elif image or media.mime == "application/pdf":
                data = base64.b64encode(media.data).decode()
                source = {"type": "base64", "media_type": media.mime, "data": data}
            else:
                raise InvalidRequest(
                    f"Content of type '{media.mime}' cannot be carried over to this model's provider.",
                    param="messages",
                    code="invalid_value",
                )
        elif not image and not (media.url or "").startswith(("http://", "https://")):
            raise InvalidRequest("A file must be a data URL or lie on the web.", param="messages", code="invalid_value")
        block: dict[str, Any] = {"type": "image" if image else "document", "source": source}
        if media.name is not None and not image:
            block["title"] = media.name
        return block | self.others(media.extra)


def input_of(arguments: str) -> Raw | dict[str, str]:
    """A tool call's arguments as the object they should be, byte for byte if they are."""
    if not arguments.strip():
        return {}
    try:
        _check_object(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # An object is required; this is how Anthropic's guide to tool streaming wraps what is none.
        return {"INVALID_JSON": arguments}
    return Raw(arguments.encode())


def _id(id_: str) -> str:
    """Ids of other providers may have characters that Anthropic refuses."""
    return _foreign.sub("_", id_)


def _opaque(kind: str, block: _Block, said: tuple[Text | Media, ...] = ()) -> Opaque:
    return Opaque(type=kind, body={name: decode_raw(value) for name, value in block.items()}, said=said)


def _others(block: _Block, *known: str) -> dict[str, Any]:
    return {name: decode_raw(value) for name, value in block.items() if name != "type" and name not in known}


def _given(block: _Block, name: str) -> bool:
    return name in block and bytes(block[name]) != b"null"


def _check_kind(raw: Raw, kind: str, at: str) -> None:
    if kind_of(raw) != kind:
        words = {"array": "a valid list", "object": "an object", "boolean": "a valid boolean"}
        raise InvalidRequest(f"Input should be {words[kind]}", param=at, code="invalid_type")


def _text(block: _Block, name: str, at: str) -> str:
    if name not in block:
        raise missing(f"{at}.{name}")
    value = decode_raw(block[name])
    if not isinstance(value, str):
        raise InvalidRequest("Input should be a valid string", param=f"{at}.{name}", code="invalid_type")
    return value


def _bytes(text: str, at: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise InvalidRequest("The data is not base64", param=at, code="invalid_value") from e
