"""What downloads have been promised of the disk: by this process, and by others that use the same folder.

Each process keeps its promises in a file of its own, which is locked as long as it lives: those of one that was
killed count no longer.  The folder's lock makes looking and promising one step.
"""

import asyncio
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from gateway.storage.disk import LOCK, RESERVED

LOOK_S = 0.05
"""How often it is looked whether another process has let go of the folder."""

_sizes = msgspec.json.Decoder(dict[str, int])


class Holds:
    def __init__(self) -> None:
        self._own: dict[str, int] = {}
        """Bytes by holder."""
        self._turn = asyncio.Lock()
        self._file: tuple[Path, int] | None = None
        """Where they are written down, and the descriptor that holds its lock."""

    def put(self, holder: str, size_bytes: int) -> None:
        self._own[holder] = size_bytes

    def drop(self, holder: str) -> bool:
        """Whether there was anything."""
        return self._own.pop(holder, None) is not None

    @asynccontextmanager
    async def alone(self, root: Path) -> AsyncIterator[None]:
        """Nobody else looks at the folder or promises anything of it meanwhile, in this process or another."""
        async with self._turn:
            descriptor = await asyncio.to_thread(_opened, root / LOCK)
            try:
                while descriptor is not None and not _locked(descriptor):
                    await asyncio.sleep(LOOK_S)
                yield
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    def all(self, root: Path) -> dict[str, int]:
        """Everybody's.  Reads files."""
        found = dict(self._own)
        own = self._file[0] if self._file else None
        with suppress(FileNotFoundError):
            for path in (root / RESERVED).iterdir():
                if path != own:
                    found = {**_read(path), **found}
        return found

    def write(self, root: Path) -> None:
        """Have others know of ours.  Raises OSError."""
        folder = root / RESERVED
        if self._file is not None and (self._file[0].parent != folder or not self._file[0].exists() or not self._own):
            self._file[0].unlink(missing_ok=True)
            os.close(self._file[1])
            self._file = None
        if not self._own:
            return
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / uuid.uuid4().hex
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _locked(descriptor)
            self._file = path, descriptor
        text = msgspec.json.encode(self._own)
        os.pwrite(self._file[1], text, 0)
        os.ftruncate(self._file[1], len(text))


def _read(path: Path) -> Mapping[str, int]:
    """What another process was promised; nothing of one that is dead, whose file goes."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        if _locked(descriptor):
            path.unlink(missing_ok=True)
            return {}
        with suppress(msgspec.DecodeError):
            return _sizes.decode(os.read(descriptor, 1 << 20))
    finally:
        os.close(descriptor)
    return {}


def _opened(path: Path) -> int | None:
    """None where there can be no file: on a disk that is full, or may not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: then there is this process only
        return True
    return True
