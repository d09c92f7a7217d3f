"""Who fetches which files: one at a time fetches a file, and whoever wants the same waits, and then finds it here."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path


class Holding:
    """Within one process."""

    def __init__(self) -> None:
        self._locks: dict[Path, asyncio.Lock] = {}
        self._wanted: dict[Path, int] = {}

    @asynccontextmanager
    async def of(self, paths: Iterable[Path]) -> AsyncIterator[None]:
        """Have these files to oneself."""
        # In one order for all, so that no two wait for each other.
        ordered, taken = sorted(set(paths)), list[asyncio.Lock]()
        for path in ordered:
            self._locks.setdefault(path, asyncio.Lock())
            self._wanted[path] = self._wanted.get(path, 0) + 1
        try:
            for path in ordered:
                lock = self._locks[path]
                await lock.acquire()
                taken.append(lock)
            yield
        finally:
            for lock in taken:
                lock.release()
            for path in ordered:
                self._wanted[path] -= 1
                if not self._wanted[path]:
                    del self._wanted[path], self._locks[path]
