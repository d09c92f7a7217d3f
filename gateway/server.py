"""Running the application under uvicorn, with a stop that keeps its promises.

On the first SIGTERM or SIGINT the house drains while it still listens, so that /ready can say no: who
was connected by then is served, who comes later is told to go elsewhere.  Then uvicorn closes.  A
second signal ends what runs at once.  SIGHUP reads the configuration and the certificate again.
"""

import asyncio
import gc
import resource
import signal
import socket
import ssl
import sys
from functools import partial
from types import FrameType

import uvicorn

from gateway.app import Application
from gateway.connection import Connection, Terms
from gateway.listener import ignore_newcomers, keep_queues_short
from gateway.settings import Config, ConfigError, Tls
from gateway.telemetry.logging import logger

BACKLOG = 2048
FILES = 65_536
SWITCH_S = 0.0005
"""How long a thread that computes (an import, a hash, a look at a model's file) keeps the event loop from going on."""
SETTLE_S = 0.1
"""Long enough for a turn of the loop or two, in which everybody is accepted who waits in the kernel's queue."""
QUIET_S = 0.5
"""After so long without a request, a connection is taken for idle and may be closed."""


class Server(uvicorn.Server):
    def __init__(self, application: Application, config: uvicorn.Config, terms: Terms) -> None:
        super().__init__(config)
        self._application = application
        self._terms = terms
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
            for listener in self._listeners():
                keep_queues_short(listener)
            host, port = self.config.host, self.config.port
            if self.servers and self.servers[0].sockets:
                port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self.config.is_ssl else "http"
            shown = f"[{host}]" if ":" in host else host
            logger().info("gateway_started", url=f"{scheme}://{shown}:{port}")

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # of ticks of 0.1 s
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.sweep(now)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._hurry.is_set() or not self.started:
            super().handle_exit(sig, frame)
        elif self._draining is not None:
            self._hurry.set()
        else:
            self._draining = asyncio.get_running_loop().create_task(self._drain(signal.Signals(sig).name))

    async def _drain(self, by: str) -> None:
        house, terms = self._application.house, self._terms
        await asyncio.sleep(SETTLE_S)
        house.draining = terms.closing = True
        for connection in self._connections():
            connection.last_answer()
        logger().info("gateway_draining", signal=by, in_flight=len(house.guests))
        await self._empty(terms.server.drain_s)
        await house.drain(0.0)
        for listener in self._listeners():
            ignore_newcomers(listener)
        await asyncio.sleep(SETTLE_S)
        await self._empty(2 * QUIET_S)
        self.should_exit = True

    async def _empty(self, within_s: float) -> None:
        """Return when no request is under way or on its way, or the time is over, or there is hurry."""
        house, loop = self._application.house, asyncio.get_running_loop()
        end = loop.time() + within_s
        while loop.time() < end and not self._hurry.is_set():
            if not house.guests and not any(connection.expects(QUIET_S) for connection in self._connections()):
                return
            await asyncio.sleep(0.02)

    def _listeners(self) -> list[int]:
        return [listener.fileno() for server in self.servers for listener in server.sockets]

    def _connections(self) -> list[Connection]:
        return list(self.server_state.connections)  # type: ignore[arg-type]

    def _reload(self) -> None:
        self._application.reload()
        tls = self._terms.server.tls
        if self.config.ssl is None or tls.cert is None:
            return
        try:
            _try(tls)
            self.config.ssl.load_cert_chain(tls.cert, tls.key)
        except (ConfigError, OSError) as e:
            logger().error("certificate_refused", reason=str(e))
        else:
            logger().info("certificate_reloaded")


def serve(application: Application, config: Config) -> None:
    """Serve until told to stop.  Raises ConfigError."""
    server, tls = config.server, config.server.tls
    sys.setswitchinterval(SWITCH_S)
    _try(tls)
    _check_free(server.host, server.port)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which would end a gateway that is only just starting
    terms = Terms(server=server, settle=application.house.ledger.settle)
    runner = Server(
        application,
        uvicorn.Config(
            application.asgi,
            host=server.host,
            port=server.port,
            http=partial(Connection, terms=terms),  # type: ignore[arg-type]
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            # What the house's own drain leaves over gets no further grace.
            timeout_graceful_shutdown=3,
            ssl_certfile=tls.cert,
            ssl_keyfile=tls.key,
        ),
        terms,
    )
    _raise_file_limit()
    # What exists by now lives as long as the process: the collector need not look at it again, nor so often.
    gc.collect()
    gc.freeze()
    # What is left are cycles of exceptions and their frames, which may hold whole bodies.
    gc.set_threshold(2_000, 10, 20)
    try:
        runner.run()
    except SystemExit:
        if application.failure is None:
            raise
        raise application.failure from None


def _try(tls: Tls) -> None:
    """Raises ConfigError unless the certificate, if there is one, can be used."""
    if tls.cert is None:
        return
    try:
        # A key under a pass phrase is refused: nobody is there to be asked for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password=b"")
    except (OSError, ValueError) as e:
        raise ConfigError(f"server.tls: {tls.cert} and {tls.key} cannot be used: {e}") from e


def _check_free(host: str, port: int) -> None:
    """Raises ConfigError unless there is a place to listen: before anything is begun, such as a key shown once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as e:
        raise ConfigError(
            f"server.port: cannot listen on {host} port {port}: {e.strerror or e}. Give another with --port, or --host."
        ) from e


def _raise_file_limit() -> None:
    """Every connection is a file, and most systems allow 1024 unless asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
