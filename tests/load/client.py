"""A client for crowds: one connection, raw HTTP/1.1, that says of every answer whether it came whole."""

import asyncio
import contextlib
import json
import re
import socket
import time
from typing import Any, Final, cast

from msgspec import Struct, field

from tests.http import CHAT

MESSAGES: Final = "/v1/messages"
GENERATE: Final = "/v1/generate"
KEY = "sk-load-0123456789abcdef0123456789abcdef"

_STAMP = re.compile(rb"@(\d+\.\d{6}) ")
_CODE = re.compile(rb'"code": ?"([a-z_]+)"')
_TYPE = re.compile(rb'"type": ?"([a-z_]+_error)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TERMINALS = {
    CHAT: b"data: [DONE]",
    MESSAGES: b"event: message_stop",
    GENERATE: b"event: generation.completed",
}
_ERRORS = (b'data: {"error"', b"event: error")


class Answer(Struct):
    """What came back for one request."""

    status: int = 0
    code: str = ""
    """Of the error it told; empty for none."""
    events: int = 0
    terminal: bool = False
    """Whether the stream said that it is complete."""
    whole: bool = False
    """Whether HTTP's own end came: the length, or the last chunk."""
    broken: str = ""
    """Why no more came."""
    bytes: int = 0
    delays: list[float] = field(default_factory=list)
    """Seconds from an event's leaving the provider to its arrival here."""

    @property
    def good(self) -> bool:
        return self.status == 200 and self.whole and not self.code

    @property
    def told(self) -> bool:
        """Whether it ended in a way a client can read: an answer, or an error that is one."""
        return self.whole and (self.good or bool(self.code))


def request(model: str, path: str = CHAT, *, stream: bool = True, text: str = "Say hello.") -> bytes:
    body: dict[str, Any] = {"model": model, "stream": stream}
    if path == GENERATE:
        body["input"] = {"prompt": text}
    else:
        body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 256}
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._text = bytearray()
        self._left: int | None = None
        self._path = CHAT
        self._over: asyncio.Future[None] | None = None
        self.answer = Answer()
        self.open = True
        self.body = b""
        """Of the last answer that was not streamed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._end("reset" if exc is not None else "closed")

    async def ask(self, what: bytes, timeout_s: float = 120.0) -> Answer:
        """Send a request; returns when its answer is over, in whatever way."""
        over = self.send(what)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(over)
        except TimeoutError:
            self._end("no end in time")
            self.transport.abort()
        return self.answer

    def send(self, what: bytes) -> "asyncio.Future[None]":
        """Send a request; the future is done when its answer is over."""
        self.answer, self._left = Answer(), None
        self._buffer.clear()
        self._text.clear()
        self._path = what[: what.index(b" HTTP/")].split(b" ")[1].decode()
        self._over = asyncio.get_running_loop().create_future()
        if self.open:
            self.transport.write(what)
        else:
            self._end("closed")
        return self._over

    def leave(self, *, reset: bool = False) -> None:
        if reset:
            with contextlib.suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                )
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if self._over is None or self._over.done():
            return
        buffer = self._buffer
        buffer += data
        self.answer.bytes += len(data)
        if not self.answer.status:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.answer.status = int(buffer[9:12])
            length = _LENGTH.search(buffer, 0, end)
            self._left = int(length[1]) if length else None
            del buffer[: end + 4]
        if self._left is None:
            self._take_chunks(now)
        elif len(buffer) >= self._left:
            self.body = bytes(buffer[: self._left])
            if self.answer.status != 200:
                self.answer.code = _code(self.body)
            self.answer.whole = True
            self._end("")

    def _take_chunks(self, now: float) -> None:
        buffer, at = self._buffer, 0
        while (line := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:line], 16)
            if len(buffer) < line + size + 4:
                break
            self._text += buffer[line + 2 : line + 2 + size]
            at = line + size + 4
            if size == 0:
                # A stream is whole when it says so itself, or tells an error.
                self.answer.whole = self.answer.terminal or bool(self.answer.code)
                self._end("" if self.answer.whole else "no terminal event")
                return
            self._take_events(now)
        del buffer[:at]

    def _take_events(self, now: float) -> None:
        text, at = self._text, 0
        while (end := text.find(b"\n\n", at)) >= 0:
            event = bytes(text[at:end])
            at = end + 2
            if event.startswith(b":"):
                continue
            self.answer.events += 1
            if stamp := _STAMP.search(event):
                # The event that completes a native answer repeats all of its text.
                if not event.startswith(_TERMINALS[GENERATE]):
                    self.answer.delays.append(now - float(stamp[1]))
            elif event.startswith(_ERRORS):
                self.answer.code = _code(event) or "unreadable"
            self.answer.terminal = self.answer.terminal or event.startswith(_TERMINALS[self._path])
        del text[:at]

    def _end(self, broken: str) -> None:
        if self._over is not None and not self._over.done():
            self.answer.broken = broken
            self._over.set_result(None)


def _code(error: bytes) -> str:
    """OpenAI's code, else the type; empty when it is not an error's body."""
    found = _CODE.search(error) or _TYPE.search(error)
    return found[1].decode() if found else ""


async def connect(port: int, *, receive_buffer: int | None = None) -> Connection:
    """Raises OSError."""
    loop = asyncio.get_running_loop()
    plain = socket.socket()
    try:
        plain.setblocking(False)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(plain, ("127.0.0.1", port))
        _, connection = await loop.create_connection(Connection, sock=plain)
    except BaseException:
        plain.close()
        raise
    return connection


async def once(port: int, what: bytes, timeout_s: float = 30.0) -> tuple[Answer, bytes]:
    """One request over a connection of its own, and the body of the answer."""
    connection = await connect(port)
    try:
        return await connection.ask(what, timeout_s), connection.body
    finally:
        connection.leave()


async def latencies(port: int, seconds: float, every_s: float = 0.05) -> list[float]:
    """How long GET /health takes, again and again, each time over a new connection; a failure counts as 60 s."""
    loop, took = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    while (began := loop.time()) < end:
        try:
            answer, _ = await once(port, get("/health"))
            took.append(loop.time() - began if answer.good else 60.0)
        except OSError:
            took.append(60.0)
        await asyncio.sleep(max(0.0, began + every_s - loop.time()))
    return took
