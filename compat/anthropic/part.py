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

from compat.body import decode_raw, missing, read
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.plain import telling
from compat.canonical.request import Dialect

_Block = dict[str, Raw]
Content = str | list[_Block]
"""The value of a `content` key, its blocks' fields not decoded yet."""
_read_content = msgspec.json.Decoder(Content | None)
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
        case "thinking":
            return Reasoning(text=_text(block, "thinking", at), signature=_text(block, "signature", at) or None)
        case "redacted_thinking":
            return Reasoning(text="", redacted=_text(block, "data", at))
        case "tool_use":
            if "input" not in block:
                raise missing(f"{at}.input")
            return ToolCall(
                id=_text(block, "id", at),
                name=_text(block, "name", at),
                arguments=bytes(block["input"]).decode(),
                extra=_others(block, "id", "name", "input"),
            )
        case "tool_result":
            path = f"{at}.content"
            inner = parse_content(read(bytes(block.get("content", b"null")), _read_content, path), path)
            return ToolResult(
                id=_text(block, "tool_use_id", at),
                parts=tuple(part for part in inner if isinstance(part, (Text, Media, Opaque))),
                failed=bytes(block.get("is_error", b"")) == b"true",
                extra=_others(block, "tool_use_id", "content", "is_error"),
            )
    return _opaque(kind, block)


def _parse_media(kind: str, block: _Block, at: str) -> Media | Opaque:
    source = decode_raw(block["source"]) if "source" in block else None
    if not isinstance(source, dict):
        raise missing(f"{at}.source")
    extra = _others(block, "source", "title")
    title = decode_raw(block["title"]) if "title" in block else None
    name = title if isinstance(title, str) else None
    match source:
        case {"type": "base64", "media_type": str(mime), "data": str(data)}:
            return Media(mime=mime, data=_bytes(data, f"{at}.source.data"), name=name, extra=extra)
        case {"type": "url", "url": str(url)}:
            return Media(mime="image/*" if kind == "image" else "application/pdf", url=url, name=name, extra=extra)
        case {"type": "text", "data": str(text)} if kind == "document":
            return Media(mime="text/plain", data=text.encode(), name=name, extra=extra)
        case {"type": "base64" | "url" | "text"}:
            raise InvalidRequest(f"{kind} source is incomplete", param=f"{at}.source", code="invalid_value")
    return _opaque(kind, block)


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
            return parts[0].text
        return self.write(parts)

    def others(self, extra: dict[str, Any]) -> dict[str, Any]:
        """What of a foreign dialect's fields means the same here: `cache_control`, which several have adopted."""
        if self._dialect == "messages" or not extra:
            return extra
        self.lost |= dict.fromkeys(name for name in telling(extra) if name != "cache_control")
        return {"cache_control": extra["cache_control"]} if extra.get("cache_control") else {}

    def _block(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text():
                # Empty text blocks are refused, and say nothing.
                return {"type": "text", "text": part.text, **self.others(part.extra)} if part.text else None
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

    def _media(self, media: Media) -> dict[str, Any]:
        image = media.mime.startswith("image/")
        source: dict[str, Any] = {"type": "url", "url": media.url}
        if media.data is not None:
            if media.mime.startswith("text/plain"):
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


def _opaque(kind: str, block: _Block) -> Opaque:
    return Opaque(type=kind, body={name: decode_raw(value) for name, value in block.items()})


def _others(block: _Block, *known: str) -> dict[str, Any]:
    return {name: decode_raw(value) for name, value in block.items() if name != "type" and name not in known}


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
