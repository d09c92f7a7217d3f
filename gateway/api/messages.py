"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect."""

from collections.abc import AsyncGenerator

import msgspec
from litestar.types import ASGIApp

from backends.base import Call, CountsTokens
from compat.anthropic.answer import PING, render_events, render_result
from compat.anthropic.envelope import peek, peek_count
from compat.anthropic.error import render_error, render_error_frame
from compat.anthropic.messages import parse_request
from compat.canonical.error import BackendError, GatewayError, InvalidRequest
from compat.canonical.event import Event, Result
from compat.canonical.request import Envelope
from gateway.api.generation import Context, Job, Language, endpoint
from gateway.api.reply import explained, header_text
from gateway.house import House
from gateway.routing.router import Plan
from gateway.routing.selection import select


class AnthropicErrors:
    def body(self, error: GatewayError) -> bytes:
        return render_error(error)

    def frame(self, error: GatewayError) -> bytes:
        return render_error_frame(error)


def _thinks(envelope: Envelope) -> bool:
    """Whether the client asked to see thinking: one that did not may take the first block for the answer."""
    raw = envelope.fields.get("thinking")
    thinking = msgspec.json.decode(raw) if raw is not None else None
    if not isinstance(thinking, dict) or thinking.get("display") == "omitted":
        return False
    return thinking.get("type") not in (None, "disabled")


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    return render_events(events, thinking=_thinks(context.envelope))


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, thinking=_thinks(context.envelope))


async def _count(job: Job, plan: Plan, call: Call) -> None:
    """Count with the first model that would answer and can: another's tokens are not quite its own."""
    house, visit, envelope = job.house, job.visit, job.envelope
    in_order = msgspec.structs.replace(plan, strategy="order")
    failure: GatewayError | None = None
    for route in select(in_order, envelope, house.book, visit.mode, visit):
        if not isinstance(route.backend, CountsTokens):
            visit.trail.append((route.name, "cannot count tokens"))
            continue
        visit.backend, visit.model, visit.own_key = route.backend.name, route.model, route.account is not None
        visit.attempts += 1
        call.dropped.clear()
        try:
            count = await route.backend.count_tokens(envelope, route.model, call)
        except GatewayError as e:
            visit.trail.append((route.name, e.word))
            if not isinstance(e, BackendError):
                raise
            failure = e
            continue
        visit.trail.append((route.name, "answered with your own key" if visit.own_key else "answered"))
        break
    else:
        raise failure or InvalidRequest(
            f"Backend '{route.backend.name}' cannot count tokens; Anthropic's and local models can.",
            param="model",
            code="unsupported_value",
        )
    headers = [
        (b"x-gateway-backend", route.backend.name.encode()),
        (b"x-gateway-model", header_text(route.name)),
        (b"x-gateway-attempts", b"%d" % visit.attempts),
    ]
    if visit.explain:
        headers.append(explained(visit))
    if call.dropped:
        headers.append((b"x-gateway-dropped", header_text(", ".join(call.dropped))))
    await job.reply.whole(headers, msgspec.json.encode({"input_tokens": count}))


LANGUAGE = Language(
    peek=peek,
    parse=parse_request,
    whole=_whole,
    stream=_stream,
    errors=AnthropicErrors(),
    keep_alive=PING,
    id_header=b"request-id",
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    path, count = "/v1/messages", "/v1/messages/count_tokens"
    counting = msgspec.structs.replace(LANGUAGE, peek=peek_count, spends=False)
    return {path: endpoint(house, path, LANGUAGE), count: endpoint(house, count, counting, _count)}
