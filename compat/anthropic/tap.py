"""Watches Messages pass by, and changes nothing.

As in `compat.openai.tap`, the common event, a content_block_delta, is searched and held to JSON's syntax,
but not built into objects: quotes inside JSON strings are escaped, so a bare `"message_delta"` can only
be a key or a value, which the decoder then tells apart.
"""

import re

import msgspec
from msgspec import Raw, Struct

from compat.anthropic.error import verdict
from compat.anthropic.usage import Meter, parse_usage
from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from compat.openai.error import Verdict
from compat.sse import data_of, split

_notable = re.compile(rb'"message_(?:start|delta|stop)"|"error"').search
_NOTHING = (b"", b"null")


class _Message(Struct):
    model: str | None = None
    usage: Raw = Raw()


class _Delta(Struct):
    stop_reason: Raw = Raw()


class _Event(Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


class _Body(Struct):
    type: str = ""
    model: str | None = None
    content: Raw = Raw()
    stop_reason: Raw = Raw()
    usage: Raw = Raw()
    error: Raw = Raw()


class _Count(Struct):
    input_tokens: int


class _Anything(Struct):
    """Reads any JSON object and keeps none of it."""


_check = msgspec.json.Decoder(_Anything).decode
_read_event = msgspec.json.Decoder(_Event).decode
_read_body = msgspec.json.Decoder(_Body).decode
_read_count = msgspec.json.Decoder(_Count).decode
_CONTENT = frozenset({"content_block_start", "content_block_delta"})


class Tap:
    """One answer, streamed (`feed`, then `end`) or whole (`whole`)."""

    def __init__(self, envelope: Envelope) -> None:  # noqa: ARG002  the dialects' taps are made alike
        self.usage: Usage | None = None
        self.model: str | None = None
        self.reason: str | None = None
        """Why the answer ended."""
        self.began = False
        """Content has been seen."""
        self.finished = False
        """message_stop has been seen, or the whole body has been read."""
        self.done = False
        self.failure: Verdict | None = None
        """The provider reported an error inside its answer."""
        self.skipped = 0
        """Events that could not be read and were left out."""
        self._meter = Meter()

    def feed(self, events: bytes) -> bytes:
        """Take whole events and return what the client gets of them."""
        if not self.began or self.done:
            return self._opening(events)
        found = _notable(events)
        if found is None:
            return events if _plain(events) else self._singly(events)
        begin = events.rfind(b"\n\n", 0, found.start()) + 2 if b"\n\n" in events[: found.start()] else 0
        head = events[:begin]
        return (head if _plain(head) else self._singly(head)) + self._singly(events[begin:])

    def end(self) -> bytes:
        """The stream has ended; this dialect has nothing to follow message_stop."""
        return b""

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer that was not streamed and return what the client gets; None when it is none."""
        try:
            message = _read_body(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if bytes(message.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(message.error))
            return body
        if not bytes(message.content).startswith(b"["):
            return None
        self.usage, self.model = parse_usage(message.usage), message.model
        self.reason = _word(message.stop_reason)
        self.began = self.finished = self.done = True
        return body

    def _opening(self, events: bytes) -> bytes:
        """Event by event up to the first content; what follows it in the same piece is common again."""
        for position, event in enumerate(apart := split(events)):
            apart[position] = self._event(event)
            if self.began and not self.done:
                rest = b"".join([event + b"\n\n" for event in apart[position + 1 :]])
                return b"".join(apart[: position + 1]) + self.feed(rest)
        return b"".join(apart)

    def _singly(self, events: bytes) -> bytes:
        return b"".join([self._event(event) for event in split(events)])

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data or self.done:
            return b""  # a comment: keep-alives are ours to send
        try:
            wire = _read_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return b""
        if wire.type == "error" or bytes(wire.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(wire.error) if bytes(wire.error) else None)
            return b""
        if wire.type in _CONTENT:
            self.began = True
        elif wire.type == "message_stop":
            self.began = self.finished = self.done = True
        else:
            self._note(wire)
        return event + b"\n\n"

    def _note(self, wire: _Event) -> None:
        if wire.message is not None:
            self.model = self.model or wire.message.model
            self._meter.note(wire.message.usage, prompt=True)
        if wire.delta is not None:
            self.reason = _word(wire.delta.stop_reason) or self.reason
        if bytes(wire.usage):
            self._meter.note(wire.usage)
        self.usage = self._meter.usage or self.usage


class CountTap(Tap):
    """The answer to a request to count tokens: `usage.input_tokens` is the count."""

    def whole(self, body: bytes) -> bytes | None:
        try:
            count = _read_count(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        self.usage = Usage(input_tokens=count.input_tokens)
        return body


def _word(raw: Raw) -> str | None:
    text = bytes(raw)
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else None


def _plain(events: bytes) -> bool:
    """Each event is an `event:` line, if any, and one `data:` line of sound JSON."""
    if not events:
        return True
    try:
        for event in events[:-2].split(b"\n\n"):
            name, sep, data = event.partition(b"data: ")
            if not sep or (name and not (name.startswith(b"event: ") and name.endswith(b"\n"))):
                return False
            _check(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
