"""One request to the provider, and what becomes of it."""

import asyncio
import io
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import multipart  # type: ignore[import-untyped]

HEADERS = {
    "x-request-id": "req_of_the_provider",
    "x-ratelimit-remaining-requests": "99",
    "openai-processing-ms": "17",
    "set-cookie": "session=provider-cookie-canary",
    "authorization": "Bearer provider-echo-canary",
    "x-internal-host": "10.1.2.3",
}


class Exchange:
    """One request to the provider, and what became of it."""

    def __init__(self, head: bytes, body: bytes, transport: asyncio.Transport) -> None:
        self.head = head
        self.body = body
        self.arrived = time.monotonic()
        self.left_at: float | None = None
        """When the client hung up before its answer was complete, on the monotonic clock."""
        self.over = threading.Event()
        self._transport = transport
        self._chunked = False

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def json(self) -> dict[str, Any]:
        if parts := self.form:
            return {part.name: part.value for part in parts if not part.filename}
        return cast(dict[str, Any], json.loads(self.body)) if self.body else {}

    @property
    def form(self) -> list[Any]:
        """The parts of a form, by another reader than the gateway's own; empty for JSON."""
        media, options = multipart.parse_options_header(self.headers.get("content-type", ""))
        if media != "multipart/form-data":
            return []
        parser = multipart.MultipartParser(io.BytesIO(self.body), options["boundary"], strict=True)
        return list(parser.parts())

    @property
    def model(self) -> str:
        return str(self.json.get("model", "")).removeprefix("once-")

    @property
    def streams(self) -> bool:
        return self.json.get("stream") in (True, "true")

    @property
    def wants_usage(self) -> bool:
        """A stream tells it only to those who ask, a whole answer always."""
        return not self.streams or bool((self.json.get("stream_options") or {}).get("include_usage"))

    def answer(self, body: bytes, status: str = "200 OK", **headers: str) -> None:
        """One whole response."""
        given = {"content-type": "application/json", **HEADERS} | {k.replace("_", "-"): v for k, v in headers.items()}
        lines = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in given.items()), f"content-length: {len(body)}"]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def begin(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        """The head of a response whose body comes in pieces."""
        given = {"content-type": content_type, **HEADERS, "transfer-encoding": "chunked"}
        self._transport.write("\r\n".join(["HTTP/1.1 200 OK", *(f"{k}: {v}" for k, v in given.items())]).encode())
        self._transport.write(b"\r\n\r\n")

    def send(self, piece: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def drained(self) -> None:
        """Until the client has taken what was sent: what piles up here slows the whole process down."""
        await asyncio.sleep(0)
        while self._transport.get_write_buffer_size():
            await asyncio.sleep(0.001)

    def end(self) -> None:
        self._transport.write(b"0\r\n\r\n")

    def close(self) -> None:
        """Hang up, what was written first."""
        self._transport.close()

    def reset(self) -> None:
        self._transport.abort()

    def left_within(self, seconds: float, since: float) -> bool:
        """Whether the client hung up before the answer was complete, at most that long after `since`."""
        self.over.wait(max(0.0, since + seconds - time.monotonic()) + 0.2)
        return self.left_at is not None and self.left_at - since <= seconds


Script = Callable[..., Awaitable[None]]
"""Takes the exchange, then the arguments in the model's name, as strings."""
