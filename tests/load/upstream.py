"""A provider for crowds: a raw uvloop server that plays what the asked model's name says
(after a first `word-`, by which gateways know the route).

    answer:DELAY            a whole answer after DELAY seconds
    paced:COUNT:PAUSE       COUNT events, PAUSE seconds apart; unstreamed, a whole answer after all the pauses
    flood:COUNT:BYTES:PAUSE  COUNT events of BYTES, PAUSE seconds apart for as long as they are taken
    stall:COUNT             COUNT events, then silence
    silent                  never an answer
    faulty:SHARE:COUNT:PAUSE  `paced`, but SHARE of the answers fail in one of five ways
    failing                 every answer is a 500, a 503 or a reset

Every event carries the moment it left, `@SECONDS ` on the monotonic clock, which all processes share.
GET /books tells what was asked, GET /hang-up closes the connections that are idle.  Prints its port when it
listens, and ends when stdin closes.
"""

import asyncio
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop
from msgspec import Struct, field

FAULTS = ("500", "429", "reset", "cut", "silence")
MARKER = re.compile(rb"marked-[0-9a-z-]+")
"""What a request may carry anywhere in its body, to be known again in the books."""

_WHO = {"id": "chatcmpl-C9load7t2yqLw0aVfXhR4mKd1", "created": 1763712000, "model": "gpt-4o-mini-2024-07-18"}
_USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_MODEL = re.compile(rb'"model": *"(?:[a-z]+-)?([^"]+)"')
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_json = msgspec.json.encode


class Books(Struct):
    """What has happened so far."""

    asked: dict[str, int] = field(default_factory=dict)
    """Requests, by the first word of the model's name."""
    faults: dict[str, int] = field(default_factory=dict)
    answering: int = 0
    seen: list[str] = field(default_factory=list)
    """The markers that came."""
    left: dict[str, float] = field(default_factory=dict)
    """When a marked answer's connection was closed by the other side, on the monotonic clock."""


class _State:
    def __init__(self) -> None:
        self.random = random.Random(4)  # noqa: S311
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.seen: list[str] = []
        self.left: dict[str, float] = {}
        self.open: set[Upstream] = set()

    def books(self) -> Books:
        answering = sum(connection.answers for connection in self.open)
        return Books(dict(self.asked), dict(self.faults), answering, self.seen, self.left)


class Upstream(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._timer: asyncio.Handle | None = None
        self._marker = ""
        self._stream = self._paused = False
        self._resume: Callable[[], None] | None = None
        self.answers = False
        """Whether a request is being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._state.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self.answers and self._marker:
            self._state.left[self._marker] = time.monotonic()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._resume is not None:
            self._resume()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        total = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < total:
            return
        head, body = bytes(self._buffer[:end]), bytes(self._buffer[end + 4 : total])
        del self._buffer[:total]
        if head.startswith(b"POST "):
            self._ask(body)
        elif head.startswith(b"GET /hang-up "):
            for connection in [c for c in self._state.open if c is not self and not c.answers]:
                connection._transport.close()
            self._whole(b"{}")
        else:
            self._whole(_json(self._state.books()))

    def _ask(self, body: bytes) -> None:
        model, marker = _MODEL.search(body), MARKER.search(body)
        word, *arguments = (model[1] if model else b"").decode().split(":")
        self._state.asked[word] += 1
        self._marker = marker[0].decode() if marker else ""
        if marker:
            self._state.seen.append(self._marker)
        self._stream, self.answers = bool(_STREAM.search(body)), True
        play = _PLAYS.get(word)
        if play is None:
            self._whole(b'{"error":{"message":"unknown model"}}', "404 Not Found")
        else:
            play(self, *map(float, arguments))

    def _paced(self, count: float, pause_s: float, fault: str = "") -> None:
        if not self._stream:
            cut = fault == "cut"
            self._after(count * pause_s, (lambda: self._whole(_answer(), cut=cut)) if fault != "silence" else None)
            return
        self._transport.write(_HEAD + _chunk(_event({"role": "assistant", "content": ""})))
        self._tick(int(count), pause_s, fault, int(count) // 2)

    def _tick(self, left: int, pause_s: float, fault: str, fault_at: int) -> None:
        if fault and left == fault_at:
            if fault == "cut":
                self._transport.close()
            return
        if left == 0:
            self._finish()
            return
        self._transport.write(_chunk(_event({"content": f"@{time.monotonic():.6f} "})))
        self._after(pause_s, lambda: self._tick(left - 1, pause_s, fault, fault_at))

    def _flood(self, count: float, size: float, pause_s: float = 0.0) -> None:
        self._transport.write(_HEAD + _chunk(_event({"role": "assistant", "content": ""})))
        self._pour(int(count), _chunk(_event({"content": "x" * int(size)})), pause_s)

    def _pour(self, left: int, piece: bytes, pause_s: float) -> None:
        self._resume = None
        if left == 0:
            self._finish()
        elif self._paused:
            self._resume = lambda: self._pour(left, piece, pause_s)
        else:
            self._transport.write(piece)
            self._after(pause_s, lambda: self._pour(left - 1, piece, pause_s))

    def _stall(self, count: float) -> None:
        self._paced(count + 1, 0.001, "silence") if not self._stream else self._tick_then_rest(int(count))

    def _tick_then_rest(self, count: int) -> None:
        self._transport.write(_HEAD + b"".join(_chunk(_event({"content": "word "})) for _ in range(count)))

    def _faulty(self, share: float, count: float, pause_s: float) -> None:
        fault = ""
        if self._state.random.random() < share:
            fault = self._state.random.choice(FAULTS)
            self._state.faults[fault] += 1
        if fault in ("500", "429", "reset"):
            self._fail(fault)
        else:
            self._paced(count, pause_s, fault)

    def _failing(self) -> None:
        self._fail(self._state.random.choice(("500", "503", "reset")))

    def _fail(self, fault: str) -> None:
        if fault == "reset":
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )
            self._transport.abort()
        elif fault == "429":
            body = b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}'
            self._whole(body, "429 Too Many Requests\r\nretry-after: 1")
        else:
            self._whole(b'{"error":{"message":"out of order","type":"server_error"}}', f"{fault} Error")

    def _finish(self) -> None:
        end = b"".join(_chunk(piece) for piece in (_event({}, "stop"), _event(None), b"data: [DONE]\n\n"))
        self._transport.write(end + b"0\r\n\r\n")
        self.answers = False

    def _whole(self, body: bytes, status: str = "200 OK", *, cut: bool = False) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + (body[: len(body) // 2] if cut else body))
        self.answers = False
        if cut:
            self._transport.close()

    def _after(self, delay_s: float, then: Callable[[], None] | None) -> None:
        if then is not None:
            self._timer = self._loop.call_later(delay_s, then) if delay_s else self._loop.call_soon(then)


_PLAYS: dict[str, Callable[..., None]] = {
    "answer": lambda upstream, delay_s=0.0: upstream._paced(1, delay_s),
    "paced": Upstream._paced,
    "flood": Upstream._flood,
    "stall": Upstream._stall,
    "silent": lambda upstream: None,
    "faulty": Upstream._faulty,
    "failing": Upstream._failing,
}


def _answer() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "All is well."}, "finish_reason": "stop"}
    return _json({**_WHO, "object": "chat.completion", "choices": [choice], "usage": _USAGE})


def _event(delta: dict[str, str] | None, reason: str | None = None) -> bytes:
    """A chunk of an answer; without a delta, the one that has the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    usage = _USAGE if delta is None else None
    return b"data: " + _json({**_WHO, "object": "chat.completion.chunk", "choices": choices, "usage": usage}) + b"\n\n"


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


async def _serve() -> None:
    loop, state = asyncio.get_running_loop(), _State()
    server = await loop.create_server(lambda: Upstream(state), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
