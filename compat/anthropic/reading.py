"""Anthropic's Messages: answers, streamed and whole, read as events.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.anthropic.answer import REASONS
from compat.anthropic.usage import Meter
from compat.canonical.error import BadResponse
from compat.canonical.event import Cited, Event, Finished, Metered, ReasoningDelta, Started, TextDelta, ToolDelta
from compat.sse import data_of, split


class _Message(Struct):
    id: str = ""
    model: str = ""
    usage: Raw = Raw()
    content: "list[_Block] | None" = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    container: dict[str, Any] | None = None
    """Where its code ran, if it ran any: the next turn may go on there."""


class _Block(Struct):
    """Some servers write all fields into each block of a whole answer, null where they are another kind's."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    data: str | None = None
    signature: str | None = None
    citations: list[Any] | None = None
    input: Raw = Raw()


class _Delta(Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Any = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    container: dict[str, Any] | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Raw = Raw()


_read = msgspec.json.Decoder(_Event).decode
_read_message = msgspec.json.Decoder(_Message).decode
_UNSOUND = (msgspec.DecodeError, UnicodeDecodeError)
"""The tap has held the answer to JSON's syntax, but has not looked into its strings."""


async def parse_events(frames: AsyncGenerator[bytes, None], *, created: int) -> AsyncGenerator[Event, None]:
    """Read a relayed stream, already tapped, as events: no errors, no truncation, sound JSON.

    created: seconds since 1970, which the dialect does not tell.
    """
    reader = _Reader(created)
    async with aclosing(frames):
        async for events in frames:
            for event in split(events):
                if not (data := data_of(event)):
                    continue
                try:
                    told = reader.take(_read(data))
                except _UNSOUND as e:
                    raise BadResponse("The backend's answer has a shape that cannot be translated.") from e
                for parsed in told:
                    yield parsed


def parse_answer(body: bytes, *, created: int) -> list[Event]:
    """Read a whole answer, already tapped, as the events it would have been streamed in.

    Raises BadResponse where it does not say why it ended: it was cut off.
    """
    try:
        message = _read_message(body)
        if message.stop_reason is None:
            raise BadResponse("The backend's answer ended before it was complete.")
        reader = _Reader(created)
        return [event for told in _story(message) for event in reader.take(told)]
    except _UNSOUND as e:
        raise BadResponse("The backend's answer has a shape that cannot be translated.") from e


def _story(message: _Message) -> list[_Event]:
    """The stream that a whole message stands for."""
    stop = _Delta(stop_reason=message.stop_reason, stop_sequence=message.stop_sequence, container=message.container)
    story = [_Event(type="message_start", message=message)]
    for index, block in enumerate(message.content or ()):
        story.append(_Event(type="content_block_start", index=index, content_block=block))
        deltas = [_Delta(type="citations_delta", citation=citation) for citation in block.citations or ()]
        if block.signature:
            deltas.append(_Delta(type="signature_delta", signature=block.signature))
        story += [_Event(type="content_block_delta", index=index, delta=delta) for delta in deltas]
        story.append(_Event(type="content_block_stop", index=index))
    return [*story, _Event(type="message_delta", delta=stop, usage=message.usage), _Event(type="message_stop")]


class _Reader:
    def __init__(self, created: int) -> None:
        self._created = created
        self._meter = Meter()
        self._calls: dict[int, int] = {}
        """Number of the tool call in each block that is one; the provider's own tools are not the client's."""
        self._silent: set[int] = set()
        """Blocks of calls that no argument has come for."""
        self._said = 0
        """Characters of text so far."""
        self._begun: dict[int, int] = {}
        """Where each block of text begins among them."""
        self._sources: dict[int, list[dict[str, Any]]] = {}
        """The pages that each block cites."""

    def take(self, wire: _Event) -> list[Event]:
        match wire.type:
            case "message_start" if wire.message is not None:
                self._meter.note(wire.message.usage, prompt=True)
                return [Started(id=wire.message.id, model=wire.message.model, created=self._created)]
            case "content_block_start" if wire.content_block is not None:
                return self._start(wire.index, wire.content_block)
            case "content_block_delta" if wire.delta is not None:
                return self._piece(wire.index, wire.delta)
            case "content_block_stop" if wire.index in self._silent:
                # Clients of other dialects parse the text, and an empty one is no JSON.
                self._silent.discard(wire.index)
                return [ToolDelta(call=self._calls[wire.index], arguments="{}")]
            case "content_block_stop" if sources := self._sources.pop(wire.index, None):
                start = self._begun.get(wire.index, self._said)
                return [Cited(url=s["url"], title=s["title"], start=start, end=self._said) for s in sources]
            case "message_delta":
                self._meter.note(wire.usage)
                if wire.delta is None or wire.delta.stop_reason is None:
                    return []
                word = wire.delta.stop_reason
                reason = REASONS.get(word, "other")
                state = {"container": wire.delta.container} if wire.delta.container else {}
                return [Finished(reason=reason, raw_reason=word, stop=wire.delta.stop_sequence, state=state)]
            case "message_stop" if self._meter.usage is not None:
                return [Metered(usage=self._meter.usage)]
        return []

    def _start(self, index: int, block: _Block) -> list[Event]:
        match block.type:
            case "text":
                self._begun[index] = self._said
                self._said += len(block.text or "")
                return [TextDelta(text=block.text)] if block.text else []
            case "thinking" if block.thinking:
                return [ReasoningDelta(text=block.thinking)]
            case "redacted_thinking":
                return [ReasoningDelta(redacted=block.data or "")]
            case "tool_use":
                self._calls[index] = call = len(self._calls)
                given = bytes(block.input)
                if given.strip(b"{} \t\r\n") in (b"", b"null"):  # an empty object; a stream's arguments follow it
                    given = b""
                    self._silent.add(index)
                return [ToolDelta(call=call, id=block.id, name=block.name, arguments=given.decode())]
        return []

    def _piece(self, index: int, delta: _Delta) -> list[Event]:
        match delta.type:
            case "text_delta" if delta.text:
                self._said += len(delta.text)
                return [TextDelta(text=delta.text)]
            case "citations_delta" if isinstance(delta.citation, dict):
                # Places in the client's own documents have no word in other dialects, pages on the web do.
                url, title = delta.citation.get("url") or delta.citation.get("source"), delta.citation.get("title")
                if isinstance(url, str) and url.startswith(("http://", "https://")):
                    source = {"url": url, "title": title if isinstance(title, str) else None}
                    self._sources.setdefault(index, []).append(source)
            case "thinking_delta" if delta.thinking:
                return [ReasoningDelta(text=delta.thinking)]
            case "signature_delta":
                return [ReasoningDelta(signature=delta.signature)]
            case "input_json_delta" if index in self._calls and delta.partial_json:
                self._silent.discard(index)
                return [ToolDelta(call=self._calls[index], arguments=delta.partial_json)]
        return []
