"""Feeds of events (SSE) of what the gateway does: sent as they come, kept alive, and ended when the gateway stops."""

import asyncio
from collections.abc import AsyncGenerator

from litestar.types import ASGIApp, Receive, Scope, Send
from sse_starlette import EventSourceResponse, ServerSentEvent

from gateway.api.resource import Asked, visit_of
from gateway.house import House

PING_S = 15
SEND_S = 60.0
"""How long a watcher may take nothing."""


def event(name: str, data: bytes) -> ServerSentEvent:
    """data: JSON."""
    return ServerSentEvent(data.decode(), event=name, sep="\n")


def feed(request: Asked, house: House, events: AsyncGenerator[ServerSentEvent, None]) -> ASGIApp:
    """The answer that sends these events; they are closed with it, however it ends."""
    answer = EventSourceResponse(events, ping=PING_S, sep="\n", send_timeout=SEND_S)
    watching = visit_of(request)
    watching.watches = True

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answer(scope, receive, send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            # When the gateway stops, whoever watches is sent away like all others; its events are whole.
            if id(watching) not in house.expelled or (task := asyncio.current_task()) is None:
                raise
            task.uncancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await events.aclose()

    return app
