"""Rows of jobs."""

from sqlalchemy.ext.asyncio import AsyncEngine


class JobRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
