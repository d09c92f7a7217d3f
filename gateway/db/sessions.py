"""Sessions, as they are kept; their turns are those of `gateway.db.responses`."""

from sqlalchemy.ext.asyncio import AsyncEngine


class SessionRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
