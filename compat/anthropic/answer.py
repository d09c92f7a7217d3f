"""Anthropic's Messages: answers written, streamed and whole.

A stream is message_start, then for each content block its start, deltas and stop, then message_delta
with the reason and the usage, then message_stop.  Blocks never overlap: each is stopped before the next
is started, so pieces of parallel tool calls that come interleaved are put in order here.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from compat.anthropic.part import input_of
from compat.anthropic.usage import render_end_usage, render_usage
from compat.canonical.error import BadResponse
from compat.canonical.event import (
    Event,
    Finished,
    Metered,
    Reason,
    ReasoningDelta,
    Result,
    Started,
    TextDelta,
    ToolDelta,
    Usage,
)
from compat.canonical.message import Part, Reasoning, Text, ToolCall
from compat.sse import frame

REASONS: dict[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "other",
}
_REASONS_OUT: dict[Reason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "other": "end_turn",
}
PING = frame(b'{"type": "ping"}', "ping")
"""Keeps a line awake; clients skip it wherever it comes."""

_write = msgspec.json.Encoder().encode


async def render_events(events: AsyncGenerator[Event, None], *, thinking: bool) -> AsyncGenerator[bytes, None]:
    """Write a stream as SSE frames, message_stop included.

    thinking: show reasoning, which clients expect only where they asked for it.
    """
    blocks = _Blocks()
    finished: Finished | None = None
    usage = Usage()
    called = False
    async with aclosing(events):
        async for event in events:
            match event:
                case Started():
                    yield _frame({"type": "message_start", "message": _message(event, [], event.usage or Usage())})
                case TextDelta() | ToolDelta():
                    called = called or isinstance(event, ToolDelta)
                    if written := blocks.take(event):
                        yield written
                case ReasoningDelta():
                    if thinking and (written := blocks.take(event)):
                        yield written
                case Finished(choice=0):
                    finished = event
                case Metered(usage=usage):
                    pass
    if finished is None:
        raise BadResponse("The backend's answer ended before it was complete.")
    ending = {"type": "message_delta", "delta": _stop(finished, called), "usage": render_end_usage(usage)}
    yield blocks.end() + _frame(ending) + _frame({"type": "message_stop"})


def render_result(result: Result, *, thinking: bool) -> bytes:
    """Write a whole answer as the body of a `message`."""
    choice = result.choices[0]
    content = [block for part in choice.parts if (block := _block(part, thinking)) is not None]
    return _write(_message(result.started, content, result.usage, choice.finished))


def _message(started: Started, content: list[Any], usage: Usage, finished: Finished | None = None) -> dict[str, Any]:
    id_ = started.id if started.id.startswith("msg_") else f"msg_{started.id.removeprefix('chatcmpl-')}"
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": started.model,
        "content": content,
        **_stop(finished, any(block["type"] == "tool_use" for block in content)),
        "diagnostics": None,
        # Present and null, as the published schema has them.
        "usage": {"cache_creation": None, "inference_geo": None, "service_tier": None, **render_usage(usage)},
    }


def _stop(finished: Finished | None, called: bool) -> dict[str, Any]:
    if finished is None:
        return {"stop_reason": None, "stop_sequence": None, "stop_details": None, "container": None}
    reason = finished.raw_reason
    if reason not in REASONS:
        reason = _REASONS_OUT[finished.reason]
        if finished.stop is not None:
            reason = "stop_sequence"
        elif called and finished.reason == "stop":
            # OpenAI says so of a call it was forced to make, others of any; Anthropic's clients would not make it.
            reason = "tool_use"
    return {"stop_reason": reason, "stop_sequence": finished.stop, "stop_details": None, "container": None}


def _block(part: Part, thinking: bool) -> dict[str, Any] | None:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text, "citations": []} if text else None
        case ToolCall():
            return _call(part.id, part.name, input_of(part.arguments))
        case Reasoning(redacted=str(data)) if thinking:
            return {"type": "redacted_thinking", "data": data}
        case Reasoning() if thinking:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
    return None


def _call(id_: str, name: str, given: Any) -> dict[str, Any]:
    # The caller is the model itself, not a program that it wrote.
    return {"type": "tool_use", "id": id_, "name": name, "input": given, "caller": {"type": "direct"}}


class _Blocks:
    """The content blocks of one streamed answer: at most one is open."""

    def __init__(self) -> None:
        self._next = 0
        self._kind: str | None = None
        """Of the open block."""
        self._call = -1
        self._arguments: list[str] = []
        """Of the open tool call."""
        self._places: dict[int, int] = {}
        """Block of each tool call that was begun."""
        self._held: list[ToolDelta] = []
        """Calls that came while another was not complete."""

    def take(self, event: TextDelta | ReasoningDelta | ToolDelta) -> bytes:
        match event:
            case TextDelta(text=text):
                if not text:
                    return b""
                opened = self._open("text", {"type": "text", "text": "", "citations": []})
                return opened + self._delta({"type": "text_delta", "text": text})
            case ReasoningDelta(redacted=str(data)):
                block = {"type": "redacted_thinking", "data": data}
                return self._open("redacted_thinking", block) + self._close()
            case ReasoningDelta(text=text, signature=signature):
                written = self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                if text:
                    written += self._delta({"type": "thinking_delta", "thinking": text})
                if signature is not None:
                    written += self._delta({"type": "signature_delta", "signature": signature}) + self._close()
                return written
            case ToolDelta():
                return self._tool(event)

    def end(self) -> bytes:
        """Write what was held back, and close the last block."""
        return self._release() + self._close()

    def _tool(self, event: ToolDelta) -> bytes:
        place = self._places.get(event.call)
        if place is None:
            if self._held or (self._kind == "tool_use" and not self._complete()):
                self._held.append(event)
                return b""
            return self._begin(event)
        delta = {"type": "input_json_delta", "partial_json": event.arguments}
        if event.call != self._call or self._kind != "tool_use":
            return self._delta(delta, place) if event.arguments else b""
        self._arguments.append(event.arguments)
        written = self._delta(delta) if event.arguments else b""
        return written + self._release() if self._held and self._complete() else written

    def _begin(self, event: ToolDelta) -> bytes:
        block = _call(event.id or f"toolu_{event.call}", event.name or "", {})
        written = self._close() + self._open("tool_use", block)
        self._call, self._arguments = event.call, [event.arguments]
        self._places[event.call] = self._next - 1
        if event.arguments:
            written += self._delta({"type": "input_json_delta", "partial_json": event.arguments})
        return written

    def _release(self) -> bytes:
        held, self._held = self._held, []
        written = b""
        for call in dict.fromkeys(event.call for event in held):
            pieces = [event for event in held if event.call == call]
            whole = ToolDelta(
                call=call, id=pieces[0].id, name=pieces[0].name, arguments="".join(p.arguments for p in pieces)
            )
            written += self._begin(whole)
        return written

    def _complete(self) -> bool:
        """Whether the open call's arguments are whole, as far as can be known: they are sound JSON."""
        try:
            _check("".join(self._arguments))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._kind == kind and kind in ("text", "thinking"):
            return b""
        written = (self._release() if self._held else b"") + self._close()
        self._kind = kind
        self._next += 1
        return written + _frame({"type": "content_block_start", "index": self._next - 1, "content_block": block})

    def _delta(self, delta: dict[str, Any], place: int | None = None) -> bytes:
        index = self._next - 1 if place is None else place
        return _frame({"type": "content_block_delta", "index": index, "delta": delta})

    def _close(self) -> bytes:
        if self._kind is None:
            return b""
        self._kind = None
        return _frame({"type": "content_block_stop", "index": self._next - 1})


class _Anything(Struct):
    """Reads any JSON object and keeps none of it."""


_check = msgspec.json.Decoder(_Anything).decode


def _frame(event: dict[str, Any]) -> bytes:
    return frame(_write(event), event["type"])
