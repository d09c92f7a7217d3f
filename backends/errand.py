"""Work that a child process is started for: it does this one thing, answers, and is gone.

For what is heavy, or made by strangers.  The program is a module that calls `backends.bounds.serve`; it is told the
parent's process id and what to do on standard input, and gets nothing of the parent's environment that is a secret.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import NamedTuple

_PASSED = frozenset(
    {"PATH", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
)  # fmt: skip
_PIECE = 1024 * 1024


class Unfinished(Exception):
    """It took more than it may; says what, in words for clients."""


class Answer(NamedTuple):
    data: bytes
    """Empty if the program did not get as far."""
    complained: str
    """The last that it said on standard error, for operators: it may name paths."""


class Errands:
    """One program, which is started so many times at once; others wait for their turn."""

    def __init__(self, module: str, *, at_once: int, within_s: float, answer_max_bytes: int) -> None:
        self._module = module
        self._places = asyncio.Semaphore(at_once)
        self._within_s = within_s
        self._answer_max_bytes = answer_max_bytes

    async def done(self, *asked: bytes, deadline: float | None) -> Answer:
        """What the program makes of the pieces.  However this is left, its process is gone.

        Raises TimeoutError when the deadline has passed, also while it waits for its turn, and Unfinished.
        """
        async with asyncio.timeout_at(deadline), self._places:
            return await self._ran(asked)

    async def _ran(self, asked: tuple[bytes, ...]) -> Answer:
        environment = {name: value for name, value in os.environ.items() if name in _PASSED}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            # Threads would only take address space, of which it has little.
            env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        complaints = asyncio.create_task(_tail(process.stderr))
        try:
            async with asyncio.timeout(self._within_s):
                # One that ends early says so by what it says, or does not say.
                with suppress(ConnectionError):
                    process.stdin.write(b"%d %d\n" % (os.getpid(), sum(map(len, asked))))
                    for piece in asked:
                        process.stdin.write(piece)
                    await process.stdin.drain()
                data = await self._read(process.stdout)
        except TimeoutError as e:
            raise Unfinished(f"it is not finished in {self._within_s:g} s") from e
        finally:
            process.stdin.close()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            complained = await complaints
        return Answer(data, complained)

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        pieces, size = [], 0
        while piece := await stream.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > self._answer_max_bytes:
                raise Unfinished(f"what comes of it is larger than {self._answer_max_bytes} bytes")
        return b"".join(pieces)


async def _tail(stream: asyncio.StreamReader) -> str:
    last = b""
    while piece := await stream.read(65_536):
        last = (last + piece)[-1000:]
    return last.decode("utf-8", "replace")
