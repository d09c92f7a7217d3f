"""What all generating endpoints share: body → envelope → plan → answer → reply.

An endpoint is a `Language`: how its dialect is read and written.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec import Struct

from backends.base import Call
from compat.canonical.error import GatewayError, InvalidRequest
from compat.canonical.event import Result, fold
from compat.canonical.request import Envelope, Request
from gateway.api.reading import Disconnected, read_json, require_method
from gateway.api.reply import CLIENT_GONE, Errors, Reply
from gateway.auth.guard import admit
from gateway.house import Estate, House
from gateway.routing.dispatch import Answer
from gateway.routing.router import Plan
from gateway.visit import Visit


class Context(Struct, kw_only=True):
    """What a language may need to write an answer, besides the answer."""

    visit: Visit
    plan: Plan
    envelope: Envelope


class Language(Struct, frozen=True, kw_only=True):
    peek: Callable[[bytes], Envelope]
    parse: Callable[[Envelope], Request]
    whole: Callable[[Result, Context], bytes]
    """Write a translated answer as one body."""
    stream: Callable[[AsyncGenerator[Any, None], Context], AsyncGenerator[bytes, None]] | None
    """Write a translated answer's events as SSE frames, closing them; None where nothing is streamed."""
    errors: Errors


_DIALECT_HEADERS = frozenset({b"anthropic-beta", b"anthropic-version", b"openai-beta"})
SCOPE = "inference"
"""What every generating endpoint requires."""


def endpoint(house: House, path: str, language: Language) -> ASGIApp:
    """The ASGI application of a generating endpoint."""

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]  # type: ignore[typeddict-item]
        estate: Estate = scope["estate"]  # type: ignore[typeddict-item]
        visit.route = path
        reply = Reply(house, visit, receive, send, language.errors)
        http = cast(HTTPScope, scope)
        try:
            admit(scope, SCOPE)
            require_method(http, "POST")
            body = await read_json(http, receive, estate.config.server.body_limit_bytes)
            timeout_s = _timeout(http)
            strict = _header(http, b"x-gateway-strict").lower() == b"true"
            envelope = language.peek(body)
            if spoken := {n.decode(): v.decode("latin-1") for n, v in http["headers"] if n in _DIALECT_HEADERS}:
                envelope = msgspec.structs.replace(envelope, headers=spoken)
        except GatewayError as e:
            await reply.refuse(e)
            return
        except Disconnected:
            visit.status = CLIENT_GONE
            return
        visit.requested, visit.streamed = envelope.model or "auto", envelope.stream
        await reply.attend(_answer(house, estate, language, envelope, visit, reply, timeout_s, strict))

    return generate


async def _answer(
    house: House,
    estate: Estate,
    language: Language,
    envelope: Envelope,
    visit: Visit,
    reply: Reply,
    timeout_s: float | None,
    strict: bool,
) -> None:
    plan = await estate.router.plan(envelope.model)
    visit.reason = plan.reason
    total_s = plan.timeouts.total_s if timeout_s is None else min(timeout_s, plan.timeouts.total_s)
    principal = visit.principal
    assert principal is not None, "the guard lets nobody in without one"
    call = Call(
        request_id=visit.request_id,
        principal=principal,
        deadline=asyncio.get_running_loop().time() + total_s,
        timeouts=plan.timeouts,
        wait=visit.wait,
        strict=strict,
    )
    if envelope.stream:
        reply.ping_while_waiting()
    answer = await house.dispatcher.answer(plan, envelope, language.parse, call, visit)
    try:
        headers = _headers(answer, visit)
        if call.dropped:
            headers.append((b"x-gateway-dropped", _header_text(", ".join(call.dropped))))
        if answer.body is not None:
            await reply.whole(headers, answer.body)
        elif answer.frames is not None:
            await reply.stream(headers, answer.frames)
        elif answer.events is not None:
            context = Context(visit=visit, plan=plan, envelope=envelope)
            if envelope.stream and language.stream is not None:
                await reply.stream(headers, language.stream(answer.events, context))
            else:
                async with aclosing(answer.events) as events:
                    result = await fold(events)
                visit.usage = result.usage
                await reply.whole(headers, language.whole(result, context))
    finally:
        visit.usage = answer.tally.usage or visit.usage


def _headers(answer: Answer, visit: Visit) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers += (
        (b"x-gateway-backend", answer.route.backend.name.encode()),
        (b"x-gateway-model", _header_text(answer.route.name)),
        (b"x-gateway-attempts", b"%d" % visit.attempts),
    )
    if visit.wait.queue_s > 0 and visit.wait.queue_position is not None:
        headers.append((b"x-gateway-queue-position", b"%d" % visit.wait.queue_position))
    return headers


def _header_text(text: str) -> bytes:
    """A client's own words may come back in a header: printable ASCII only."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode()


def _header(scope: HTTPScope, name: bytes) -> bytes:
    return next((value for known, value in scope["headers"] if known == name), b"")


def _timeout(scope: HTTPScope) -> float | None:
    given = _header(scope, b"x-request-timeout")
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise InvalidRequest("The header 'x-request-timeout' must be a number of seconds.", param="x-request-timeout")
    return seconds
