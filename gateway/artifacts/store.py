"""Where the bytes of artifacts are: a folder, or a bucket that speaks S3 (obstore).

Everything is under keys of our own making, so no name of a client ever becomes a path.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from gateway.keeping import Artifacts as Settings


class Stored(NamedTuple):
    """An object that is there."""

    key: str
    size_bytes: int
    modified_at: datetime


class Store:
    """Raises Unreachable or InsufficientStorage (a full disk); never says where it is to a client."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        """data_dir: what `{data_dir}` in its URL stands for."""
        self._settings = settings
        self._data_dir = data_dir

    async def put(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        """Whole or not at all, and durable when it returns."""
        raise NotImplementedError

    async def get(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to, not including, `end`, in pieces.  Raises NotFound before the first."""
        yield b""

    async def delete(self, key: str) -> None:
        """One that is not there is as good as deleted."""
        raise NotImplementedError

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        yield Stored("", 0, datetime.min)

    async def presigned(self, key: str, *, expires_s: float, mime: str, disposition: str) -> str | None:
        """A URL at which the store itself gives it to anybody for so long; None where the store cannot (a folder)."""
        raise NotImplementedError
