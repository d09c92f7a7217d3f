"""How a job goes that is done here: how far it is, how fast, and how long it may still take."""

import asyncio
import math
import time
from collections.abc import Callable

import msgspec

from gateway.jobs.job import Job, Progress

SAMPLE_S = 0.5
"""The shortest time that a rate is told from."""
MEMORY_S = 5.0
"""What is this long ago counts for a third."""
STALL_S = 2.0
"""Without a byte for this long, the rate falls."""


class Course:
    """clock: seconds, monotonic."""

    def __init__(self, job: Job, news: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.job = job
        """As it was when this attempt began."""
        self.over = asyncio.Event()
        self._news = news
        self._clock = clock
        self._told = job.progress
        self._most = job.progress.bytes_done
        self._rate: float | None = None
        self._from: tuple[float, int] | None = None

    def report(self, progress: Progress) -> None:
        """A `Report`."""
        if progress.phase != self._told.phase:
            self._rate = self._from = None
        self._told = progress
        self._sample()
        self._news()

    def progress(self) -> Progress:
        """How far it is now."""
        self._sample()
        told, rate = self._told, self._rate
        if self.over.is_set() or not rate:
            return msgspec.structs.replace(told, bytes_per_s=None, eta_s=None)
        left = None if told.bytes_total is None else max(0, told.bytes_total - told.bytes_done)
        eta_s = None if left is None else round(left / rate, 1)
        return msgspec.structs.replace(told, bytes_per_s=round(rate, 1), eta_s=eta_s)

    def further(self) -> bool:
        """Whether it has got further than ever before, and than when this was asked last."""
        ahead = self._told.bytes_done > self._most
        self._most = max(self._most, self._told.bytes_done)
        return ahead

    def _sample(self) -> None:
        now, done = self._clock(), self._told.bytes_done
        if self._from is None or done < self._from[1]:
            self._from = now, done
            return
        passed, came = now - self._from[0], done - self._from[1]
        if passed < (SAMPLE_S if came else STALL_S):
            return
        rate, weight = came / passed, 1 - math.exp(-passed / MEMORY_S)
        self._rate = rate if self._rate is None else self._rate + weight * (rate - self._rate)
        self._from = now, done
