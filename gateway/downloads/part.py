"""A file that is not whole yet: `NAME.part`, with `NAME.part.json` beside it that says of what file it is a part.

It belongs to one transfer at a time, of all processes.  What is in it, in order from the first byte, was received; a
part whose note is missing or of another file is worth nothing.
"""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from compat.canonical.error import Conflict, InsufficientStorage
from gateway.downloads.line import Stop
from gateway.downloads.piece import Piece

SYNC_BYTES = 32 << 20
"""How much of it a power cut may cost."""
READ_BYTES = 1 << 20
_NOTE_MAX = 16 << 10
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How a system says that there is no room, or none for this file."""


class Note(Struct, frozen=True, kw_only=True):
    """Of what file it is a part."""

    path: str
    """Of its address: the repository, the commit and the file's name; the host may be a mirror of another."""
    size: int
    commit: str | None = None
    sha256: str | None = None
    blob: str | None = None
    etag: str | None = None
    """What the hub called it."""
    served: str | None = None
    """What the host that it comes from calls it, with quotes: it may be asked whether it is still the same."""

    @classmethod
    def of(cls, piece: Piece) -> "Note":
        return cls(
            path=urlsplit(piece.url).path,
            size=piece.size_bytes,
            commit=piece.commit,
            sha256=piece.sha256,
            blob=piece.blob,
            etag=piece.etag,
        )


class Part:
    """Open, and locked; `size` bytes of it are here, and in its hash."""

    def __init__(self, piece: Piece, descriptor: int) -> None:
        self._piece = piece
        self._descriptor = descriptor
        self._digest = _digest(piece)
        self._unsynced = 0
        self.size = 0
        self.note = Note.of(piece)

    def resume(self, stop: Stop) -> None:
        """Go on with what is there, if it is of this file.  Reads all of it.  Raises Stopped."""
        note = _noted(self._piece)
        there = os.fstat(self._descriptor).st_size
        same = note is not None and msgspec.structs.replace(note, served=None) == self.note
        if not same or there > self._piece.size_bytes or not there:
            self.begin()
            return
        assert note is not None
        self.note = note
        buffer = memoryview(bytearray(READ_BYTES))
        while self.size < there:
            stop.check()
            if not (got := os.readv(self._descriptor, [buffer[: there - self.size]])):
                break
            self._digest.update(buffer[:got])
            self.size += got

    def begin(self) -> None:
        """From the first byte."""
        os.ftruncate(self._descriptor, 0)
        self._digest = _digest(self._piece)
        self.size = self._unsynced = 0
        self.note = Note.of(self._piece)

    def write_note(self, served: str | None) -> None:
        """Before the first byte, and when the file is called otherwise where it comes from."""
        note = msgspec.structs.replace(self.note, served=served)
        if self.size and note == self.note:
            return
        self.note = note
        with _told_when_full():
            beside = _note_path(self._piece).with_suffix(".json.part")
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, msgspec.json.encode(note))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            beside.replace(_note_path(self._piece))

    def write(self, data: memoryview) -> None:
        """Raises InsufficientStorage, and keeps what could be written; OSError."""
        with _told_when_full():
            while data:
                written = os.pwrite(self._descriptor, data, self.size)
                self._digest.update(data[:written])
                self.size += written
                self._unsynced += written
                data = data[written:]
            if self._unsynced >= SYNC_BYTES:
                self.sync()

    def sync(self) -> None:
        with _told_when_full():
            os.fsync(self._descriptor)
        self._unsynced = 0

    def is_right(self) -> bool:
        """Whether it is whole, and what its hash says."""
        return self.size == self._piece.size_bytes and _agrees(self._digest, self._piece)

    def land(self) -> None:
        """Have it appear under its name."""
        os.replace(self._piece.part, self._piece.path)
        _sync_folder(self._piece.path.parent)
        _note_path(self._piece).unlink(missing_ok=True)

    def drop(self) -> None:
        self._piece.part.unlink(missing_ok=True)
        _note_path(self._piece).unlink(missing_ok=True)


def disk_full() -> InsufficientStorage:
    """The error for a system that says one of `FULL`."""
    return InsufficientStorage("The disk is full. Make room, then resume the job: it goes on from what it has.")


@contextmanager
def part_of(piece: Piece) -> Iterator[Part]:
    """Raises Conflict when somebody else has it; InsufficientStorage, OSError."""
    with _told_when_full():
        piece.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(piece.part)
    try:
        yield Part(piece, descriptor)
    finally:
        os.close(descriptor)


def is_there(piece: Piece, stop: Stop) -> bool:
    """Whether the file lies under its name, whole and right.  Reads all of it.  Raises Stopped."""
    try:
        descriptor = os.open(piece.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != piece.size_bytes:
            return False
        digest, buffer = _digest(piece), memoryview(bytearray(READ_BYTES))
        while got := os.readv(descriptor, [buffer]):
            stop.check()
            digest.update(buffer[:got])
        return _agrees(digest, piece)
    finally:
        os.close(descriptor)


def forget_note(piece: Piece) -> None:
    """Of a file that is there: whoever brought it was ended before it could."""
    with suppress(OSError):
        _note_path(piece).unlink()


def _locked(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            path.unlink(missing_ok=True)  # no file at all: a link, a socket
            continue
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                path.unlink(missing_ok=True)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have given it its name, or removed it, since it was opened.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.lstat()):
                        return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict("The same file is being fetched by somebody else just now; wait for that.") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _note_path(piece: Piece) -> Path:
    return piece.part.with_name(f"{piece.part.name}.json")


def _noted(piece: Piece) -> Note | None:
    try:
        with _note_path(piece).open("rb") as file:
            return msgspec.json.decode(file.read(_NOTE_MAX), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None


def _digest(piece: Piece) -> "hashlib._Hash":
    if piece.sha256 is None and piece.blob is not None:
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(b"blob %d\0" % piece.size_bytes)
        return digest
    return hashlib.sha256()


def _agrees(digest: "hashlib._Hash", piece: Piece) -> bool:
    expected = piece.sha256 or piece.blob
    return expected is not None and digest.hexdigest() == expected.lower()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_when_full() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in FULL:
            raise
        raise disk_full() from e
