"""What lies in a folder: the regular files in and under it, looked at without opening any.

Links are followed to files inside the folder only, and never to folders: so there are no loops, and nothing is read
that its owner did not put there.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.discovery.problem import ProblemKind, Report

DEPTH_MAX = 32
FILES_MAX = 200_000
WEIGHTS = (".gguf", ".safetensors", ".onnx")
"""What a file that matters ends with."""
INDEX = "model_index.json"


class Found(NamedTuple):
    """A regular file with something in it."""

    path: Path
    status: os.stat_result


class Tree:
    def __init__(self, root: Path, report: Report, *, inside: Path | None = None, deep: bool = True) -> None:
        """Look through a folder.

        inside: where its links may lead; None: the folder itself.
        deep: with the folders in it.
        """
        self.root = root
        self.files: list[Found] = []
        """In the order of their paths."""
        self.refused: list[Path] = []
        """What lies there and is not to be touched."""
        self._report = report
        self._inside = (inside or root).resolve()
        self._walk(deep=deep)
        self.files.sort(key=lambda found: found.path)

    def named(self, name: str) -> list[Path]:
        return [found.path for found in self.files if found.path.name == name]

    def under(self, folder: Path) -> list[Found]:
        prefix = os.path.join(folder, "")
        return [found for found in self.files if str(found.path).startswith(prefix)]

    def _walk(self, *, deep: bool) -> None:
        seen, folders = 0, [(str(self.root), 0)]
        while folders:
            folder, depth = folders.pop()
            for entry in self._entries(Path(folder)):
                seen += 1
                if seen > FILES_MAX:
                    reason = f"it holds more than {FILES_MAX} files, and the rest was not looked at; name a smaller one"
                    self._report.add(self.root, "unreadable", reason)
                    return
                if entry.is_symlink():
                    self._link(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    if deep and depth < DEPTH_MAX:
                        folders.append((entry.path, depth + 1))
                else:
                    self._file(Path(entry.path))

    def _entries(self, folder: Path) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except PermissionError:
            self._refuse(folder, "unreadable", "the gateway may not look into this folder; let its user read it")
        except FileNotFoundError:
            pass  # it went while we looked
        except OSError as e:
            self._refuse(folder, "unreadable", f"this folder cannot be read ({e.strerror})")

    def _link(self, path: Path) -> None:
        try:
            status, target = os.stat(path), path.resolve()
        except OSError as e:
            if _matters(path):
                where = "to itself" if e.errno == errno.ELOOP else "nowhere"
                self._refuse(path, "unreadable", f"this link leads {where}; remove it")
            return
        if not target.is_relative_to(self._inside):
            if _matters(path) or stat.S_ISDIR(status.st_mode):
                self._refuse(
                    path, "outside", "this link leads out of its folder; put the files here, or name their folder too"
                )
        elif not stat.S_ISDIR(status.st_mode):
            self._keep(path, status)

    def _file(self, path: Path) -> None:
        try:
            self._keep(path, os.lstat(path))
        except FileNotFoundError:
            pass
        except OSError as e:
            self._refuse(path, "unreadable", f"it cannot be read ({e.strerror})")

    def _keep(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            self._refuse(path, "special", "this is not a regular file, and is not opened; remove it")
        elif status.st_size == 0 and path.name.lower().endswith(WEIGHTS):
            self._refuse(path, "empty", "this file is empty; fetch it again", status)
        elif _matters(path) and not speakable(str(path)):
            self._refuse(path, "unreadable", "its path is not printable text in UTF-8; rename it")
        else:
            self.files.append(Found(path, status))

    def _refuse(self, path: Path, kind: ProblemKind, reason: str, status: os.stat_result | None = None) -> None:
        self.refused.append(path)
        self._report.add(path, kind, reason, status)


def speakable(text: str) -> bool:
    """Whether clients and engines can be told this."""
    return text.isprintable() and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _matters(path: Path) -> bool:
    return path.name == INDEX or path.name.lower().endswith(WEIGHTS)
