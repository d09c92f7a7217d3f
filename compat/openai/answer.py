"""OpenAI's chat completions: answers, streamed and whole, both directions.

`render_events` and `parse_events` are inverse, and `render_result` is what `render_events` folds to.
Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

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
from compat.canonical.message import Reasoning, Text, ToolCall
from compat.openai.thought import Thoughts, render_thoughts
from compat.openai.usage import parse_usage, render_usage
from compat.sse import DONE, data_of, frame, split

_REASONS: dict[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_write = msgspec.json.Encoder().encode


async def render_events(events: AsyncGenerator[Event, None], *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    """Write a stream as SSE frames of `chat.completion.chunk`, [DONE] included."""
    head: dict[str, Any] = {}
    greeted: set[int] = set()
    thoughts: dict[int, Thoughts] = {}
    usage = Usage()

    def chunk(choice: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        if choice not in greeted:
            greeted.add(choice)
            delta = {"role": "assistant", "content": "", **delta}
        body = head | {"choices": [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        if include_usage:
            body["usage"] = None
        return frame(_write(body))

    async with aclosing(events):
        async for event in events:
            match event:
                case Started(id=id_, model=model, created=created):
                    head = {"id": id_, "object": "chat.completion.chunk", "created": created, "model": model}
                case TextDelta(text=text, choice=n):
                    thoughts.setdefault(n, Thoughts()).note(event)
                    yield chunk(n, {"content": text})
                case ReasoningDelta(text=text, choice=n):
                    block = thoughts.setdefault(n, Thoughts()).note(event)
                    delta: dict[str, Any] = {"reasoning_content": text} if text else {}
                    if block is not None:
                        delta["thinking_blocks"] = [block]
                    if delta:
                        yield chunk(n, delta)
                case ToolDelta():
                    thoughts.setdefault(event.choice, Thoughts()).note(event)
                    yield chunk(event.choice, {"tool_calls": [_render_tool_delta(event)]})
                case Finished(reason=reason, choice=n):
                    yield chunk(n, {}, reason_out(reason))
                case Metered(usage=usage):
                    pass
        if include_usage:
            yield frame(_write(head | {"choices": [], "usage": render_usage(usage)}))
    yield DONE


def render_result(result: Result) -> bytes:
    """Write a whole answer as the body of a `chat.completion`."""
    choices = []
    for choice in result.choices:
        text = [part.text for part in choice.parts if isinstance(part, Text)]
        calls = [part for part in choice.parts if isinstance(part, ToolCall)]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(text) if text or not calls else None}
        message["refusal"] = None
        if thought := "".join(part.text for part in choice.parts if isinstance(part, Reasoning)):
            message["reasoning_content"] = thought
        if signed := render_thoughts(choice.parts):
            message["thinking_blocks"] = signed
        if calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls
            ]
        choices.append(
            {
                "index": choice.finished.choice,
                "message": message,
                "logprobs": None,
                "finish_reason": reason_out(choice.finished.reason),
            }
        )
    return _write(
        {
            "id": result.started.id,
            "object": "chat.completion",
            "created": result.started.created,
            "model": result.started.model,
            "choices": choices,
            "usage": render_usage(result.usage),
        }
    )


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Part(Struct):
    """A part of a content that comes as a list, as Mistral's reasoning models send it."""

    type: str = "text"
    text: str | None = None
    thinking: "list[_Part] | str | None" = None


class _Delta(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    created: float | None = 0
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()


_read_chunk = msgspec.json.Decoder(_Chunk).decode


async def parse_events(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[Event, None]:
    """Read a relayed stream, already tapped, as events: no errors, no truncation, sound JSON."""
    started = False
    calls: dict[tuple[int, int], bool] = {}
    async with aclosing(frames):
        async for events in frames:
            for event in split(events):
                data = data_of(event)
                if data == b"[DONE]":
                    continue
                try:
                    chunk = _read_chunk(data)
                except msgspec.ValidationError as e:
                    raise BadResponse("The backend's answer has a shape that cannot be translated.") from e
                if not started:
                    started = True
                    yield Started(id=chunk.id or "", model=chunk.model or "", created=int(chunk.created or 0))
                for choice in chunk.choices or ():
                    for parsed in _choice_events(choice, calls):
                        yield parsed
                if (usage := parse_usage(chunk.usage)) is not None:
                    yield Metered(usage=usage)


def _choice_events(choice: _Choice, calls: dict[tuple[int, int], bool]) -> list[Event]:
    n, delta = choice.index, choice.delta or _Delta()
    out: list[Event] = []
    if thought := delta.reasoning_content or delta.reasoning:
        out.append(ReasoningDelta(text=thought, choice=n))
    if isinstance(delta.content, list):
        for part in delta.content:
            thoughts = part.thinking if isinstance(part.thinking, list) else []
            thought = "".join(t.text or "" for t in thoughts) or (
                part.thinking if isinstance(part.thinking, str) else ""
            )
            if thought:
                out.append(ReasoningDelta(text=thought, choice=n))
            if part.text:
                out.append(TextDelta(text=part.text, choice=n))
    elif text := delta.content or delta.refusal:
        out.append(TextDelta(text=text, choice=n))
    for position, call in enumerate(delta.tool_calls or ()):
        index = call.index if call.index is not None else position
        arguments = call.function.arguments
        if isinstance(arguments, dict):  # some providers send the object itself
            arguments = _write(arguments).decode()
        first = (n, index) not in calls
        calls[n, index] = True
        out.append(
            ToolDelta(
                call=index,
                arguments=arguments or "",
                id=(call.id or f"call_{index}") if first else None,
                name=(call.function.name or "") if first else None,
                choice=n,
            )
        )
    if choice.finish_reason:
        reason = _REASONS.get(choice.finish_reason, "other")
        raw = choice.finish_reason if choice.finish_reason != reason else None
        out.append(Finished(reason=reason, raw_reason=raw, choice=n))
    return out


def reason_out(reason: Reason) -> str:
    """OpenAI's word for why an answer ended; it has none for what it does not know."""
    return "stop" if reason == "other" else reason


def _render_tool_delta(event: ToolDelta) -> dict[str, Any]:
    function: dict[str, Any] = {} if event.name is None else {"name": event.name}
    function["arguments"] = event.arguments
    if event.id is None:
        return {"index": event.call, "function": function}
    return {"index": event.call, "id": event.id, "type": "function", "function": function}
