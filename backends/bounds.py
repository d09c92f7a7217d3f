"""The bounds of a program that is started for one piece of work (`backends.errand`), and how it is told and answers.

Standard input has a line with the parent's process id and the size of what is asked for, then that; standard output
gets the answer and nothing else.  The process never outlives its parent: on Linux the kernel ends it, and the end of
standard input does everywhere.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def serve(work: Callable[[bytes], Iterable[bytes]], *, memory_max_bytes: int, cpu_max_s: int) -> NoReturn:
    """Do the work that the parent asks for, answer with its pieces, and end.

    memory_max_bytes: of address space: numpy alone takes a good part of the first GiB.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to stdout; only the answer may go there
    parent, _, size = sys.stdin.buffer.readline().partition(b" ")
    if not size or os.getppid() != int(parent):
        os._exit(0)  # it ended before that could be noticed
    bounds = {resource.RLIMIT_AS: memory_max_bytes, resource.RLIMIT_CPU: cpu_max_s, resource.RLIMIT_CORE: 0}
    for what, most in bounds.items():
        with suppress(ValueError, OSError):  # macOS knows no bound of memory
            resource.setrlimit(what, (most, most))
    asked = sys.stdin.buffer.read(int(size))
    if len(asked) < int(size):
        os._exit(0)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    for piece in work(asked):
        out.write(piece)
    out.flush()
    os._exit(0)


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
