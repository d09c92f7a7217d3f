"""Usage rows: what each request cost."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import usage

Row = dict[str, Any]
"""Column name → value; see `gateway.db.tables.usage`."""

_NAMES = [column.name for column in usage.columns]
_COLUMNS = ", ".join(_NAMES)
# A batch travels as one JSON text, which the database takes apart: with a parameter per value, binding
# them costs more than the request they account for, and SQLite's driver fights the event loop for the
# interpreter's lock row by row.
_INSERT = {
    "sqlite": text(
        f"INSERT INTO usage ({_COLUMNS}) SELECT "  # noqa: S608  our own column names
        + ", ".join(f"json_extract(value, '$.{name}')" for name in _NAMES)
        + " FROM json_each(:rows)"
    ),
    "postgresql": text(
        f"INSERT INTO usage ({_COLUMNS}) "  # noqa: S608
        f"SELECT {_COLUMNS} FROM json_populate_recordset(NULL::usage, CAST(:rows AS json))"
    ),
}


class UsageRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, rows: Sequence[Row]) -> None:
        """Insert a batch in one statement."""
        async with self._engine.begin() as connection:
            await connection.execute(_INSERT[connection.dialect.name], {"rows": msgspec.json.encode(rows).decode()})

    async def of_tenant(self, tenant: str, limit: int = 100) -> list[Row]:
        """The newest rows of a tenant."""
        query = select(usage).where(usage.c.tenant_id == tenant).order_by(usage.c.created_at.desc()).limit(limit)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
