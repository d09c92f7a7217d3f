"""What local models were found to need in memory, so that the next process knows it from the start."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import memory

FORGET_S = 180 * 86_400.0
"""By then the file or the settings have changed, or it is found out again."""


class MemoryRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, sizes: Mapping[str, int]) -> None:
        """Keep these sizes, in bytes, unless another process has found more."""
        if not sizes:
            return
        now = time.time()
        rows = [
            {"key": key, "size_bytes": size, "updated_at": now, "tenant_id": "default", "owner_id": "system"}
            for key, size in sorted(sizes.items())
        ]
        statement = _insert(self._engine.dialect.name)
        found = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["key"],
            set_={"size_bytes": found.size_bytes, "updated_at": found.updated_at},
            where=memory.c.size_bytes <= found.size_bytes,
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement, rows)

    async def all(self) -> dict[str, int]:
        """Every size by its key; what nothing has been heard of for long is forgotten."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(memory).where(memory.c.updated_at < time.time() - FORGET_S))
            found = await connection.execute(select(memory.c.key, memory.c.size_bytes))
            return dict(found.tuples().all())


def _insert(dialect: str) -> Any:
    # Only the one in use: each takes a while to import.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(memory)
    from sqlalchemy.dialects.sqlite import insert

    return insert(memory)
