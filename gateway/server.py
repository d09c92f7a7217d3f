"""Running the application under uvicorn, with a stop that keeps its promises.

On the first SIGTERM or SIGINT the house drains while it still listens, so that /ready can say no;
then uvicorn closes.  A second signal ends it at once.
"""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import Application
from gateway.config import Config
from gateway.telemetry.logging import logger


class _Corked:
    """A transport that sends what is written within one turn of the loop in one go.

    The head of an answer and its first bytes then cost one system call and travel in one segment.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces = self._pieces
        if pieces:
            self._pieces = []
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also tells whoever answers when the client has gone.

    ASGI has only `receive` for that, which takes a task for each request.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gone = False
        self._watchers: list[Callable[[], None]] = []
        super().connection_made(_Corked(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.scope["presence"] = self  # type: ignore[typeddict-unknown-key]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone = True
        for watcher in self._watchers:
            watcher()

    def watch(self, on_leaving: Callable[[], None]) -> None:
        # A large body may have paused reading, and what is not read cannot be seen to end.
        self.flow.resume_reading()
        self._watchers.append(on_leaving)
        if self._gone:
            self.loop.call_soon(on_leaving)

    def unwatch(self, on_leaving: Callable[[], None]) -> None:
        self._watchers.remove(on_leaving)


class Server(uvicorn.Server):
    def __init__(self, application: Application, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._application = application
        self._drain_s = application.house.estate.config.server.drain_s
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.config.host, self.config.port
            if self.servers and self.servers[0].sockets:
                port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self.config.is_ssl else "http"
            shown = f"[{host}]" if ":" in host else host
            logger().info("gateway_started", url=f"{scheme}://{shown}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or not self.started:
            super().handle_exit(sig, frame)
            return
        loop = asyncio.get_running_loop()
        self._draining = loop.create_task(self._drain(signal.Signals(sig).name))

    async def _drain(self, by: str) -> None:
        house = self._application.house
        logger().info("gateway_draining", signal=by, in_flight=len(house.guests))
        await house.drain(self._drain_s)
        self.should_exit = True


def serve(application: Application, config: Config) -> None:
    """Serve until told to stop."""
    server, tls = config.server, config.server.tls
    runner = Server(
        application,
        uvicorn.Config(
            application.asgi,
            host=server.host,
            port=server.port,
            http=_Protocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # What the house's own drain leaves over gets no further grace.
            timeout_graceful_shutdown=3,
            ssl_certfile=tls.cert,
            ssl_keyfile=tls.key,
        ),
    )
    # What exists by now lives as long as the process: the collector need not look at it again, nor so often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    runner.run()
