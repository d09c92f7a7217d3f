"""Model rows: what is registered on this machine."""

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from backends.ports import Local
from gateway.db.tables import models

_KEPT = ("modality", "source", "size_bytes", "quantization", "context_length")


class ModelRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, found: Iterable[Local], *, tenant: str = "default", owner: str = "system") -> None:
        """Register what discovery found; a row that is there already keeps its time of creation."""
        now = time.time()
        async with self._engine.begin() as connection:
            known = dict((await connection.execute(select(models.c.id, models.c.created_at))).tuples().all())
            rows: list[dict[str, Any]] = [
                {
                    "id": local.model.id,
                    "tenant_id": tenant,
                    "owner_id": owner,
                    "backend": local.model.backend,
                    "name": local.name,
                    "path": local.path,
                    "status": "ready",
                    "created_at": known.get(local.model.id, now),
                    "updated_at": now,
                    **{name: getattr(local.model, name) for name in _KEPT},
                }
                for local in found
            ]
            if rows:
                await connection.execute(delete(models).where(models.c.id.in_([row["id"] for row in rows])))
                await connection.execute(insert(models), rows)

    async def all(self) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(select(models))).mappings()]
