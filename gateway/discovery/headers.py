"""What GGUF files say of themselves, remembered over restarts in `{data_dir}/cache/headers.json`.

A file whose size, time and inode are what they were is not opened again.  What is remembered can be lost at any time:
it is only read faster.
"""

import os
from collections.abc import Iterator
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

    def read(self, path: Path, status: os.stat_result) -> gguf.Header:
        """Raises ValueError, OSError."""
        key = os.fsencode(path).decode("utf-8", "backslashreplace")
        identity = status.st_size, status.st_mtime_ns, status.st_ino
        seen = self._before.get(key)
        if seen is None or (seen.size, seen.modified_ns, seen.inode) != identity:
            try:
                seen = _Seen(*identity, _read(path), None)
            except ValueError as e:
                seen = _Seen(*identity, None, str(e))
        self._now[key] = seen
        if seen.header is None:
            raise ValueError(seen.refused)
        return seen.header

    def write(self) -> None:
        """Remember what was read, and forget the rest.  A folder of data that is not there yet is not made for it."""
        if self._now == self._before or len(self._now) > KEPT_MAX or not self._path.parent.parent.is_dir():
            return
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            part.write_bytes(msgspec.json.encode(_File(FORMAT, self._now)))
            part.replace(self._path)
        except OSError as e:
            with suppress(OSError):
                part.unlink()
            logger().warning("headers_unkept", reason=e.strerror)


_open: ContextVar[Headers | None] = ContextVar("headers", default=None)


@contextmanager
def remembered(data_dir: Path) -> Iterator[None]:
    """Within this, no header is read that is known; afterwards those that were asked for are."""
    headers = Headers(data_dir / "cache" / "headers.json")
    token = _open.set(headers)
    try:
        yield
        headers.write()
    finally:
        _open.reset(token)


def read(path: Path, status: os.stat_result) -> gguf.Header:
    """A file's header.  Raises ValueError, OSError."""
    headers = _open.get()
    return _read(path) if headers is None else headers.read(path, status)


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
