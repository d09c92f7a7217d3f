"""What lies in a model folder and cannot be served."""

from typing import Literal

from msgspec import Struct

ProblemKind = Literal["outside", "special", "empty", "truncated", "unreadable", "incomplete", "unsafe"]
"""A link that leads out of its folder; no regular file (a FIFO, a device); no bytes at all; shorter than its tensors;
not what its name says; parts are missing; it could run code."""


class Problem(Struct, frozen=True, kw_only=True):
    backend: str
    path: str
    kind: ProblemKind
    reason: str
    """In words, with what helps."""
    size_bytes: int = 0
