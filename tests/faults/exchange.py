"""One request to the fault provider, and the ways to answer it: as bytes, with nothing done for the sender."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.dialects import Ask, dialect

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
SETTLE_S = 0.2
"""Time for the client to read what was sent before the connection breaks: a reset overtakes bytes."""


class Exchange:
    def __init__(self, ask: Ask, number: int, writer: asyncio.StreamWriter) -> None:
        self.ask = ask
        self.number = number
        """How many requests for this model came before."""
        self.dialect = dialect(ask, id(self) % 1_000_000_007)
        self.arrived = time.monotonic()
        self.left: float | None = None
        """When the client hung up before its answer was complete, on the monotonic clock."""
        self.over: float | None = None
        """When nothing more was to be said, or nobody there to hear it."""
        self.broken = False
        """The connection cannot be used again."""
        self._writer = writer

    async def answer(self, body: bytes, status: str = "200 OK", media: str = JSON, **headers: str) -> None:
        """One whole response."""
        await self.head(status, media, content_length=str(len(body)), **headers)
        await self.raw(body)

    async def head(self, status: str = "200 OK", media: str = SSE, **headers: str) -> None:
        """The head of a response; chunked, if no length is given."""
        given = {"content-type": media} | {name.replace("_", "-"): value for name, value in headers.items()}
        if "content-length" not in given:
            given["transfer-encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        await self.raw("\r\n".join(lines).encode())

    async def piece(self, data: bytes) -> None:
        """One chunk of a chunked body."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """The end of a chunked body."""
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Hang up, what was written first."""
        await asyncio.sleep(SETTLE_S)
        self.broken = True
        self._writer.close()

    async def reset(self) -> None:
        """Hang up without a farewell."""
        await asyncio.sleep(SETTLE_S)
        self.broken = True
        abort(self._writer)

    async def half_close(self) -> None:
        """Say that nothing more comes, and stay."""
        await asyncio.sleep(SETTLE_S)
        self.broken = True
        self._writer.write_eof()
        await forever()

    def record(self) -> dict[str, Any]:
        """What is told of it: times on the machine's monotonic clock, in seconds."""
        return {
            "model": self.ask.model, "path": self.ask.path, "number": self.number, "at": self.arrived,
            "left": self.left, "over": self.over, "prefill": self.ask.prefill, "body": self.ask.body,
        }  # fmt: skip


Script = Callable[..., Awaitable[None]]
"""Takes the exchange, then the arguments in the fault's name, as strings."""


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def forever() -> None:
    await asyncio.Event().wait()
