"""Answers that are kept: for clients that come back for them, and for those that ask the same twice."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.db.answers import AnswerRows
    from gateway.house import House


class Answers:
    def __init__(self, house: "House", rows: "AnswerRows") -> None:
        self._house = house
        self.rows = rows

    async def open(self) -> None:
        """Those that a process which is gone was working on have failed."""

    async def watch(self) -> None:
        """Remove, for ever, what has expired."""

    async def aclose(self) -> None:
        """End what is still worked on, and say so in its answer."""
