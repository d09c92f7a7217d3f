"""Watches chat completions and completions pass by, and changes one thing: usage nobody asked for.

The relay lane runs every byte of every answer through here, so the common event is searched and held
to JSON's syntax, but not built into objects.  JSON escapes quotes inside strings, which makes the
search exact: `"usage"` with both quotes bare can only be a key, or a value of that very text, which
the decoder then tells apart.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import whole_number
from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from compat.openai.error import Verdict, verdict
from compat.openai.usage import parse_usage, render_usage
from compat.sse import DONE, data_of, frame, split

_notable = re.compile(rb'"usage"\s*:\s*\{|"error"|"finish_reason"\s*:\s*"|\[DONE\]').search
_notable_or_null = re.compile(rb'"usage"|"error"|"finish_reason"\s*:\s*"|\[DONE\]').search
_NULL_USAGE, _WITHOUT = b',"usage":null}\n\n', b"}\n\n"
"""How an event ends whose last field is a null usage: `}` closes the whole chunk, so it is top-level."""


_NOTHING = (b"", b"null")
"""A key that is absent, or null."""


class _Choice(Struct):
    index: int | None = 0
    finish_reason: str | None = None
    delta: Raw = Raw()
    text: Raw = Raw()


class Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Raw = Raw()
    error: Raw = Raw()
    model: str | None = None


class _Anything(Struct):
    """Reads any JSON object and keeps none of it."""


_check = msgspec.json.Decoder(_Anything).decode
_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_write = msgspec.json.Encoder().encode


class Tap:
    """One answer, streamed (`feed`, then `end`) or whole (`whole`)."""

    def __init__(self, envelope: Envelope) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.reason: str | None = None
        """Why the choice that ended last did."""
        self.began = False
        """Content has been seen."""
        self.finished = False
        """Every choice seen has said why it ended, or the whole body has been read."""
        self.done = False
        """[DONE] has been seen."""
        self.failure: Verdict | None = None
        """The provider reported an error inside its answer."""
        self.skipped = 0
        """Events that could not be read and were left out."""
        self._hides_usage = not envelope.wants_usage
        n = bytes(envelope.fields.get("n", b"1"))
        self._choices = whole_number(n, 2**31) or 1
        self._several = n not in (b"1", b"null")
        self._open: set[int] = set()
        self._closed: set[int] = set()

    def feed(self, events: bytes) -> bytes:
        """Take whole events and return what the client gets of them."""
        if self.done:
            return b""
        if self.began and not self._several:
            return self._plainly(events)
        for position, event in enumerate(apart := split(events)):
            apart[position] = self._event(event)
            if self.began and not self._several:
                rest = b"".join([event + b"\n\n" for event in apart[position + 1 :]])
                return b"".join(apart[: position + 1]) + self._plainly(rest)
        return b"".join(apart)

    def end(self) -> bytes:
        """The stream has ended: the [DONE] it owes, if it finished and sent none."""
        return DONE if self.finished and not self.done else b""

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer that was not streamed and return what the client gets; None when it is none."""
        try:
            chunk = _read_chunk(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if bytes(chunk.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(chunk.error))
            return body
        if not chunk.choices or not all(choice.finish_reason for choice in chunk.choices):
            return None
        self._note(chunk)
        self.began = self.finished = True
        return body

    def _plainly(self, events: bytes) -> bytes:
        """Pass on what needs no decoding, up to the first event that does."""
        if self._hides_usage:
            events = events.replace(_NULL_USAGE, _WITHOUT)
        if _quiet(events, b'"usage"' if self._hides_usage else b'"usage":{'):
            return events if _plain(events) else self._singly(events)
        found = _first_notable(events, self._hides_usage)
        if found < 0:
            return events if _plain(events) else self._singly(events)
        begin = events.rfind(b"\n\n", 0, found) + 2 if b"\n\n" in events[:found] else 0
        head = events[:begin]
        return (head if _plain(head) else self._singly(head)) + self._singly(events[begin:])

    def _singly(self, events: bytes) -> bytes:
        return b"".join([self._event(event) for event in split(events)])

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""  # a comment: keep-alives are ours to send
        if self.done:
            return b""
        if data.strip() == b"[DONE]":
            self.done = True
            # A provider may not do as many choices as it was asked for.
            self.finished = bool(self._closed) and self._closed >= self._open
            # Clients stop reading at [DONE], so one that comes too early would hide the error that follows.
            return DONE if self.finished else b""
        try:
            chunk = _read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return b""
        if bytes(chunk.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(chunk.error))
            return b""
        self._note(chunk)
        if self._hides_usage and bytes(chunk.usage):
            return self._without_usage(data, chunk)
        return event + b"\n\n"

    def _note(self, chunk: Chunk) -> None:
        self.model = self.model or chunk.model
        for choice in chunk.choices or ():
            index = choice.index or 0
            self._open.add(index)
            if choice.finish_reason:
                self.reason = choice.finish_reason
                self._closed.add(index)
                self.finished = self._closed >= self._open and len(self._closed) >= self._choices
            if not self.began:
                self.began = choice.finish_reason is not None or _has_content(choice)
        if bytes(chunk.usage) not in _NOTHING and (usage := parse_usage(chunk.usage)) is not None:
            # Before there is an answer it tells of the prompt; its 0 would pass for all when no other comes.
            self.usage = usage if self.began else msgspec.structs.replace(usage, output_tokens=None)

    def _without_usage(self, data: bytes, chunk: Chunk) -> bytes:
        if not chunk.choices and bytes(chunk.usage) != b"null":
            return b""
        fields = _read_fields(data)
        del fields["usage"]
        return frame(_write(fields))


class WholeTap:
    """For answers that are never streamed; its kinds read them with `whole`."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = False
        self.finished = False
        self.done = False
        self.failure: Verdict | None = None

    def feed(self, events: bytes) -> bytes:
        return events

    def end(self) -> bytes:
        return b""


class SummingTap(Tap):
    """For llama.cpp, which sends a usage for each of several choices: the client gets the sum, once, at the end."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._last: bytes | None = None

    def _event(self, event: bytes) -> bytes:
        before = self.usage
        out = super()._event(event)
        if self.usage is not before:
            self._last = data = data_of(event)
            # In completions it stands beside the reason to finish.
            return self._without_usage(data, _read_chunk(data))
        return self._sum() + out if self.done else out

    def _note(self, chunk: Chunk) -> None:
        before = self.usage
        super()._note(chunk)
        if before is not None and self.usage is not None and self.usage is not before:
            # All choices share one prompt.
            made = (before.output_tokens or 0) + (self.usage.output_tokens or 0)
            self.usage = msgspec.structs.replace(self.usage, output_tokens=made)

    def _sum(self) -> bytes:
        if self._last is None or self.usage is None or self._hides_usage:
            return b""
        fields = _read_fields(self._last) | {"choices": Raw(b"[]"), "usage": Raw(_write(render_usage(self.usage)))}
        return frame(_write(fields))


def _first_notable(events: bytes, hides_usage: bool) -> int:
    """Where the first notable thing stands; -1 for nowhere.

    The marks as most providers write them are searched for first: the pattern costs ten times as much a byte.
    """
    if not any(odd in events for odd in _ODD):
        usage = (b'"usage"',) if hides_usage else (b'"usage":{', b'"usage": {')
        places = [events.find(mark) for mark in (*usage, *_MARKS)]
        return min((place for place in places if place >= 0), default=-1)
    found = _notable_or_null(events) if hides_usage else _notable(events)
    return -1 if found is None else found.start()


_ODD = (b'" ', b'"\t', b'"\n', b'":\t', b'":\n', b'":  ')
"""Where these stand, white space may part a mark."""
_MARKS = (b'"finish_reason":"', b'"finish_reason": "', b'"error"', b"[DONE]")


def _quiet(events: bytes, usage: bytes) -> bool:
    """Nothing notable, as far as plain substrings tell, at a tenth of the patterns' price.

    What is spelled with spaces counts as notable, and the patterns then look closer.
    """
    return (
        usage not in events
        and b'"usage" ' not in events
        and b'"usage": ' not in events
        and b'"error"' not in events
        and b"[DONE]" not in events
        and events.count(b'"finish_reason"') == events.count(b'"finish_reason":null')
    )


def _plain(events: bytes) -> bool:
    """Each event is one `data:` line of sound JSON."""
    if not events.startswith(b"data: "):
        return not events
    try:
        for data in events[6:-2].split(b"\n\ndata: "):
            _check(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _has_content(choice: _Choice) -> bool:
    if bytes(choice.text):
        return bytes(choice.text) not in (b'""', b"null")
    if bytes(choice.delta) in _NOTHING:
        return False
    delta: Any = msgspec.json.decode(choice.delta)
    if not isinstance(delta, dict):
        return bool(delta)
    return any(value for name, value in delta.items() if name != "role")
