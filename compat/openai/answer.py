"""OpenAI's chat completions: answers, streamed and whole, both directions.

`render_events` and `parse_events` are inverse, and `render_result` is what `render_events` folds to.
Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from compat.canonical.error import BadResponse
from compat.canonical.event import (
    Cited,
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
from compat.openai.calls import Calls
from compat.openai.thought import Thoughts, render_thoughts
from compat.openai.usage import count, parse_usage, render_usage
from compat.sse import DONE, data_of, frame, split

_REASONS: dict[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_write = msgspec.json.Encoder().encode
_UNSOUND = (msgspec.DecodeError, UnicodeDecodeError)
"""The tap has held the answer to JSON's syntax, but has not looked into its strings."""


async def render_events(
    events: AsyncGenerator[Event, None], *, include_usage: bool, calls: Calls | None = None
) -> AsyncGenerator[bytes, None]:
    """Write a stream as SSE frames of `chat.completion.chunk`, [DONE] included."""
    calls = calls or Calls()
    head: dict[str, Any] = {}
    greeted: set[int] = set()
    thoughts: dict[int, Thoughts] = {}
    usage = Usage()

    def chunk(
        choice: int, delta: dict[str, Any], reason: str | None = None, tokens: Sequence[dict[str, Any]] = ()
    ) -> bytes:
        if choice not in greeted:
            greeted.add(choice)
            delta = {"role": "assistant", "content": "", "refusal": None, **delta}
        row = {"index": choice, "delta": delta, "logprobs": _render_logprobs(tokens), "finish_reason": reason}
        body = head | {"choices": [row]}
        if include_usage:
            body["usage"] = None
        return frame(_write(body))

    async with aclosing(events):
        async for event in events:
            match event:
                case Started(id=id_, model=model, created=created):
                    head = {
                        "id": id_ if event.sent else own_id("chatcmpl-", id_),
                        "object": "chat.completion.chunk",
                        "created": created,
                        "model": model,
                    }
                case TextDelta(text=text, choice=n, logprobs=tokens):
                    thoughts.setdefault(n, Thoughts()).note(event)
                    yield chunk(n, {"content": text}, tokens=tokens)
                case ReasoningDelta(text=text, choice=n):
                    block = thoughts.setdefault(n, Thoughts()).note(event)
                    delta: dict[str, Any] = {"reasoning_content": text} if text else {}
                    if block is not None:
                        delta["thinking_blocks"] = [block]
                    if delta:
                        yield chunk(n, delta)
                case ToolDelta():
                    thoughts.setdefault(event.choice, Thoughts()).note(event)
                    if (called := calls.delta(event)) is not None:
                        yield chunk(event.choice, called)
                case Cited():
                    yield chunk(event.choice, {"annotations": [_render_citation(event)]})
                case Finished(reason=reason, choice=n):
                    if (called := calls.last(n)) is not None:
                        yield chunk(n, called)
                    yield chunk(n, {}, calls.reason(reason_out(reason)))
                case Metered(usage=usage):
                    pass
        if include_usage:
            yield frame(_write(head | {"choices": [], "usage": render_usage(usage)}))
    yield DONE


def render_result(result: Result, calls: Calls | None = None) -> bytes:
    """Write a whole answer as the body of a `chat.completion`."""
    calls = calls or Calls()
    choices = []
    for choice in result.choices:
        said = [part for part in choice.parts if isinstance(part, Text)]
        text = [part.text for part in said]
        made = [part for part in choice.parts if isinstance(part, ToolCall)]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(text) if text or not made else None}
        message["refusal"] = None
        if choice.cited:
            message["annotations"] = [_render_citation(event) for event in choice.cited]
        if thought := "".join(part.text for part in choice.parts if isinstance(part, Reasoning)):
            message["reasoning_content"] = thought
        if signed := render_thoughts(choice.parts):
            message["thinking_blocks"] = signed
        message |= calls.message(made)
        choices.append(
            {
                "index": choice.finished.choice,
                "message": message,
                "logprobs": _render_logprobs([one for part in said for one in part.extra.get("logprobs", ())]),
                "finish_reason": calls.reason(reason_out(choice.finished.reason)),
            }
        )
    return _write(
        {
            "id": own_id("chatcmpl-", result.started.id),
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


class _Logprobs(Struct):
    content: list[dict[str, Any]] | None = None


class _Delta(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    """The same of a whole answer."""
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM's: the stop sequence that was met, or a token's number."""
    matched_stop: Any = None
    """The same of SGLang."""


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    created: float | None = 0
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    verbose: Any = msgspec.field(name="__verbose", default=None)
    """llama.cpp's, where it was asked for; so is the next."""
    prompt_progress: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


async def parse_events(frames: AsyncGenerator[bytes, None], stops: Collection[str] = ()) -> AsyncGenerator[Event, None]:
    """Read a relayed stream, already tapped, as events: no errors, no truncation, sound JSON.

    stops: the client's stop sequences; which of them was met the dialect does not say, but several engines do.
    """
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
                except _UNSOUND as e:
                    raise BadResponse("The backend's answer has a shape that cannot be translated.") from e
                if not started:
                    started = True
                    yield Started(
                        id=chunk.id or "",
                        model=chunk.model or "",
                        created=int(chunk.created or 0),
                        usage=_prompt_usage(chunk),
                    )
                for choice in chunk.choices or ():
                    stop = _stop_of(chunk, choice, stops) if stops and choice.finish_reason else None
                    for parsed in _choice_events(choice, calls, stop):
                        yield parsed
                if (usage := parse_usage(chunk.usage)) is not None:
                    yield Metered(usage=usage)


def parse_answer(body: bytes, stops: Collection[str] = ()) -> list[Event]:
    """Read a whole answer, already tapped, as the events it would have been streamed in.

    Raises BadResponse where a choice does not say why it ended: it was cut off.
    """
    try:
        chunk = _read_chunk(body)
    except _UNSOUND as e:
        raise BadResponse("The backend's answer has a shape that cannot be translated.") from e
    if not chunk.choices or not all(choice.finish_reason for choice in chunk.choices):
        raise BadResponse("The backend's answer ended before it was complete.")
    events: list[Event] = [Started(id=chunk.id or "", model=chunk.model or "", created=int(chunk.created or 0))]
    calls: dict[tuple[int, int], bool] = {}
    for choice in chunk.choices:
        choice.delta = choice.message
        events += _choice_events(choice, calls, _stop_of(chunk, choice, stops))
    if (usage := parse_usage(chunk.usage)) is not None:
        events.append(Metered(usage=usage))
    return events


def _prompt_usage(chunk: _Chunk) -> Usage | None:
    """What the first chunk says of the prompt: llama.cpp tells its length before it is read."""
    if isinstance(progress := chunk.prompt_progress, dict):
        return Usage(input_tokens=count(progress.get("total")), cached_tokens=count(progress.get("cache")))
    usage = parse_usage(chunk.usage)
    return usage and msgspec.structs.replace(usage, output_tokens=None, reasoning_tokens=None)


def _stop_of(chunk: _Chunk, choice: _Choice, stops: Collection[str]) -> str | None:
    word = chunk.verbose.get("stopping_word") if isinstance(chunk.verbose, dict) else None
    for told in (choice.stop_reason, choice.matched_stop, word):
        # Engines have stops of their own besides, which are none of the client's business.
        if isinstance(told, str) and told in stops:
            return told
    return None


def _choice_events(choice: _Choice, calls: dict[tuple[int, int], bool], stop: str | None) -> list[Event]:
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
        tokens = (choice.logprobs and choice.logprobs.content) or ()
        out.append(TextDelta(text=text, choice=n, logprobs=tuple(tokens)))
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
        out.append(Finished(reason=reason, raw_reason=raw, stop=stop, choice=n))
    return out


def own_id(prefix: str, id_: str) -> str:
    """The id of an answer as OpenAI's look; another provider's own stays readable in it."""
    return id_ if id_.startswith(prefix) else prefix + id_


def reason_out(reason: Reason) -> str:
    """OpenAI's word for why an answer ended; it has none for what it does not know."""
    return "stop" if reason == "other" else reason


def _render_logprobs(tokens: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return {"content": list(tokens), "refusal": None} if tokens else None


def _render_citation(event: Cited) -> dict[str, Any]:
    where: dict[str, Any] = {"start_index": event.start, "end_index": event.end}
    return {"type": "url_citation", "url_citation": where | {"url": event.url, "title": event.title or event.url}}
