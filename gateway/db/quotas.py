"""What is left of providers' quotas, so that the next process knows it from the start."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import quotas
from gateway.routing.quota import Standing

FORGET_S = 86_400.0
_MODEL_MAX = 300
_KEY = ("account", "model", "unit", "span")
_TOLD = ("most", "remaining", "resets_at", "evenly", "updated_at")


class QuotaRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, standings: Sequence[Standing]) -> None:
        """Keep how these limits stand, unless another process has kept something newer."""
        rows = [
            msgspec.structs.asdict(one) | {"evenly": int(one.evenly), "tenant_id": "default", "owner_id": "system"}
            for one in standings
            if len(one.model) <= _MODEL_MAX and "\x00" not in one.model
        ]
        if not rows:
            return
        statement = _insert(self._engine.dialect.name)
        told = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=_KEY,
            set_={name: told[name] for name in _TOLD},
            where=quotas.c.updated_at <= told.updated_at,
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement, sorted(rows, key=lambda row: [row[name] for name in _KEY]))

    async def all(self) -> list[Standing]:
        """Those that count still; what is long over is forgotten."""
        now = time.time()
        async with self._engine.begin() as connection:
            await connection.execute(delete(quotas).where(quotas.c.resets_at < now - FORGET_S))
            found = await connection.execute(select(quotas).where(quotas.c.resets_at > now))
            rows = [{name: row[name] for name in (*_KEY, *_TOLD)} for row in found.mappings()]
        return [Standing(**row | {"evenly": bool(row["evenly"])}) for row in rows]


def _insert(dialect: str) -> Any:
    # Only the one in use: each takes a while to import.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(quotas)
    from sqlalchemy.dialects.sqlite import insert

    return insert(quotas)
