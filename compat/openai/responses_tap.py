"""Watches the answers of a provider that speaks the Responses API pass by, and changes nothing.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from compat.openai.error import Verdict, verdict
from compat.openai.responses_usage import parse_usage
from compat.sse import data_of, frame, name_of, split

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_PRELUDE = frozenset({"response.created", "response.queued", "response.in_progress", "keepalive"})
_UNDER_WAY = ("queued", "in_progress")
_NOTHING = (b"", b"null")


class _Event(Struct):
    type: str = ""
    sequence_number: int | None = None
    response: Raw = Raw()
    error: Raw = Raw()


class _Item(Struct):
    type: str = ""
    id: str | None = None


class Seen(Struct):
    """What is read of a provider's response."""

    object: str | None = None
    id: str | None = None
    model: str | None = None
    status: str | None = None
    store: bool | None = None
    output: list[_Item] = []
    usage: Raw = Raw()
    error: Raw = Raw()


_read_event = msgspec.json.Decoder(_Event).decode
_read_response = msgspec.json.Decoder(Seen).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def adopted(response: bytes | Raw, id_: str, conversation: str) -> bytes:
    """A provider's response as one of a conversation that is kept here, under an id of our own; all else as it came.

    Providers' ids may repeat, and a conversation's must not.
    """
    fields: dict[str, Raw] = msgspec.json.decode(response, type=dict[str, Raw])
    fields["id"] = Raw(msgspec.json.encode(id_))
    fields["conversation"] = Raw(msgspec.json.encode({"id": conversation}))
    return msgspec.json.encode(fields)


def adopted_event(event: bytes, id_: str, conversation: str) -> tuple[bytes, bytes | None]:
    """The same of the response in an event: the event, and the response, if one is in it."""
    data = data_of(event).replace(b"\n", b" ")  # between tokens, as strings have none
    if b'"response"' not in data:
        return event + b"\n\n", None
    fields: dict[str, Raw] = msgspec.json.decode(data, type=dict[str, Raw])
    response = fields.get("response")
    if response is None or not bytes(response).lstrip().startswith(b"{"):
        return event + b"\n\n", None
    whole = adopted(response, id_, conversation)
    fields["response"] = Raw(whole)
    return frame(msgspec.json.encode(fields), name_of(event) if event.startswith(b"event:") else None), whole


def done_in(event: bytes) -> list[dict[str, Any]]:
    """The item that an event says is done."""
    if b"response.output_item.done" not in event:
        return []
    seen = msgspec.json.decode(data_of(event))
    item = seen.get("item")
    return [item] if seen.get("type") == "response.output_item.done" and isinstance(item, dict) else []


class ResponsesTap:
    """One answer, streamed (`feed`, then `end`) or whole (`whole`)."""

    def __init__(self, envelope: Envelope) -> None:  # noqa: ARG002  every dialect's tap is given it
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = False
        """Content has been seen."""
        self.finished = False
        """The terminal event has been seen, or the whole body read."""
        self.done = False
        self.failure: Verdict | None = None
        """The provider reported an error inside its answer."""
        self.told = False
        """The client has been told of the failure, in the provider's own event."""
        self.skipped = 0
        """Events that could not be read and were left out."""
        self.response: Seen | None = None
        """The provider's response as it last showed it."""
        self.count = 0
        """The number that the next event would have."""
        self._head = b""

    @property
    def head(self) -> dict[str, Any] | None:
        """The response as the stream's first event showed it; None if it has not come."""
        return msgspec.json.decode(self._head) if self._head else None

    def feed(self, events: bytes) -> bytes:
        """Take whole events and return what the client gets of them."""
        return b"".join([self._event(event) for event in split(events)])

    def end(self) -> bytes:
        return b""

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer that was not streamed and return what the client gets; None when it is none."""
        try:
            response = _read_response(body)
        except _UNREADABLE:
            return None
        if bytes(response.error) not in _NOTHING:
            self.failure = verdict(msgspec.json.decode(response.error))
            return body
        if response.object != "response" or response.id is None:
            return None
        self._note(response)
        self.began = self.finished = True
        return body

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data or self.done or data == b"[DONE]":
            return b""
        try:
            seen = _read_event(data)
            response = _read_response(seen.response) if bytes(seen.response) not in _NOTHING else None
        except _UNREADABLE:
            self.skipped += 1
            return b""
        if seen.type == "error" or (not seen.type and bytes(seen.error) not in _NOTHING):
            # Flat as documented, nested as it comes.
            nested = bytes(seen.error) not in _NOTHING
            self.failure = verdict(msgspec.json.decode(seen.error if nested else data))
            return b""
        if seen.sequence_number is not None:
            self.count = seen.sequence_number + 1
        if response is not None:
            self._note(response)
            self._head = self._head or bytes(seen.response)
        if seen.type == "response.failed":
            self.failure = verdict(msgspec.json.decode(response.error) if response and bytes(response.error) else None)
            if not self.began:
                return b""
            self.told = True
        if seen.type in _TERMINAL:
            self.finished = self.done = True
        elif seen.type not in _PRELUDE:
            self.began = True
        return event + b"\n\n"

    def _note(self, response: Seen) -> None:
        self.response = response
        self.model = response.model or self.model
        # What is said earlier would pass for all of it when the stream breaks.
        if response.status not in _UNDER_WAY and bytes(response.usage) not in _NOTHING:
            self.usage = parse_usage(response.usage) or self.usage
