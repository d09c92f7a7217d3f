"""Fetches one file: from the byte it had, until it is whole and what its hash says.

In a thread of its own, with plain sockets: a piece is received, hashed and written without holding up the event loop.
"""

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable

from compat.canonical.error import Corrupted, TimedOut, Unreachable
from gateway.downloads.line import Stop
from gateway.downloads.pace import Pace
from gateway.downloads.part import Part, forget_note, is_there, part_of
from gateway.downloads.piece import Piece
from gateway.downloads.source import Answer, Failed, Source
from gateway.telemetry.logging import logger

BUFFER_BYTES = 1 << 20
"""Received before it is hashed and written, unless it takes longer than a second."""
_WRITE_S = 1.0
NICE = 10
_REPORT_S = 0.2
AGAIN_S, AGAIN_MAX_S = 0.5, 30.0
"""The rest after a failed attempt: doubled for each in a row."""
SLOW_BYTES_PER_S, SLOW_S = 1 << 10, 5.0
"""A line that brings less than this, on average over this long or `stall_s`, is as good as silent."""
BROUGHT_BYTES = 64 << 10
"""An attempt that brings less than this has brought nothing, as `retries` counts."""


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
    Cancelled, it stops within a second and leaves what it has to be gone on with.  A file that nobody has told the hash
    of is what the hub says of it when it is asked for it.
    Raises Corrupted, GatedRepo, AuthFailed, NotFound, Unreachable, BadResponse, UpstreamFailed, TimedOut, RateLimited,
    Conflict while another process fetches it, InsufficientStorage; OSError for a folder that cannot be written to.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[BaseException | None] = loop.create_future()
    stop = Stop()

    def say(what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may have ended by now
            loop.call_soon_threadsafe(what)

    transfer = _Transfer(
        piece,
        Source(piece, token, stop),
        pace,
        stop,
        at=lambda size: say(lambda: report(size)),
        verifying=lambda: say(verifying),
        stall_s=stall_s,
        retries=retries,
    )

    def run() -> None:
        failure: BaseException | None = None
        _yield_to_others()
        try:
            transfer.run()
        except BaseException as e:
            failure = e
        say(lambda: over.set_result(failure))

    thread = threading.Thread(target=run, name="transfer", daemon=True)
    try:
        thread.start()
        try:
            await _ended(over, stop)
        finally:
            thread.join()  # it has nothing left to do
        if (failure := over.result()) is not None:
            raise failure
    finally:
        stop.close()


def _yield_to_others() -> None:
    """Have this thread take a processor when nobody answers a request on it."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


async def _ended(over: "asyncio.Future[BaseException | None]", stop: Stop) -> None:
    """Returns, and passes a cancellation on, only when the thread is done: it has the file."""
    cancelled: asyncio.CancelledError | None = None
    while not over.done():
        try:
            await asyncio.shield(over)
        except asyncio.CancelledError as e:
            stop.set()
            cancelled = e
    if cancelled is not None:
        raise cancelled


class _Transfer:
    """What the thread does."""

    def __init__(
        self,
        piece: Piece,
        source: Source,
        pace: Pace,
        stop: Stop,
        *,
        at: Callable[[int], None],
        verifying: Callable[[], None],
        stall_s: float,
        retries: int,
    ) -> None:
        self._piece = piece
        self._source = source
        self._pace = pace
        self._stop = stop
        self._at = at
        self._verifying = verifying
        self._stall_s = stall_s
        self._retries = retries
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._reported = 0.0
        self._asks_whether_same = True

    def run(self) -> None:
        """Raises Stopped, and what `fetch` does."""
        if not self._piece.hashed:
            self._piece = self._expected()
        if self._found():
            return
        with part_of(self._piece) as part:
            try:
                self._bring(part)
            except Corrupted:
                part.drop()
                raise
            except BaseException:
                if not part.size:
                    part.drop()
                raise

    def _expected(self) -> Piece:
        failures = 0
        while True:
            try:
                return self._source.expected(time.monotonic() + self._stall_s)
            except Failed as e:
                failures += 1
                if failures > self._retries:
                    raise e.error from e
                self._rest(e, failures, 0)

    def _bring(self, part: Part) -> None:
        if self._found():  # whoever had it before us has brought it
            part.drop()
            return
        part.resume(self._stop)
        resumed = part.size > 0
        self._at(part.size)
        self._receive(part)
        self._end(part)
        if resumed and not part.is_right():
            # What was there may have suffered since: from a power cut, or a disk.
            part.begin()
            self._receive(part)
            self._end(part)
        if not part.is_right():
            raise Corrupted(
                f"The file '{self._piece.path.name}' that came from the hub is not what its hash says; it was removed. "
                "Download it again, or from another mirror."
            )
        part.land()

    def _found(self) -> bool:
        if not is_there(self._piece, self._stop):
            return False
        forget_note(self._piece)
        self._at(self._piece.size_bytes)
        return True

    def _end(self, part: Part) -> None:
        self._at(part.size)
        self._verifying()
        part.sync()

    def _receive(self, part: Part) -> None:
        """Until all bytes are here, or `retries` attempts in a row have brought none."""
        failures, most = 0, part.size
        while part.size < self._piece.size_bytes:
            failed = Failed(Unreachable("The model hub hung up before the file was whole."))
            try:
                self._attempt(part)
            except Failed as e:
                failed = e
                if e.anew:
                    part.begin()
            if part.size >= self._piece.size_bytes:
                return
            failures = 0 if part.size - most >= BROUGHT_BYTES else failures + 1
            most = max(most, part.size)
            if failures > self._retries:
                raise failed.error
            self._rest(failed, failures, part.size)

    def _rest(self, failed: Failed, failures: int, size_bytes: int) -> None:
        rest = failed.wait_s
        if rest is None:
            rest = min(AGAIN_MAX_S, AGAIN_S * 2 ** max(0, failures - 1)) * random.uniform(0.5, 1)  # noqa: S311
        logger().info(
            "transfer_retried",
            file=self._piece.path.name,
            bytes=size_bytes,
            error=failed.error.word,
            reason=failed.error.message,
            rest_s=round(rest, 1),
        )
        self._stop.sleep(rest)

    def _attempt(self, part: Part) -> None:
        """Raises Failed."""
        served = part.note.served if part.size and self._asks_whether_same else None
        with self._source.opened(part.size, served, time.monotonic() + self._stall_s) as answer:
            if answer.start == part.size:
                self._take(part, answer)
                return
            if served is None:
                part.begin()
                self._take(part, answer)
                return
        # Hosts differ in what they call the same file.  Its hash will tell whether it is.
        self._asks_whether_same = False
        self._attempt(part)

    def _take(self, part: Part, answer: Answer) -> None:
        part.write_note(answer.served)
        buffer, filled, now = self._buffer, 0, time.monotonic()
        write_at, patience = now + _WRITE_S, _Patience(max(SLOW_S, self._stall_s))
        try:
            while (left := self._piece.size_bytes - part.size - filled) > 0:
                room = self._pace.most(min(len(buffer) - filled, left))
                asked = time.monotonic()
                if not (got := answer.read(buffer[filled : filled + room], asked + self._stall_s)):
                    return
                filled += got
                now = time.monotonic()
                patience.spend(now - asked, got)
                if filled == len(buffer) or now >= write_at:
                    taken, filled, write_at = filled, 0, now + _WRITE_S
                    part.write(buffer[:taken])
                    self._report(part, now)
                if (rest := self._pace.wait_s(got)) > 0:
                    self._stop.sleep(rest)
        finally:
            if filled:
                part.write(buffer[:filled])

    def _report(self, part: Part, now: float) -> None:
        if now - self._reported >= _REPORT_S:
            self._reported = now
            self._at(part.size)


class _Patience:
    """Ends an attempt on a line that hardly brings anything: no byte of it comes so late that it would be silence."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._waited = 0.0
        self._got = 0

    def spend(self, seconds: float, got: int) -> None:
        """So long it was waited for so many bytes; what we rest ourselves is not counted.  Raises Failed."""
        self._waited, self._got = self._waited + seconds, self._got + got
        if self._waited < self._over_s:
            return
        if self._got < SLOW_BYTES_PER_S * self._waited:
            raise Failed(TimedOut("The model hub hardly sends anything."))
        self._waited, self._got = 0.0, 0
