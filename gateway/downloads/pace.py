"""How fast all transfers together may go."""

import threading
import time
from collections.abc import Callable

_STEPS_S = 0.125
"""How much of a second a piece is to take at most, so that transfers take turns and a change is soon felt."""
_LEAST = 16 << 10


class Pace:
    """Shared by the threads that receive.

    What was received above the pace is owed; each waits until what is owed, its own piece included, is paid off.
    So whoever comes later waits behind those before, and all get the same share.
    """

    def __init__(self, bytes_per_s: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = bytes_per_s
        """May be changed while transfers run; None is no limit."""
        self._clock = clock
        self._lock = threading.Lock()
        self._owed = 0.0
        self._at = clock()

    def wait_s(self, size_bytes: int) -> float:
        """How long whoever has just received so much is to sleep before it goes on."""
        with self._lock:
            now, rate = self._clock(), self.bytes_per_s
            passed, self._at = max(0.0, now - self._at), now
            if not rate:
                self._owed = 0.0
                return 0.0
            self._owed = max(0.0, self._owed - passed * rate) + size_bytes
            return self._owed / rate

    def most(self, size_bytes: int) -> int:
        """How much is to be received at a time, where there is room for so much."""
        rate = self.bytes_per_s
        return size_bytes if not rate else min(size_bytes, max(_LEAST, int(rate * _STEPS_S)))
