"""Answers that are kept, and which process works on those that are not there yet."""

from sqlalchemy.ext.asyncio import AsyncEngine


class AnswerRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
