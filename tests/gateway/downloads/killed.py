"""Fetches a file, and is killed at random moments: `python -m tests.gateway.downloads.killed PIECE KILLS SEED`.

The process that fetches is a fork of this one, so that only the first start costs.
"""

import asyncio
import os
import random
import signal
import sys
import time

import msgspec

from gateway.downloads.pace import Pace
from gateway.downloads.piece import Piece
from gateway.downloads.transfer import fetch


def _begun(piece: Piece, pace: Pace) -> int:
    """Its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.run(fetch(piece, token=None, pace=pace, report=lambda _: None))
            status = 0
        finally:
            os._exit(status)
    return pid


def _grown(piece: Piece, size: int) -> None:
    """Wait until so much of it is here."""
    end = time.monotonic() + 5
    while time.monotonic() < end and _size(piece) < size:
        time.sleep(0.002)


def _size(piece: Piece) -> int:
    return piece.part.stat().st_size if piece.part.exists() else 0


def main(piece: Piece, kills: int, seed: int) -> int:
    rng = random.Random(seed)  # noqa: S311
    slow = Pace(piece.size_bytes)  # one second in all
    for n in range(kills):
        had = _size(piece)
        pid = _begun(piece, slow)
        if n % 3 == 0:  # anywhere, the first moments included
            time.sleep(rng.uniform(0, 0.1))
        else:
            _grown(piece, had + rng.randrange(1, piece.size_bytes // kills))
            time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(os.waitpid(_begun(piece, Pace()), 0)[1])


if __name__ == "__main__":
    sys.exit(
        main(
            msgspec.json.decode(sys.argv[1], type=Piece, dec_hook=lambda kind, text: kind(text)),
            *map(int, sys.argv[2:]),
        )
    )
