"""OpenAI's chat messages and the parts they are made of, both directions."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Part, Reasoning, Role, Stored, Text, ToolCall, ToolResult
from compat.openai.custom import wrapped
from compat.openai.limits import wrong_type
from compat.openai.thought import parse_thoughts, put

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_MESSAGE_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id", "reasoning_content", "thinking_blocks"})


_STEP = 256 * 1024
"""Characters of base64 that are decoded at once: in a thread others have their turn between two."""


def parse_message(wire: dict[str, Any], at: str) -> Message:
    """Read one message; `at` is its path, for errors.  Raises InvalidRequest."""
    role = wire.get("role")
    if role is None:
        raise missing(f"{at}.role")
    if not isinstance(role, str):
        raise wrong_type(f"{at}.role", "a string")
    if role not in _ROLES:
        raise InvalidRequest(f"Invalid value for '{at}.role': {role!r}.", param=f"{at}.role", code="invalid_value")
    given = wire.get("content")
    if given is None and role != "assistant":
        raise wrong_type(f"{at}.content", "a string or an array") if "content" in wire else missing(f"{at}.content")
    content = parse_content(given, f"{at}.content")
    extra = {name: value for name, value in wire.items() if name not in _MESSAGE_FIELDS}
    if not content and isinstance(wire.get("refusal"), str):
        content = (Text(text=extra.pop("refusal")),)
    if _ROLES[role] == "tool":
        id_ = wire.get("tool_call_id")
        if not isinstance(id_, str):
            raise missing(f"{at}.tool_call_id")
        return Message(role="tool", parts=(ToolResult(id=id_, parts=content),), extra=extra)
    parts: list[Part] = []
    signed = parse_thoughts(wire.get("thinking_blocks"))
    if not signed and isinstance(thought := wire.get("reasoning_content"), str) and thought:
        parts.append(Reasoning(text=thought))
    parts += content
    calls = wire.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong_type(f"{at}.tool_calls", "an array")
    for n, call in enumerate(calls):
        parts.append(_parse_call(call, f"{at}.tool_calls[{n}]"))
    return Message(role=_ROLES[role], parts=tuple(put(signed, parts)), extra=extra)


def render_message(message: Message) -> list[dict[str, Any]]:
    """Write one message; results of several tools become one message each.

    Their pictures and files follow in what the user says next, where the message was a user's, as Anthropic
    has it: OpenAI's tool messages hold text alone.
    """
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    kept = Text if message.role == "user" else (Text, Media)
    shown: list[Part] = [inner for r in results for inner in r.parts if not isinstance(inner, kept)]
    rest = shown + [part for part in message.parts if not isinstance(part, ToolResult)]
    out: list[dict[str, Any]] = [
        {
            "role": "tool",
            "tool_call_id": r.id,
            "content": render_content([part for part in r.parts if isinstance(part, kept)]),
            **message.extra,
        }
        for r in results
    ]
    if rest or not results:
        out.append(_render_spoken(message, rest))
    return out


def parse_content(content: Any, at: str) -> tuple[Text | Media, ...]:
    """Read the value of a `content` key: null, a text, or a list of parts."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content),)
    if not isinstance(content, list):
        raise InvalidRequest(f"Invalid type for '{at}': expected a string or an array.", param=at, code="invalid_type")
    return tuple(_parse_part(part, f"{at}[{n}]") for n, part in enumerate(content))


def render_content(parts: tuple[Text | Media, ...] | list[Any]) -> str | list[dict[str, Any]]:
    """A single plain text is written as a string, the form every provider takes."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text) and not parts[0].extra:
        return parts[0].text
    return [_render_part(part) for part in parts]


def _render_spoken(message: Message, parts: Sequence[Part]) -> dict[str, Any]:
    said = [part for part in parts if isinstance(part, (Text, Media))]
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    wire: dict[str, Any] = {"role": message.role, "content": render_content(said)}
    if calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls
        ]
    if thought:
        wire["reasoning_content"] = thought
    return wire | message.extra


def _parse_call(call: Any, at: str) -> ToolCall:
    custom = call.get("custom") if isinstance(call, dict) else None
    if isinstance(custom, dict):
        call = call | {"function": {"name": custom.get("name"), "arguments": wrapped(str(custom.get("input") or ""))}}
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise missing(f"{at}.function")
    if not isinstance(call.get("id"), str):
        raise missing(f"{at}.id")
    if not isinstance(function.get("name"), str):
        raise missing(f"{at}.function.name")
    arguments = function.get("arguments")
    return ToolCall(id=call["id"], name=function["name"], arguments=arguments if isinstance(arguments, str) else "{}")


def _parse_part(part: Any, at: str) -> Text | Media:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise missing(f"{at}.type")
    extra = {name: value for name, value in part.items() if name not in ("type", kind)}
    if kind == "text" and isinstance(part.get("text"), str):
        return Text(text=part["text"], extra=extra)
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return Text(text=part["refusal"], extra=extra)
    body = part.get(kind)
    if kind == "image_url" and isinstance(body, (dict, str)):
        url = body if isinstance(body, str) else body.get("url")
        if not isinstance(url, str):
            raise missing(f"{at}.image_url.url")
        detail = {"detail": body["detail"]} if isinstance(body, dict) and "detail" in body else {}
        return media_of_url(url, f"{at}.image_url.url", "image/*", extra | detail)
    if kind == "input_audio" and isinstance(body, dict) and isinstance(body.get("data"), str):
        return Media(mime=f"audio/{body.get('format', 'wav')}", data=_base64(body["data"], f"{at}.input_audio.data"))
    if kind == "file" and isinstance(body, dict) and isinstance(body.get("file_data"), str):
        media = media_of_url(body["file_data"], f"{at}.file.file_data", "application/octet-stream", extra)
        return Media(mime=media.mime, data=media.data, url=media.url, name=body.get("filename"), extra=extra)
    raise InvalidRequest(
        f"Invalid value for '{at}.type': '{kind}' cannot be translated for this backend.",
        param=f"{at}.type",
        code="invalid_value",
    )


def _render_part(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **part.extra}
    extra = dict(part.extra)
    if part.mime.startswith("audio/") and part.data is not None:
        audio = {"data": base64.b64encode(part.data).decode(), "format": part.mime.removeprefix("audio/")}
        return {"type": "input_audio", "input_audio": audio}
    if part.mime.startswith("image/"):
        image: dict[str, Any] = {"url": url_of_media(part)}
        if "detail" in extra:
            image["detail"] = extra.pop("detail")
        return {"type": "image_url", "image_url": image, **extra}
    file: dict[str, Any] = {"file_data": url_of_media(part)}
    if part.name is not None:
        file["filename"] = part.name
    return {"type": "file", "file": file, **extra}


def media_of_url(url: str, at: str, mime: str, extra: dict[str, Any]) -> Media:
    """A `data:` URL becomes bytes; any other stays a URL.  Raises InvalidRequest."""
    if not url.startswith("data:"):
        return Media(mime=mime, url=url, extra=extra)
    head, comma, payload = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidRequest(f"Invalid value for '{at}': not a base64 data URL.", param=at, code="invalid_value")
    return Media(mime=head.removesuffix(";base64") or mime, data=_base64(payload, at), extra=extra)


def url_of_made(media: Media) -> str:
    """Where a client finds what was made for it: as an artifact where it is kept as one."""
    stored: Stored | None = media.extra.get("stored")
    return url_of_media(media) if stored is None else stored.url


def url_of_media(media: Media) -> str:
    if media.data is None:
        return media.url or ""
    return f"data:{media.mime};base64,{base64.b64encode(media.data).decode()}"


def _base64(text: str, at: str) -> bytes:
    try:
        pieces = [base64.b64decode(text[n : n + _STEP], validate=True) for n in range(0, len(text), _STEP)]
        if any(len(piece) * 4 != _STEP * 3 for piece in pieces[:-1]):
            raise ValueError("it goes on after its end")
        return b"".join(pieces)
    except (binascii.Error, ValueError) as e:
        raise InvalidRequest(f"Invalid value for '{at}': not base64.", param=at, code="invalid_value") from e
