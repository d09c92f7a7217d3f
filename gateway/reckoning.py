"""What local models were found to need in memory: known at once, written down later (`backends.ports.Reckoning`)."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from gateway.telemetry.logging import logger

WRITE_S = 10.0


class Rows(Protocol):
    async def put(self, sizes: Mapping[str, int]) -> None: ...


class MemoryBook:
    """The most each model was ever found to need, in bytes, by model, file and settings."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._unwritten: set[str] = set()

    def known(self, key: str) -> int | None:
        return self._sizes.get(key)

    def measured(self, key: str, size_bytes: int) -> None:
        if size_bytes > self._sizes.get(key, 0):
            self._sizes[key] = size_bytes
            self._unwritten.add(key)

    def recall(self, sizes: Mapping[str, int]) -> None:
        """Take over what other processes have found."""
        for key, size in sizes.items():
            self._sizes[key] = max(size, self._sizes.get(key, 0))

    async def write_to(self, rows: Rows) -> None:
        """Keep what is found, until cancelled; the last of it before it returns."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await self._write(rows)
        finally:
            await self._write(rows)

    async def _write(self, rows: Rows) -> None:
        keys, self._unwritten = self._unwritten, set()
        try:
            await rows.put({key: self._sizes[key] for key in keys})
        except Exception as e:
            self._unwritten |= keys
            logger().error("memory_write_failed", error=type(e).__name__, rows=len(keys))
