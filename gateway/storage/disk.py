"""The folder of models as it lies on the disk: read without following links, and emptied without leaving it.

Everything here blocks: it runs in threads.  Paths are relative to the folder, as POSIX writes them.
"""

import errno
import os
import stat
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.db.engine import is_full

FILES_MAX = 200_000
DEPTH_MAX = 32
"""Where a walk ends: no folder of ours is like that."""
LOCK, RESERVED, REMOVING = ".lock", ".reserved", ".removing"
"""What lies in the folder and is no model's."""
_OWN = frozenset({LOCK, RESERVED, REMOVING})


class File(Struct, frozen=True):
    size_bytes: int
    changed_at: float
    """Seconds since 1970: when it was written, or came to be where it is."""
    inode: int = 0
    """Of a file that has several names, which take its room once; else 0."""


class Journal(Struct, frozen=True, kw_only=True):
    """Files that are being removed, written down before it is begun."""

    path: str
    files: tuple[str, ...]


_journal = msgspec.json.Decoder(tuple[str, ...])


def walk(root: Path) -> dict[str, File]:
    """All files; links are listed as they are, not what they lead to."""
    found: dict[str, File] = {}
    waiting = [("", 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError:  # gone meanwhile, or not ours to read
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if (not folder and entry.name in _OWN) or len(found) >= FILES_MAX:
                continue
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                    inode = status.st_ino if status.st_nlink > 1 else 0
                    found[path] = File(size, max(status.st_mtime, status.st_ctime), inode)
                elif depth < DEPTH_MAX:
                    waiting.append((path, depth + 1))
    return found


def free_bytes(root: Path) -> tuple[int, int]:
    """What is free for us on the disk the folder is on, or will be, and how large that is."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def unlink(root: Path, files: Iterable[str]) -> list[str]:
    """Remove these, and the folders that are empty then; those that could not be."""
    failed = []
    inside = root.resolve()
    for path in files:
        target = root / path
        try:
            # A folder that has become a link since it was read must not lead the removal elsewhere.
            if not target.parent.resolve().is_relative_to(inside):
                raise OSError(errno.EXDEV, "outside")
            target.unlink(missing_ok=True)
        except OSError:
            failed.append(path)
            continue
        _prune(root, path)
    return failed


def _prune(root: Path, path: str) -> None:
    with suppress(OSError):  # not empty, or not there any more
        for parent in Path(path).parents:
            if parent != Path():
                (root / parent).rmdir()


def write_down(root: Path, files: Collection[str]) -> Journal | None:
    """Have a removal finished, whatever becomes of this process; None: the disk is too full even for that."""
    journal = root / REMOVING / uuid.uuid4().hex
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("wb") as file:
            file.write(msgspec.json.encode(tuple(files)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        if not is_full(e):
            raise
        journal.unlink(missing_ok=True)
        return None
    return Journal(path=str(journal), files=tuple(files))


def strike(journal: Journal) -> None:
    """It is done."""
    Path(journal.path).unlink(missing_ok=True)


def unfinished(root: Path) -> list[Journal]:
    """The removals that were begun and not ended."""
    found = []
    with suppress(FileNotFoundError):
        for path in sorted((root / REMOVING).iterdir()):
            try:
                found.append(Journal(path=str(path), files=_journal.decode(path.read_bytes())))
            except msgspec.DecodeError:  # cut off while it was written: nothing was removed by it
                path.unlink(missing_ok=True)
    return found
