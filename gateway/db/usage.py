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
_PLACES = f"({', '.join('?' * len(_NAMES))})"
_CHUNK = 100
"""Rows in one statement of SQLite, which may have 32,766 parameters."""
# Many rows in each statement: of one statement a row, SQLite's driver fights the event loop for the
# interpreter's lock.
_INTO = f"INSERT INTO usage ({_COLUMNS})"
# PostgreSQL takes a batch as one JSON text: binding a parameter per value costs more than what it accounts for.
_FROM_JSON = text(
    f"{_INTO} SELECT {_COLUMNS} FROM json_populate_recordset(NULL::usage, CAST(:rows AS json))"  # noqa: S608
)


class UsageRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, rows: Sequence[Row]) -> None:
        """Insert a batch, all or none."""
        async with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(_FROM_JSON, {"rows": msgspec.json.encode(rows).decode()})
                return
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                values = tuple(row[name] for row in chunk for name in _NAMES)
                await connection.exec_driver_sql(f"{_INTO} VALUES {', '.join([_PLACES] * len(chunk))}", values)

    async def of_tenant(self, tenant: str, limit: int = 100) -> list[Row]:
        """The newest rows of a tenant."""
        query = select(usage).where(usage.c.tenant_id == tenant).order_by(usage.c.created_at.desc()).limit(limit)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
