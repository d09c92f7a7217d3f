"""What all generating endpoints share: body → envelope → plan → answer → reply.

An endpoint is a `Language`: how its dialect is read and written.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, cast, get_args

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec import Struct

from backends.base import Call
from compat.body import LARGE_BYTES
from compat.canonical.error import ContextTooLong, Forbidden, GatewayError, InvalidRequest
from compat.canonical.event import Event, Result, fold
from compat.canonical.request import Envelope, Request
from compat.sse import KEEP_ALIVE
from gateway.accounts import served
from gateway.answers.partial import noted
from gateway.api.detached import KEY, PREFER, wish_of, with_seen
from gateway.api.idempotency import answer_as_wished
from gateway.api.reading import Disconnected, base_url, form_type, read_json, require_method
from gateway.api.reply import CLIENT_GONE, Errors, Reply, explained, header_text
from gateway.auth.guard import admit
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.routing.attempt import Answer, Asked
from gateway.routing.router import NAME_MAX, Plan
from gateway.routing.selection import modality_of, permitted
from gateway.settings import SelectionMode, WhileLoading
from gateway.telemetry.prompts import note_prompt
from gateway.visit import Visit


class Context(Struct, kw_only=True):
    """What a language may need to write an answer, besides the answer."""

    visit: Visit
    plan: Plan
    envelope: Envelope
    deadline: float
    """When the answer has to be there, by the loop's clock."""
    job: "Job"

    @property
    def base_url(self) -> str:
        """How the client reaches the gateway, `https://HOST`."""
        return base_url(self.job.http, self.job.estate.config.server)


class Language(Struct, frozen=True, kw_only=True):
    peek: Callable[[bytes], Envelope]
    peek_form: Callable[[bytes, str], Envelope] | None = None
    """Read a form, given its Content-Type header; None where only JSON is taken."""
    parse: Callable[[Envelope], Request]
    whole: Callable[[Result, Context], bytes]
    """Write a translated answer as one body."""
    stream: Callable[[AsyncGenerator[Any, None], Context], AsyncGenerator[bytes, None]] | None
    """Write a translated answer's events as SSE frames, closing them; None where nothing is streamed."""
    errors: Errors
    within: "Callable[[Job], AbstractAsyncContextManager[Job]] | None" = None
    """What surrounds all of the work: takes hold of what the request is part of (a session) and lets go of it in the
    end, however that comes; the job it gives is the one that is done."""
    shorten: "Callable[[ContextTooLong], Awaitable[Envelope | None]] | None" = None
    """A shorter request that says the same, where one was refused as too long; None: there is none."""
    prepare: "Callable[[House, Visit, Envelope, Plan], Awaitable[Prepared]] | None" = None
    """Look up what a request refers to, once it has routes and before any is taken."""
    refine: "Callable[[House, AsyncGenerator[Event, None], Context], AsyncGenerator[Event, None]] | None" = None
    """Work on a translated answer's events before they are written; closes them."""
    keep: Callable[[Answer, bytes], Awaitable[None]] | None = None
    """Take note of a whole answer, translated or relayed, before the client has it."""
    watch: Callable[[Answer], AsyncGenerator[bytes, None]] | None = None
    """The frames of a relayed stream on their way; closes them."""
    keep_alive: bytes = KEEP_ALIVE
    """What keeps a waiting stream awake."""
    hears: frozenset[bytes] = frozenset()
    """Headers, besides those of providers' dialects, that its envelopes hold."""
    spends: bool = True
    """A request counts with its tokens and its price, not only as one."""
    id_header: bytes | None = None
    """Names the request to this dialect's clients, besides `x-request-id`."""


class Prepared(Struct, frozen=True):
    """What a request goes on with, once what it refers to has been looked up."""

    language: Language
    """This one request's own."""
    envelope: Envelope
    plan: Plan


_DIALECT_HEADERS = frozenset({b"anthropic-beta", b"anthropic-version", b"openai-beta"})
_LISTS = frozenset({b"anthropic-beta", b"openai-beta", PREFER})
_TIMEOUT, _STRICT, _EXPLAIN = b"x-request-timeout", b"x-gateway-strict", b"x-gateway-explain"
_MODE = b"x-gateway-selection-mode"
_WHILE_LOADING = b"x-gateway-while-loading"
_HEADERS = _DIALECT_HEADERS | {_TIMEOUT, _STRICT, _EXPLAIN, _MODE, _WHILE_LOADING, PREFER, KEY}
_CHOICES: dict[bytes, tuple[str, ...]] = {_MODE: get_args(SelectionMode), _WHILE_LOADING: get_args(WhileLoading)}
WAITED_S = 0.001
"""What is less was no waiting."""
_UNPRICED = "its price is unknown, and there is a budget"
SCOPE = "inference"
"""What every generating endpoint requires."""


class Job(Struct, frozen=True, kw_only=True):
    """A request that has been read: what an endpoint works on."""

    house: House
    estate: Estate
    language: Language
    envelope: Envelope
    visit: Visit
    reply: Reply
    http: HTTPScope
    timeout_s: float | None
    """The client's own time limit."""
    strict: bool
    while_loading: WhileLoading | None
    """The client's own choice."""

    @property
    def grant(self) -> Grant:
        assert self.visit.grant is not None, "the guard lets nobody in without one"
        return self.visit.grant


Work = Callable[[Job, Plan, Call], Awaitable[None]]
"""What an endpoint does once the routes are known."""


def endpoint(house: House, path: str, language: Language, work: Work | None = None) -> ASGIApp:
    """The ASGI application of a generating endpoint; `work` does something else than answer."""
    do = work or _answer

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]  # type: ignore[typeddict-item]
        estate: Estate = scope["estate"]  # type: ignore[typeddict-item]
        visit.route = path
        reply = Reply(
            house,
            visit,
            receive,
            send,
            language.errors,
            keep_alive=language.keep_alive,
            id_header=language.id_header,
        )
        http = cast(HTTPScope, scope)
        try:
            await admit(scope, SCOPE)
            require_method(http, "POST")
            limit = estate.config.server.body_limit_bytes
            body = await read_json(http, receive, limit, or_form=language.peek_form is not None)
            said = _said(http, language.hears)
            timeout_s = timeout_of(said[_TIMEOUT]) if _TIMEOUT in said else None
            strict = said.get(_STRICT, b"").lower() == b"true"
            visit.explain = said.get(_EXPLAIN, b"").lower() == b"true"
            if _MODE in said:
                visit.mode = cast(SelectionMode, _chosen(said, _MODE))
            while_loading = cast(WhileLoading, _chosen(said, _WHILE_LOADING)) if _WHILE_LOADING in said else None
            wish = wish_of(said)
            if language.peek_form is not None and (form := form_type(http)):
                envelope = await _peeked(language.peek_form, body, form)
            else:
                envelope = await _peeked(language.peek, body)
            heard = _DIALECT_HEADERS | language.hears
            if spoken := {n.decode(): v.decode("latin-1") for n, v in said.items() if n in heard}:
                envelope = msgspec.structs.replace(envelope, headers=spoken)
        except GatewayError as e:
            await reply.refuse(e)
            return
        except Disconnected:
            visit.status = visit.status or CLIENT_GONE
            return
        if envelope.dialect == "native" and "selection_mode" in envelope.fields:
            visit.mode = msgspec.json.decode(envelope.fields["selection_mode"])
        visit.requested, visit.streamed = envelope.model[:NAME_MAX] or "auto", envelope.stream
        visit.prices = estate.prices
        if estate.config.telemetry.log_prompts:
            note_prompt(visit, body, house.redact, form=bool(envelope.content_type))
        job = Job(
            house=house,
            estate=estate,
            language=language,
            envelope=envelope,
            visit=visit,
            reply=reply,
            http=http,
            timeout_s=timeout_s,
            strict=strict,
            while_loading=while_loading,
        )
        if wish is None:
            await answer(job)
        else:
            await answer_as_wished(job, wish, body, answer, receive, send)

    async def answer(job: Job) -> None:
        within = job.language.within
        await job.reply.attend(_done(job, do) if within is None else _surrounded(job, do, within))

    return generate


async def _surrounded(job: Job, work: Work, within: Callable[[Job], AbstractAsyncContextManager[Job]]) -> None:
    async with within(job) as inner:
        await _done(inner, work)


async def _peeked(peek: Callable[..., Envelope], body: bytes, *form: str) -> Envelope:
    """Read a body, a large one in a thread, not to hold up the loop.  Raises InvalidRequest."""
    return peek(body, *form) if len(body) < LARGE_BYTES else await asyncio.to_thread(peek, body, *form)


async def _done(job: Job, work: Work) -> None:
    """Do the work, within what the caller may use."""
    limiter, visit, grant = job.house.limiter, job.visit, job.grant
    plan, call = await planned(job)
    if limiter.idle and grant.limit is None:
        await work(job, plan, call)
        return
    try:
        given = await limiter.enter(grant, plan, job.envelope, job.estate.prices, spends=job.language.spends)
    except Forbidden:
        visit.trail += [(route.name, _UNPRICED) for route in plan.routes]
        raise
    if given.plan is not plan:
        priced = {route.key for route in given.plan.routes}
        visit.trail += [(route.name, _UNPRICED) for route in plan.routes if route.key not in priced]
    job.reply.standing = given.standing
    whole = False
    try:
        await work(job, given.plan, call)
        whole = True
    finally:
        limiter.leave(given, visit, whole=whole)


async def _answer(job: Job, plan: Plan, call: Call) -> None:
    house, visit, reply = job.house, job.visit, job.reply
    language, envelope = job.language, job.envelope
    if language.prepare is not None:
        ready = await language.prepare(house, visit, envelope, plan)
        language, envelope, plan = ready.language, ready.envelope, ready.plan
        reply.errors = language.errors
    if envelope.stream:
        reply.ping_while_waiting()
    context = Context(visit=visit, plan=plan, envelope=envelope, deadline=call.deadline, job=job)
    asked = Asked(
        plan=plan,
        envelope=envelope,
        call=call,
        visit=visit,
        parse=language.parse,
        render=None if (stream := language.stream) is None else lambda events: stream(events, context),
        mode=visit.mode,
        hurried=job.timeout_s is not None and job.timeout_s < plan.timeouts.total_s,
        patient=(job.while_loading or plan.while_loading) == "wait",
    )
    if envelope.dialect == "native":
        with_seen(visit)  # what is held back until it is whole has been seen here
    while True:
        try:
            answer = await house.dispatcher.answer(asked)
            break
        except ContextTooLong as e:
            shorter = None if language.shorten is None else await language.shorten(e)
            if shorter is None:
                raise
            asked = msgspec.structs.replace(asked, envelope=shorter)
    try:
        headers = _headers(answer, visit)
        if call.dropped:
            headers.append((b"x-gateway-dropped", header_text(", ".join(call.dropped))))
        if answer.body is not None:
            if language.keep is not None:
                await language.keep(answer, answer.body)
            await reply.whole(headers, answer.body)
        elif answer.frames is not None:
            await reply.stream(headers, answer.frames if language.watch is None else language.watch(answer))
        elif answer.events is not None:
            refined = answer.events if language.refine is None else language.refine(house, answer.events, context)
            if envelope.dialect == "native":
                refined = noted(refined, with_seen(visit))
            if envelope.stream and language.stream is not None:
                await reply.stream(headers, language.stream(refined, context))
            else:
                async with aclosing(refined) as events:
                    result = await fold(events)
                visit.usage = result.usage
                if result.vectors or result.produced:  # megabytes to encode
                    body = await asyncio.to_thread(language.whole, result, context)
                else:
                    body = language.whole(result, context)
                if language.keep is not None:
                    await language.keep(answer, body)
                await reply.whole(headers, body)
    finally:
        visit.usage = answer.tally.usage or visit.usage
        visit.answered_by, visit.finish = answer.tally.model, getattr(answer.tally, "reason", None)


async def planned(job: Job) -> tuple[Plan, Call]:
    """The routes of a request that its sender may take, and what surrounds it.  Raises ModelNotFound, Forbidden."""
    envelope, visit, grant = job.envelope, job.visit, job.grant
    estate, accounts = job.estate, job.house.archive.accounts
    own = None if accounts.idle else await accounts.of(visit, estate)
    name, modality = envelope.model, modality_of(envelope)
    if envelope.dialect == "native" and name.endswith("/"):
        name = await estate.router.only(name[:-1], modality, grant)
    plan = await estate.router.plan(name, modality, own, grant)
    if estate.prices.waits:
        await estate.prices.load()
    if grant.restricted:
        visit.reason = "not for this API key"  # unless it is
        plan = permitted(plan, grant)
    visit.reason = plan.reason
    if own is not None or estate.demanding:
        plan = served(plan, own, estate.demanding, visit)
    total_s = plan.timeouts.total_s if job.timeout_s is None else min(job.timeout_s, plan.timeouts.total_s)
    call = Call(
        request_id=visit.request_id,
        principal=grant.principal,
        deadline=asyncio.get_running_loop().time() + total_s,
        timeouts=plan.timeouts,
        wait=visit.wait,
        streamed=envelope.stream,
        strict=job.strict,
        origin=job,
    )
    visit.deadline = call.deadline
    return plan, call


def _headers(answer: Answer, visit: Visit) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers += (
        (b"x-gateway-backend", answer.route.backend.name.encode()),
        (b"x-gateway-model", header_text(answer.route.name)),
        (b"x-gateway-attempts", b"%d" % visit.attempts),
    )
    if visit.explain:
        headers.append(explained(visit))
    wait = visit.wait
    if wait.first_position is not None:
        headers.append((b"x-gateway-queue-position", b"%d" % wait.first_position))
    if wait.queue_s > WAITED_S:
        headers.append((b"x-gateway-queue-s", b"%.3f" % wait.queue_s))
    if wait.load_s > WAITED_S:
        headers.append((b"x-gateway-load-s", b"%.3f" % wait.load_s))
    return headers


def _said(scope: HTTPScope, more: frozenset[bytes]) -> dict[bytes, bytes]:
    """The headers that are read here and `more`.  Each line of a list is a part of it; of others, the last counts.

    Raises InvalidRequest where there are two keys.
    """
    said: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS or name in more:
            if name == KEY and said.get(name, value) != value:
                raise InvalidRequest(
                    "The header 'Idempotency-Key' came twice, with two keys; send one.",
                    param="Idempotency-Key",
                    code="invalid_value",
                )
            said[name] = b",".join(filter(None, (said.get(name), value))) if name in _LISTS else value
    return said


def _chosen(said: Mapping[bytes, bytes], header: bytes) -> str:
    """What a header chooses among.  Raises InvalidRequest."""
    given, name, choices = said[header].decode("latin-1"), header.decode(), _CHOICES[header]
    if given not in choices:
        raise InvalidRequest(
            f"The header '{name}' must be one of {', '.join(choices)}.", param=name, code="invalid_value"
        )
    return given


def timeout_of(header: bytes) -> float:
    """Seconds that a client gives its request.  Raises InvalidRequest."""
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise InvalidRequest("The header 'x-request-timeout' must be a number of seconds.", param="x-request-timeout")
    return seconds
