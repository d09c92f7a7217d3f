"""A provider that costs next to nothing: precomputed bytes over a raw uvloop server.

Every event is a write of its own with a turn of the loop between, so a proxy sees what a real
provider sends: many small reads.  Prints its port when it listens, and ends when stdin closes.
"""

import argparse
import asyncio
import re
import socket
import sys
from typing import cast

import uvloop
from msgspec import Struct

from tests.bench import chat, embeddings, messages
from tests.bench.passage import compact

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_USAGE = re.compile(rb'"include_usage": *true')
_PACED = chat.PACED.encode()


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunks(frames: list[bytes]) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    cut = [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames]
    # Head and first event leave together, as a provider's do; so do [DONE] and the end of the body.
    return [head + cut[0], *cut[1:-1], cut[-1] + b"0\r\n\r\n"]


class Answers(Struct, frozen=True):
    """What one path answers with."""

    whole: bytes
    stream: list[bytes] = []
    stream_usage: list[bytes] = []
    """The stream for those who ask for its usage, where the dialect lets them."""


_MESSAGES = _chunks(messages.events())
ANSWERS = {
    b"/v1/chat/completions": Answers(
        _whole(chat.answer()), _chunks(chat.events(usage=False)), _chunks(chat.events(usage=True))
    ),
    b"/v1/completions": Answers(
        _whole(chat.legacy_answer()), _chunks(chat.legacy_events(usage=False)), _chunks(chat.legacy_events(usage=True))
    ),
    b"/v1/embeddings": Answers(_whole(embeddings.answer())),
    b"/v1/messages": Answers(_whole(messages.answer()), _MESSAGES, _MESSAGES),
}
MODELS = _whole(
    compact({"object": "list", "data": [{"id": chat.HEAD["model"], "object": "model", "owned_by": "bench"}]}).encode()
)
MISSING = _whole(b'{"error":{"message":"unknown path","type":"invalid_request_error"}}', "404 Not Found")


class Upstream(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

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
        method, path, _ = head.split(b" ", 2)
        found = ANSWERS.get(path) if method == b"POST" else None
        if found is None:
            self._transport.write(MODELS if head.startswith(b"GET /v1/models") else MISSING)
        elif _STREAM.search(body) and found.stream:
            frames = found.stream_usage if _USAGE.search(body) else found.stream
            self._task = asyncio.get_running_loop().create_task(
                self._send(frames, self._pause_s if _PACED in body else 0)
            )
        else:
            self._transport.write(found.whole)

    async def _send(self, frames: list[bytes], pause_s: float) -> None:
        for frame in frames:
            self._transport.write(frame)
            await asyncio.sleep(pause_s)


async def _serve(pause_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(pause_s), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pause-ms", type=float, default=5.0, help="between events of a paced stream")
    uvloop.run(_serve(parser.parse_args().pause_ms / 1000))


if __name__ == "__main__":
    main()
