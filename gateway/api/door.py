"""The front door: what happens to every request before and after any handler, as plain ASGI.

It gives the request its id and its Visit, refuses what no handler should see (a foreign Host, giant
headers, foreign origins), and settles the visit when it is over, whatever became of it.
"""

import asyncio
import re
from collections.abc import Awaitable, Mapping
from time import perf_counter

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from compat.canonical.error import (
    Anonymous,
    BudgetReached,
    Forbidden,
    GatewayError,
    HeadersTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelLoading,
    Overloaded,
    QueueFull,
    Unauthenticated,
)
from gateway.api.shape import is_anthropic, render_error
from gateway.auth.principal import Grant
from gateway.house import House
from gateway.settings import LOOPBACK
from gateway.telemetry.logging import logger, resembles_secret
from gateway.visit import Visit, new_id

HEADERS_MAX_BYTES = 32 * 1024
HEADERS_MAX = 100
LINE_MAX_BYTES = 16 * 1024
TARGET_MAX_BYTES = 8 * 1024
ID_MAX = 128
# `.` and `..` are no ids: clients resolve them in paths.
_sane_id = re.compile(rb"(?!\.{1,2}\Z)[A-Za-z0-9._\-]{1,%d}" % ID_MAX).fullmatch
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"*, authorization"),
    (b"access-control-max-age", b"600"),
]
RETRY_AFTER_MAX_S = 120
"""More than this no client waits for; it is told not to ask again by itself."""
_CLOSING = "server_shutting_down"
_PROBES = frozenset({"/health", "/ready"})
_ALWAYS_OPEN = frozenset({"/health", "/ready", "/metrics"})


class Paths:
    """Sends a request to the application of its path, and everything else to `otherwise`.

    A path is matched exactly, or as a template with one id in it, `/v1/sessions/{id}/generate`.
    """

    def __init__(self, endpoints: Mapping[str, ASGIApp], otherwise: ASGIApp) -> None:
        self._endpoints = {path: app for path, app in endpoints.items() if "{" not in path}
        self._templates = [
            (path.partition("{")[0], path.partition("}")[2], app) for path, app in endpoints.items() if "{" in path
        ]
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        app = self._endpoints.get(path) or self._of_template(path) or self._otherwise
        await app(scope, receive, send)

    def _of_template(self, path: str) -> ASGIApp | None:
        for head, tail, app in self._templates:
            id_ = path.removeprefix(head).removesuffix(tail)
            if id_ and "/" not in id_ and path == f"{head}{id_}{tail}":
                return app
        return None


class Door:
    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app = app
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        house = self._house
        raw = list(scope["headers"])
        given = next((value for name, value in raw if name == b"x-request-id"), None)
        # Whether it is one of our own secrets decides nothing that can be seen from outside.
        if given is None or not _sane_id(given) or resembles_secret(request_id := given.decode()):
            request_id, noted = new_id("req"), None
        else:
            noted = house.redact(request_id)[:ID_MAX]
        visit = Visit(
            request_id=noted or request_id,
            given_id=noted and request_id,
            method=scope["method"],
            path=scope["path"],
            began=perf_counter(),
        )
        if house.tracer is not None:
            visit.trace = house.tracer.begin(raw)
        extra = [(b"x-request-id", request_id.encode())]
        visit.anthropic = any(name == b"anthropic-version" for name, _ in raw)
        named = is_anthropic(visit)
        estate = house.estate
        visit.presence = scope.get("presence")  # type: ignore[assignment]
        scope["visit"] = visit  # type: ignore[typeddict-unknown-key]
        scope["estate"] = estate  # type: ignore[typeddict-unknown-key]

        def authenticate() -> Awaitable[Grant]:
            return estate.entry.grant(raw, house.archive.issued)

        scope["authenticate"] = authenticate  # type: ignore[typeddict-unknown-key]

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = [*message["headers"], *extra]
                if named and all(name != b"request-id" for name, _ in headers):  # which a provider may have given
                    headers.append((b"request-id", request_id.encode()))
                message["headers"] = headers
                if visit.presence is not None:
                    visit.presence.answering()
            await send(message)

        house.enter(visit)
        try:
            try:
                origin = self._admit(scope, raw, visit.presence is None or visit.presence.late)
            except GatewayError as e:
                visit.code = e.word
                await refuse(e, send_noted, visit)
                return
            if origin is not None:
                extra += _cors_headers(origin)
                if scope["method"] == "OPTIONS":
                    await send_noted({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
                    await send_noted({"type": "http.response.body", "body": b"", "more_body": False})
                    return
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if id(visit) not in house.expelled or visit.status or task is None:
                raise
            task.uncancel()
            visit.code = _CLOSING
            await refuse(
                Overloaded("The gateway is shutting down.", code=_CLOSING, retry_after_s=1.0), send_noted, visit
            )
        except Exception as e:
            # Those who answer tell their own faults; here nothing may be left to the server, which knows no dialect.
            if visit.status:
                raise
            logger().error("request_failed", request_id=visit.request_id, exc_info=e)
            error = InternalError("The gateway failed to handle this request.")
            visit.code = error.word
            await refuse(error, send_noted, visit)
        finally:
            house.leave(visit)
            if not visit.handed_on:
                house.ledger.settle(visit)

    def _admit(self, scope: HTTPScope, raw: list[tuple[bytes, bytes]], late: bool) -> str | None:
        """Refuse what no handler should see; returns the origin that must be told it may read the answer."""
        size, longest, hosts, origin = 0, 0, [], None
        for name, value in raw:
            length = len(name) + len(value)
            size += length
            if length > longest:
                longest = length
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
        if size > HEADERS_MAX_BYTES:
            raise HeadersTooLarge(f"The request's headers exceed {HEADERS_MAX_BYTES} bytes.")
        if longest > LINE_MAX_BYTES:
            raise HeadersTooLarge(f"One of the request's headers exceeds {LINE_MAX_BYTES} bytes.")
        if len(raw) > HEADERS_MAX:
            raise HeadersTooLarge(f"The request has more than {HEADERS_MAX} headers.")
        if len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_MAX_BYTES:
            raise HeadersTooLarge(f"The request's path and query exceed {TARGET_MAX_BYTES} bytes.")
        server, auth = self._house.estate.config.server, self._house.estate.config.auth
        if len(hosts) > 1:
            raise InvalidRequest("The request has more than one Host header.")
        if not hosts and scope["http_version"] == "1.1":
            raise InvalidRequest("The request has no Host header.")
        host = _host_name(hosts[0].decode("latin-1")) if hosts else ""
        allowed = server.allowed_hosts or ((*LOOPBACK, server.host) if auth.mode == "local" else None)
        probed = scope["path"] in _PROBES  # by address, whatever names there are
        if allowed is not None and host not in allowed and not probed and not (host == "" and not hosts):
            # A page on another name that resolves to us (DNS rebinding) shows here.
            raise Forbidden(
                "This gateway does not answer to that Host; add it to server.allowed_hosts.", code="host_not_allowed"
            )
        shared: str | None = None
        if origin is not None:
            text, own = origin.decode("latin-1"), hosts[0].decode("latin-1") if hosts else ""
            if text in server.cors_origins:
                shared = text
            elif scope["method"] not in _SAFE and (not own or text.partition("://")[2] != own):
                raise Forbidden(
                    "Requests from that origin are not allowed; add it to server.cors_origins.",
                    code="origin_not_allowed",
                )
        if self._house.draining and late and scope["path"] not in _ALWAYS_OPEN:
            raise Overloaded("The gateway is shutting down.", code=_CLOSING, retry_after_s=1.0)
        return shared


def _cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def _host_name(host: str) -> str:
    """The name in a Host header, without port, brackets or case; "?" when it is malformed."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        ok = bracket and (not port or re.fullmatch(r":\d{1,5}", port))
    else:
        name, _, port = host.partition(":")
        ok = re.fullmatch(r"[A-Za-z0-9._\-]+", name) and (not port or re.fullmatch(r"\d{1,5}", port))
    return name.lower() if ok else "?"


async def refuse(error: GatewayError, send: Send, visit: Visit) -> None:
    """Answer with an error and close."""
    body = render_error(error, visit)
    headers = [*error_headers(error), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def error_headers(error: GatewayError, *, attempted: bool = False) -> list[tuple[bytes, bytes]]:
    """The headers that go with an error answer.

    attempted: a backend was asked, so the gateway's own retries are spent and the client's would multiply them.
    """
    headers = [(b"content-type", b"application/json")]
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, Unauthenticated):
        challenge = b"Bearer" if isinstance(error, Anonymous) else b'Bearer error="invalid_token"'
        headers.append((b"www-authenticate", challenge))
    spent = False
    if error.retry_after_s is not None:
        headers.append(
            (b"retry-after", str(max(1, min(RETRY_AFTER_MAX_S, round(error.retry_after_s + 0.49)))).encode())
        )
        spent = isinstance(error, BudgetReached) and error.retry_after_s > RETRY_AFTER_MAX_S
    waits = isinstance(error, (QueueFull, ModelLoading))  # waiting is up to the client
    if error.final or spent or (attempted and error.retryable and not waits):
        headers.append((b"x-should-retry", b"false"))
    return headers
