"""What the machine has free, as it was seen last.

Invariant: what is free and what of that is spoken for are seen at the same moment.
"""

from collections.abc import Callable, Iterable
from math import inf

from backends.local.pool.seat import Seat, now


class Survey:
    def __init__(self) -> None:
        self.free = 0
        """Bytes of the machine's memory."""
        self._at = -inf

    def forget(self) -> None:
        """It is not true any more."""
        self._at = -inf

    def renew(self, age_s: float, available: Callable[[], int], seats: Iterable[Seat]) -> None:
        """Look again, unless that was done so short a time ago."""
        if now() >= self._at + age_s:
            self._at, self.free = now(), available()
            for seat in seats:
                seat.survey()
