"""Rows of what is registered: one for each model."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.audit import Act, note
from gateway.db.tables import models
from gateway.registry.entry import Entry

_entry = msgspec.json.Decoder(Entry)


class ModelRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def all(self) -> list[Entry]:
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(models.c.body, models.c.last_used_at).order_by(models.c.id))
            return [msgspec.structs.replace(_entry.decode(body), last_used_at=at) for body, at in rows.tuples()]

    async def put(self, entries: Iterable[Entry], act: Act | None = None) -> None:
        """Keep these in place of what there was of them: all or none.

        act: written down with it, in one transaction.
        """
        rows = await asyncio.to_thread(_rows, entries)
        if not rows and act is None:
            return
        async with self._engine.begin() as connection:
            if rows:
                gone = [{"gone": row["id"]} for row in rows]
                await connection.execute(delete(models).where(models.c.id == bindparam("gone")), gone)
                await connection.execute(insert(models), rows)
            if act is not None:
                await note(connection, act)

    async def remove(self, ids: Iterable[str], act: Act | None = None) -> None:
        gone = [{"gone": id_} for id_ in ids]
        if not gone and act is None:
            return
        async with self._engine.begin() as connection:
            if gone:
                await connection.execute(delete(models).where(models.c.id == bindparam("gone")), gone)
            if act is not None:
                await note(connection, act)

    async def used(self, times: Mapping[str, float]) -> None:
        """Write down when these were used last."""
        if times:
            rows = [{"used": id_, "at": at} for id_, at in sorted(times.items())]
            async with self._engine.begin() as connection:
                statement = update(models).where(models.c.id == bindparam("used")).values(last_used_at=bindparam("at"))
                await connection.execute(statement, rows)


def _rows(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [
        {
            "id": entry.id,
            "tenant_id": entry.tenant,
            "owner_id": entry.owner,
            "backend": entry.backend,
            "name": entry.name,
            "status": entry.status,
            "explicit": int(entry.explicit),
            "body": msgspec.json.encode(entry).decode(),
            "created_at": entry.created_at,
            "updated_at": entry.updated_at,
            "last_used_at": entry.last_used_at,
        }
        for entry in entries
    ]
