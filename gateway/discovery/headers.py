"""What GGUF files say of themselves, remembered over restarts in `{data_dir}/cache/headers.json`.

A file whose size, time and inode are what they were is not opened again.  What is remembered can be lost at any time:
it is only read faster.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import msgspec
from msgspec import Struct

from backends.local import gguf
from gateway.discovery.problem import shown
from gateway.telemetry.logging import logger

FORMAT = 1
"""To be raised whenever headers come out otherwise than before."""
KEPT_MAX = 10_000
FILE_MAX_BYTES = 16 << 20
MANY = 100
"""So many files that nobody has read before take a while, and it is told how far that is."""
TELL_S = 2.0
"""How often."""


class _Seen(Struct, frozen=True, array_like=True):
    size: int
    modified_ns: int
    inode: int
    header: gguf.Header | None
    refused: str | None
    """Why there is none."""


class _File(Struct):
    format: int
    files: dict[str, _Seen]


class Headers:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _remembered(path)
        self._now: dict[str, _Seen] = {}
        self._news = self._read = 0
        """How many files there are that are not known, and of them how many were read."""
        self._said = time.monotonic()

    def expect(self, files: Iterable[tuple[Path, os.stat_result]]) -> None:
        """Take note of what is going to be asked for: where much of it is news, it is told how far that is."""
        self._news += sum(self._known(*file) is None for file in files)

    def read(self, path: Path, status: os.stat_result) -> gguf.Header:
        """Raises ValueError, OSError."""
        seen = self._known(path, status)
        if seen is None:
            identity = status.st_size, status.st_mtime_ns, status.st_ino
            try:
                seen = _Seen(*identity, _read(path), None)
            except ValueError as e:
                seen = _Seen(*identity, None, str(e))
            self._read += 1
            self._tell()
        self._now[_key(path)] = seen
        if seen.header is None:
            raise ValueError(seen.refused)
        return seen.header

    def _known(self, path: Path, status: os.stat_result) -> _Seen | None:
        key = _key(path)
        seen = self._now.get(key) or self._before.get(key)
        identity = status.st_size, status.st_mtime_ns, status.st_ino
        return seen if seen is not None and (seen.size, seen.modified_ns, seen.inode) == identity else None

    def _tell(self) -> None:
        if self._news > MANY and time.monotonic() - self._said >= TELL_S:
            self._said = time.monotonic()
            logger().info("looking_at_models", done=self._read, of=max(self._news, self._read))

    def write(self) -> None:
        """Remember what was read, and forget the rest.  A folder of data that is not there yet is not made for it."""
        if self._now == self._before or len(self._now) > KEPT_MAX or not self._path.parent.parent.is_dir():
            return
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            part.write_bytes(msgspec.json.encode(_File(FORMAT, self._now)))
            part.replace(self._path)
            self._before = dict(self._now)
        except OSError as e:
            with suppress(OSError):
                part.unlink()
            logger().warning("headers_unkept", reason=e.strerror)


_open: ContextVar[Headers | None] = ContextVar("headers", default=None)


@contextmanager
def remembered(data_dir: Path, known: Headers | None = None) -> Iterator[Headers]:
    """Within this, no header is read that is known; afterwards those that were asked for are.

    known: what was remembered before, to go on with.
    """
    headers = Headers(data_dir / "cache" / "headers.json") if known is None else known
    token = _open.set(headers)
    try:
        yield headers
        headers.write()
    finally:
        _open.reset(token)


def expect(files: Iterable[tuple[Path, os.stat_result]]) -> None:
    """Say beforehand which headers will be read."""
    if (headers := _open.get()) is not None:
        headers.expect(files)


def read(path: Path, status: os.stat_result) -> gguf.Header:
    """A file's header.  Raises ValueError, OSError."""
    headers = _open.get()
    return _read(path) if headers is None else headers.read(path, status)


def _key(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _read(path: Path) -> gguf.Header:
    header = gguf.read(path)
    if header.unsure:
        logger().warning("model_length_unsure", file=shown(path), reason="it has tensors of a type that is not known")
    return header


def _remembered(path: Path) -> dict[str, _Seen]:
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            return {}
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, ValueError, RecursionError):  # there is none, or it is damaged
        return {}
    return file.files if file.format == FORMAT else {}
