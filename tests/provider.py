"""A provider on loopback that speaks OpenAI's wire format, and misbehaves on demand.

The requested model's name says what it does (`tests.scripts`; `name:argument:…`), or a test adds a
script of its own.  It remembers every request as it came, and when its client hung up.
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from tests import wire
from tests.exchange import Exchange, Script
from tests.scripts import SCRIPTS


class _Connection(asyncio.Protocol):
    def __init__(self, provider: "Provider") -> None:
        self._provider = provider
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._provider.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, ends, rest = self._buffer.partition(b"\r\n\r\n")
        if not ends:
            return
        exchange = Exchange(head, b"", self._transport)
        length = int(exchange.headers.get("content-length", "0"))
        if len(rest) >= length:
            exchange.body, self._buffer = rest[:length], rest[length:]
            self._task = asyncio.get_running_loop().create_task(self._play(exchange))

    async def _play(self, exchange: Exchange) -> None:
        try:
            await self._provider.play(exchange)
        except asyncio.CancelledError:
            exchange.left_at = time.monotonic()
        except Exception as e:
            self._provider.broken.append(e)
            self._transport.abort()
        finally:
            exchange.over.set()


class Provider:
    def __init__(self) -> None:
        self.url = ""
        """The base URL, up to and including /v1."""
        self.seen: list[Exchange] = []
        self.scripts: dict[str, Script] = {}
        """A test's own behaviours, by model name or path."""
        self.connections = 0
        """Made to it so far."""
        self.broken: list[Exception] = []
        """What went wrong in scripts: the tests' own faults."""
        self._news = threading.Condition()

    async def play(self, exchange: Exchange) -> None:
        with self._news:
            self.seen.append(exchange)
            self._news.notify_all()
        if (custom := self.scripts.get(exchange.path)) is not None:
            await custom(exchange)
            return
        if exchange.path == "/v1/models":
            exchange.answer(wire.models())
            return
        name, *arguments = exchange.model.split(":")
        script = self.scripts.get(exchange.model) or SCRIPTS.get(name)
        if script is None:
            exchange.answer(wire.error("The model does not exist.", code="model_not_found"), "404 Not Found")
            return
        await script(exchange, *arguments)

    def asked(self, marker: str = "", count: int = 1, timeout_s: float = 5.0) -> Exchange:
        """The count-th completion request whose body holds the marker, waited for."""

        def found() -> list[Exchange]:
            return [x for x in self.seen if x.path != "/v1/models" and marker.encode() in x.body]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= count, timeout_s), f"not asked {count}×: {marker!r}"
            return found()[count - 1]

    def forget(self) -> None:
        self.seen.clear()
        self.scripts.clear()
        self.broken.clear()


@contextmanager
def provider(tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """Run a provider on a free port, in a thread with a loop of its own."""
    running = Provider()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: _Connection(running), "127.0.0.1", 0, backlog=512, ssl=tls)
    )
    scheme = "http" if tls is None else "https"
    running.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    try:
        yield running
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
