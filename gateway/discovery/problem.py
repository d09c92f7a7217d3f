"""What lies in a model folder and cannot be served."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from gateway.telemetry.logging import logger

ProblemKind = Literal["outside", "special", "empty", "truncated", "unreadable", "incomplete", "unsafe", "duplicate"]
"""A link that leads out of its folder; no regular file (a FIFO, a device); no bytes at all; shorter than its tensors;
not what its name says; parts are missing; it could run code; another model has its name."""
STEADY_S = 2.0
"""A file that was written to more lately than this may still be growing."""
TOLD_MAX = 50
"""How many are told of one by one in the log."""


class Problem(Struct, frozen=True, kw_only=True):
    backend: str
    path: str
    kind: ProblemKind
    reason: str
    """In words, with what helps."""
    size_bytes: int = 0


class Report:
    """Collects problems while folders are looked through."""

    def __init__(self, backend: str, into: list[Problem] | None = None, *, patient: bool = False) -> None:
        """patient: say nothing of what may still be growing, because it will be looked at again."""
        self.backend = backend
        self._into = [] if into is None else into
        self._seen = set(self._into)
        self._patient = patient

    def add(self, path: Path, kind: ProblemKind, reason: str, status: os.stat_result | None = None) -> None:
        """status: of the file, where it is one."""
        if self._patient and status is not None and is_young(status):
            return
        size = 0 if status is None else status.st_size
        problem = Problem(backend=self.backend, path=shown(path), kind=kind, reason=reason, size_bytes=size)
        self.also([problem])

    def also(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            if problem not in self._seen:
                self._seen.add(problem)
                self._into.append(problem)


def is_young(status: os.stat_result) -> bool:
    """Whether a file may still be growing."""
    return abs(time.time() - status.st_mtime) < STEADY_S


def shown(path: Path) -> str:
    """A path as a text that can be logged and sent, whatever its bytes are."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def tell(problems: Iterable[Problem], before: Iterable[Problem]) -> None:
    """Log those that there were not before."""
    known = set(before)
    news = [one for one in problems if one not in known]
    for one in news[:TOLD_MAX]:
        logger().warning("model_refused", backend=one.backend, path=one.path, kind=one.kind, reason=one.reason)
    if len(news) > TOLD_MAX:
        logger().warning("models_refused", more=len(news) - TOLD_MAX)
