"""An answer written down while it is sent, or in place of being sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from litestar.types import HTTPReceiveMessage, Message, Send

from gateway.visit import Visit

_ENDINGS = (b"[DONE]", b"message_stop", b".completed", b".incomplete")
"""What the last event of a stream has in it, in some dialect or other; the text of any other may have it as well."""
_LEFT_OUT = ("content-length", "transfer-encoding", "connection", "date", "set-cookie", "request-id", "x-request-id")
_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-")
"""What was true of another moment."""


async def nobody() -> HTTPReceiveMessage:
    """What comes from the client of an answer that has none."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nothing comes")


class Recording:
    """Takes what an ASGI application sends."""

    def __init__(
        self,
        visit: Visit,
        limit: int,
        send: Send | None = None,
        *,
        keep_alive: bytes = b"",
        finish: "Callable[[Recording], Awaitable[None]] | None" = None,
    ) -> None:
        """limit: in bytes; of a larger body nothing is kept.

        send: sends it on, all but the last event and whatever follows, before which comes `finish`; None: nobody is
        there to whom.  keep_alive: is sent, but not kept.
        """
        self.status: int | None = None
        self.headers: tuple[tuple[str, str], ...] = ()
        self.too_large = False
        self._visit = visit
        self._limit = limit
        self._on = send
        self._keep_alive = keep_alive
        self._finish = finish
        self._pieces: list[bytes] = []
        self._size = 0
        self._held: list[Message] = []

    @property
    def body(self) -> bytes | None:
        return None if self.too_large or self.status is None else b"".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        """It went well, from its first byte to its last."""
        return self._visit.code is None and self.status is not None and 200 <= self.status < 300

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = _kept(message["headers"])
            if self._on is None:
                self._visit.status = message["status"]
            else:
                await self._on(message)
            return
        if message["type"] != "http.response.body":
            return
        body, last = message["body"], not message["more_body"]
        if not self._keep_alive or body != self._keep_alive:
            self._note(body)
        if self._on is None:
            return
        if last and self._finish is not None:
            await self._finish(self)
        elif any(ending in body for ending in _ENDINGS):
            self._held.append(message)
            return
        held, self._held = self._held, []
        for earlier in held:
            await self._on(earlier)
        await self._on(message)

    def _note(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limit:
            self.too_large = True
            self._pieces.clear()
        elif body:
            self._pieces.append(body)


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Those headers that are true of the answer whenever it is read."""
    found = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    return tuple((n, v) for n, v in found if n not in _LEFT_OUT and not n.startswith(_LIMITS))
