"""The program of a fake llama-server: takes its options, loads nothing, and answers with words at once.

For what the gateway itself adds: an engine that takes no time.
"""

import asyncio
import sys
from pathlib import Path

WORDS = 16
_CHUNK = (
    'data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake",'
    '"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]{usage}}}\n\n'
)


def _events() -> bytes:
    pieces = ['{"role":"assistant","content":null}', *(f'{{"content":"w{n} "}}' for n in range(WORDS))]
    chunks = [_CHUNK.format(delta=piece, reason="null", usage="") for piece in pieces]
    usage = f',"usage":{{"prompt_tokens":1,"completion_tokens":{WORDS},"total_tokens":{WORDS + 1}}}'
    return "".join([*chunks, _CHUNK.format(delta="{}", reason='"stop"', usage=usage), "data: [DONE]\n\n"]).encode()


EVENTS = _events()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    await reader.readexactly(length)
    if head.startswith(b"GET"):
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"status":"ok"}')
    else:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + EVENTS)
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(f"main: server is listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def program(folder: Path) -> Path:
    """A program that runs this, to be named as `llama_server`."""
    path = folder / "fake-llama-server"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    asyncio.run(main())
