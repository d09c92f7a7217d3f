"""OpenAI's images: answers, whole and streamed, written and watched.

Sources: https://platform.openai.com/docs/api-reference/images/object and …/images-streaming.  A stream
ends with one `completed` event for each picture; unlike a chat's it has no [DONE].
"""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.event import Event, Metered, Produced, Result, Started, Usage
from compat.canonical.request import Envelope
from compat.openai.error import Verdict, verdict
from compat.openai.images import count_of
from compat.openai.part import url_of_made
from compat.openai.usage import count
from compat.sse import data_of, frame, name_of, split

_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/gif": "gif", "image/svg+xml": "svg"}
_NOTHING = (b"", b"null")
_write = msgspec.json.Encoder().encode


def render_result(result: Result, *, urls: bool = False) -> bytes:
    """Write pictures as the body of an images answer.

    urls: each as a URL; one that is neither kept nor elsewhere is its own (`data:`).
    """
    body: dict[str, Any] = {
        "created": result.started.created,
        "data": [_picture(one, urls) for one in result.produced],
    }
    formats = {_FORMATS.get(one.media.mime) for one in result.produced}
    if len(formats) == 1 and None not in formats:
        body["output_format"] = formats.pop()
    if result.usage.input_tokens is not None or result.usage.output_tokens is not None:
        body["usage"] = _render_usage(result.usage)
    return _write(body)


async def render_events(events: AsyncGenerator[Event, None], asked: Envelope) -> AsyncGenerator[bytes, None]:
    """Write pictures as SSE frames, one a picture or a preview of it; usage stands in the last of them.

    So the last waits for the end of the answer, and no other does.
    """
    name = "image_edit" if asked.dialect == "image_edits" else "image_generation"
    created, usage, due = 0, Usage(), count_of(asked)
    held: Produced | None = None

    def written(one: Produced, **more: Any) -> bytes:
        kind = f"{name}.completed" if one.partial is None else f"{name}.partial_image"
        settings = {
            "size": _said(asked, "size"),
            "quality": _said(asked, "quality"),
            "background": _said(asked, "background"),
            "output_format": _FORMATS.get(one.media.mime, "png"),
        }
        return frame(_write({"type": kind, **_picture(one), "created_at": created} | settings | more), kind)

    async with aclosing(events):
        async for event in events:
            match event:
                case Started(created=created):
                    pass
                case Metered(usage=usage):
                    pass
                case Produced(partial=partial):
                    if held is not None:
                        yield written(held, usage=_render_usage(Usage()))
                        held = None
                    if partial is not None:
                        yield written(event, partial_image_index=partial)
                        continue
                    due -= 1
                    if due > 0:
                        yield written(event, usage=_render_usage(Usage()))
                    else:
                        held = event
    if held is not None:
        yield written(held, usage=_render_usage(usage))


class _Answer(Struct):
    data: list[Raw] | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


class _StreamEvent(Struct):
    type: str | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_event = msgspec.json.Decoder(_StreamEvent).decode


class ImagesTap:
    """Watches an answer with pictures pass by, and leaves it as it is."""

    def __init__(self, asked: Envelope) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = False
        self.finished = False
        self.done = False
        self.failure: Verdict | None = None
        self.skipped = 0
        self._due = count_of(asked)
        self._completed = 0

    def feed(self, events: bytes) -> bytes:
        """Take whole events and return what the client gets of them."""
        return b"".join([self._event(event) for event in split(events)])

    def end(self) -> bytes:
        return b""

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer that was not streamed and return what the client gets; None when it is none."""
        try:
            answer = _read_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if bytes(answer.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(answer.error))
            return body
        if answer.data is None:
            return None
        self.usage = _parse_usage(answer.usage)
        self.began = self.finished = True
        return body

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data or self.done:
            return b""
        if data.strip() == b"[DONE]":
            # Some providers end so; OpenAI's clients read to the end of the stream.
            self.done, self.finished = True, self._completed > 0
            return b""
        try:
            said = _read_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return b""
        kind = said.type or name_of(event)
        if bytes(said.error) not in _NOTHING or kind == "error":
            self.failure = verdict(msgspec.json.decode(said.error if bytes(said.error) not in _NOTHING else data))
            return b""
        self.began = True
        self.usage = _parse_usage(said.usage) or self.usage
        if kind.endswith(".completed"):
            self._completed += 1
            self.done = self.finished = self._completed >= self._due
        return event + b"\n\n"


def _picture(one: Produced, urls: bool = False) -> dict[str, Any]:
    media = one.media
    if urls or media.data is None:
        out = {"url": url_of_made(media)}
    else:
        out = {"b64_json": base64.b64encode(media.data).decode()}
    if one.revised_prompt is not None:
        out["revised_prompt"] = one.revised_prompt
    return out


def _said(asked: Envelope, name: str) -> str:
    raw = asked.fields.get(name)
    value = msgspec.json.decode(raw) if raw is not None else None
    return value if isinstance(value, str) else "auto"


def _parse_usage(raw: Raw) -> Usage | None:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict):
        return None
    return Usage(
        input_tokens=count(value.get("input_tokens", value.get("prompt_tokens"))),
        output_tokens=count(value.get("output_tokens", value.get("completion_tokens"))),
    )


def _render_usage(usage: Usage) -> dict[str, Any]:
    """Clients expect every figure here: what is not known is 0, and input counts as text."""
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"text_tokens": given, "image_tokens": 0},
        "output_tokens": made,
        "total_tokens": given + made,
    }
