"""Fetches one file: from the byte it had, until it is whole and what its hash says.

In a thread of its own, with plain sockets: a piece is received, hashed and written without holding up the event loop.
"""

from collections.abc import Callable

from gateway.downloads.pace import Pace
from gateway.downloads.piece import Piece


async def fetch(
    piece: Piece,
    *,
    token: str | None,
    pace: Pace,
    report: Callable[[int], None],
    verifying: Callable[[], None] = lambda: None,
    stall_s: float = 30.0,
    retries: int = 5,
) -> None:
    """Have `piece.path` there.  What is there already and is whole is not fetched again.

    report: told how many bytes of it are here, from within the event loop, a few times a second.
    verifying: told when all bytes are here and only the hash is left to be held against.
    Cancelled, it stops within a second and leaves what it has to be gone on with.
    Raises Corrupted, GatedRepo, NotFound, Unreachable, TimedOut, RateLimited or InsufficientStorage.
    """
    raise NotImplementedError
