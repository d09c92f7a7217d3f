"""How the bytes of an artifact are sent: whole or a part of them, from the store to the client piece by piece.

They are a stranger's.  Whatever they are, a browser runs nothing of them: it is told not to guess their type, gets what
is no picture as a file to save, and anything in a sandbox in which nothing is allowed.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from litestar.types import ASGIApp, Receive, Scope, Send

from compat.canonical.error import GatewayError, InvalidRequest
from gateway.api.door import error_headers
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import Asked, visit_of
from gateway.api.shape import render_error
from gateway.artifacts.artifact import Artifact
from gateway.artifacts.filename import filename
from gateway.house import House
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.visit import Visit

Header = tuple[bytes, bytes]
Span = tuple[int, int]
"""The first byte, and the one behind the last."""

SHOWN = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
"""What a browser may show where it stands; SVG is a program, and everything else is saved."""
_media_type = re.compile(r"[a-z0-9][a-z0-9._+-]*/[a-z0-9][a-z0-9._+-]*(; ?charset=[a-z0-9_-]+)?", re.ASCII).fullmatch
_range = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE).fullmatch
_POLICY = b"sandbox; default-src 'none'"


class Content:
    """The answer to a GET or HEAD, as an ASGI application."""

    def __init__(
        self, house: House, request: Asked, artifact: Artifact, *, download: bool = False, fresh_s: int | None = None
    ) -> None:
        """fresh_s: for how long it may be shown again without asking; None: it is asked for by key, every time."""
        self._house = house
        self._visit = visit_of(request)
        self._artifact = artifact
        self._head = request.method == "HEAD"
        self._asked = dict(request.scope["headers"])
        self._headers = headers(artifact, download=download, fresh_s=fresh_s)

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Ends at once when the client leaves."""
        visit, me, gone = self._visit, asyncio.current_task(), False

        def leave() -> None:
            nonlocal gone
            gone = True
            if me is not None:
                me.cancel()

        stop = _watching(visit, receive, leave)
        try:
            await self._answer(send)
        except asyncio.CancelledError:
            if me is None or not (gone or id(visit) in self._house.expelled):
                raise
            me.uncancel()
            if gone:
                visit.status, visit.code = CLIENT_GONE, "client_gone"
        finally:
            stop()

    async def _answer(self, send: Send) -> None:
        artifact, asked = self._artifact, self._asked
        if _is_known(asked, artifact):
            unsaid = (b"content-type", b"content-disposition")
            await _start(send, 304, [header for header in self._headers if header[0] not in unsaid])
            return await _end(send)
        size = artifact.size_bytes
        span = None if self._head else _span(asked, artifact)
        if span == "none":
            return await self._refuse(send)
        start, end = span or (0, size)
        sent = [*self._headers, (b"content-length", b"%d" % (end - start))]
        if span is not None:
            sent.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        if self._head or start == end:
            await self._house.cabinet.artifacts.there(artifact)
            await _start(send, 200, sent)
            return await _end(send)
        await self._stream(send, 200 if span is None else 206, sent, start, end)

    async def _stream(self, send: Send, status: int, sent: list[Header], start: int, end: int) -> None:
        began = False
        try:
            async with aclosing(self._house.cabinet.artifacts.pieces(self._artifact, start, end)) as pieces:
                async for piece in pieces:
                    if not began:
                        # Not before: what is not there can still be told.
                        await _start(send, status, sent)
                        began = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except GatewayError as e:
            if not began:
                raise
            # Its length was announced: the client sees that it is cut off when the line is closed.
            self._visit.code = e.word
            logger().warning("artifact_cut", request_id=self._visit.request_id, artifact=self._artifact.id)
            return
        await _end(send)

    async def _refuse(self, send: Send) -> None:
        size = self._artifact.size_bytes
        error = InvalidRequest(
            f"The header 'range' asks for nothing of the {size} bytes there are.", param="range", code="invalid_range"
        )
        error.status = 416
        self._visit.code = error.word
        body = render_error(error, self._visit)
        length = (b"content-length", b"%d" % len(body))
        await _start(send, 416, [*error_headers(error), length, (b"content-range", b"bytes */%d" % size)])
        await send({"type": "http.response.body", "body": body, "more_body": False})


def bodiless(status: int, headers: list[Header]) -> ASGIApp:
    """An answer of a head alone."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await _start(send, status, [*headers, (b"content-length", b"0")])
        await _end(send)

    return app


def headers(artifact: Artifact, *, download: bool, fresh_s: int | None) -> list[Header]:
    """All but those of a range and of the length."""
    mime = artifact.mime if _media_type(artifact.mime) else "application/octet-stream"
    if mime.startswith("text/") and ";" not in mime:
        mime += "; charset=utf-8"
    kept = b"private, no-cache" if fresh_s is None else b"private, max-age=%d" % fresh_s
    return [
        (b"content-type", mime.encode()),
        (b"content-disposition", disposition(artifact, download=download).encode()),
        (b"etag", _tag(artifact)),
        (b"last-modified", format_datetime(_made(artifact), usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", kept),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", _POLICY),
        # A signed URL may be put into anybody's page; what comes by key is nobody's picture.
        (b"cross-origin-resource-policy", b"same-origin" if fresh_s is None else b"cross-origin"),
        (b"referrer-policy", b"no-referrer"),
    ]


def disposition(artifact: Artifact, *, download: bool) -> str:
    """Whether it is shown or saved, and under which name.  Source: RFC 6266, of which ASCII alone comes of this."""
    how = "inline" if artifact.mime in SHOWN and not download else "attachment"
    name = filename(artifact.name, artifact.mime, artifact.id)
    plain = re.sub(r"[^A-Za-z0-9 ._()\[\]+@=,-]", "_", name)
    said = f'{how}; filename="{plain}"'
    return said if plain == name else f"{said}; filename*=UTF-8''{quote(name, safe='')}"


def _watching(visit: "Visit", receive: Receive, leave: Callable[[], None]) -> Callable[[], object]:
    """Have `leave` called when the client has gone; what is returned ends that."""
    presence = visit.presence
    if presence is not None:
        presence.watch(leave)
        return lambda: presence.unwatch(leave)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        leave()

    return asyncio.create_task(watch()).cancel


def _is_known(asked: dict[bytes, bytes], artifact: Artifact) -> bool:
    """Whether the client has it already."""
    known = asked.get(b"if-none-match")
    if known is not None:
        tags = {tag.strip().removeprefix(b"W/") for tag in known.split(b",")}
        return b"*" in tags or _tag(artifact) in tags
    since = _date(asked.get(b"if-modified-since"))
    return since is not None and _made(artifact) <= since


def _span(asked: dict[bytes, bytes], artifact: Artifact) -> Span | Literal["none"] | None:
    """What is asked for of it; None is all, also where several parts are, or something that is no range."""
    given = _range(asked.get(b"range", b"").decode("latin-1"))
    if given is None or given[1] + given[2] == "" or not _still(asked.get(b"if-range"), artifact):
        return None
    size, first, last = artifact.size_bytes, given[1], given[2]
    if not first:
        start, end = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else "none"


def _still(condition: bytes | None, artifact: Artifact) -> bool:
    """Whether it is what a client has the beginning of."""
    if condition is None or condition.strip() == _tag(artifact):
        return True
    return not condition.startswith((b'"', b"W/")) and _date(condition) == _made(artifact)


def _tag(artifact: Artifact) -> bytes:
    return b'"%b"' % artifact.sha256.encode()


def _made(artifact: Artifact) -> datetime:
    return datetime.fromtimestamp(int(artifact.created_at), UTC)


def _date(given: bytes | None) -> datetime | None:
    try:
        date = parsedate_to_datetime((given or b"").decode("latin-1"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})
