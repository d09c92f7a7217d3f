"""An HTTP response while its body arrives: the side of `backends.http1` that its callers see."""

import asyncio
from collections import deque
from typing import Protocol

BUFFER_BYTES = 256 * 1024
"""Of a body that nobody reads: from here on the server is made to wait."""


class Lost(OSError):
    """The connection ended before the response was complete."""


class Connection(Protocol):
    """What a response needs of the connection it comes through."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


class Response:
    """An answer whose head has come; its body is read by one reader."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """In the server's order, names in lower case; of repeated ones the values are joined by commas."""
        self._connection: Connection | None = connection
        """None once the response is complete, or given up."""
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        given = self.headers.get("content-length", "")
        return int(given) if len(given) < 19 and given.isdigit() else None

    async def read(self, most: int | None = None) -> bytes:
        """What has come of the body, `most` bytes of it; waits for some; empty at its end.  Raises Lost and what
        `fail` was given."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()
        if most is None or self._size <= most:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
        else:
            data = self._pieces.popleft()
            if len(data) > most:
                self._pieces.appendleft(data[most:])
                data = data[:most]
            self._size -= len(data)
        if self._paused and self._size < BUFFER_BYTES // 4:
            self._paused = False
            if self._connection is not None:
                self._connection.resume_reading()
        return data

    def at_eof(self) -> bool:
        """All of the body has been read."""
        return self._complete and not self._pieces

    def close(self) -> None:
        """Give up what has not come yet."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.abort()

    def fail(self, error: BaseException) -> None:
        """Have the reader raise this, now or when it has read what is there."""
        if self._error is None and not self._complete:
            self._error = error
            self._wake()

    async def started(self) -> None:
        """Until the head has come.  Raises Lost and Malformed."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The head has come."""
        self.headers = headers
        self.status = status
        self._wake()

    def fed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > BUFFER_BYTES and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.pause_reading()
        self._wake()

    def finish(self) -> None:
        if self._paused and self._connection is not None:
            self._connection.resume_reading()
        self._connection = None
        self._complete = True
        self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
