"""What a route does with a request, found out without sending it.

The request goes the way any other would: read, translated, and told to the backend.  The call it goes with ends the
trial as soon as a backend looks how long it may take, in whose name it asks or where to note its waiting, which all of
them do before they send or queue anything, and none before it has said what it leaves out.  Nothing is awaited either:
what would wait has come to the sending as well.
"""

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

from backends.base import Backend, Call
from compat.canonical.error import GatewayError
from compat.canonical.principal import Principal
from compat.canonical.request import Envelope, TextRequest
from compat.openai.chat import envelope_of
from gateway.routing.dispatch import relays
from gateway.schema.bodies import Body, Json


class _Sent(BaseException):
    """The request would be on its way now.  No error, so nobody handles it on the way here."""


def _sends(_: object) -> NoReturn:
    raise _Sent


class _Call(Call):
    """The call of a request that is not to be sent."""

    principal = property(_sends)
    deadline = property(_sends)
    timeouts = property(_sends)
    wait = property(_sends)
    traceparent = property(_sends)
    origin = property(_sends)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request."""

    dropped: frozenset[str] = frozenset()
    """Left out, by the client's names."""
    refused: GatewayError | None = None
    """Why it was not sent at all."""
    emulated: bool = False
    """It was put in other words for a model that does not know them."""


def attempt(backend: Backend, model: str, body: Body, asked: Json) -> Outcome:
    """Send a request of a body as far as it goes without being sent.  Takes well under a millisecond."""
    call = _Call(request_id="schema", principal=Principal(id="schema"), deadline=0.0)
    try:
        envelope = body.peek(msgspec.json.encode(asked))
        emulated = _driven(_tried(backend, model, body, envelope, call))
    except GatewayError as e:
        return Outcome(refused=e)
    return Outcome(dropped=frozenset(call.dropped), emulated=emulated)


async def _tried(backend: Backend, model: str, body: Body, envelope: Envelope, call: _Call) -> bool:
    """Whether the request was put in other words for this model."""
    call.streamed = envelope.stream
    if relays(backend, envelope, model):
        with suppress(_Sent):
            await backend.relay(envelope, model, call)
        return False
    request = msgspec.structs.replace(body.parse(envelope), model=model)
    translates = getattr(backend, "translates", None)
    emulated = translates is not None and (
        translates(envelope, model)
        or (isinstance(request, TextRequest) and translates(envelope_of(_plain(request), stream=False), model))
    )
    events = backend.run(request, call)
    try:
        with suppress(_Sent):
            await anext(events, None)  # what is left out has been said by then
    finally:
        await events.aclose()
    return emulated


def _plain(request: TextRequest) -> TextRequest:
    return msgspec.structs.replace(request, extra={})


def _driven(work: Coroutine[Any, Any, bool]) -> bool:
    """What it returns; False if it would have to wait, which is when it has begun to send."""
    try:
        work.send(None)
        while True:
            work.throw(_Sent())
    except StopIteration as e:
        return bool(e.value)
    except _Sent:
        return False
