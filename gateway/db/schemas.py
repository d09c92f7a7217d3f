"""The versions of each model's schema, as they were when they first held."""

import base64
import zlib

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.tables import schemas

KEPT = 20
"""Versions of one model."""
ROWS_MAX = 2000
"""Of all together: clients may ask for any model of a provider."""


class SchemaRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, tenant: str, owner: str, model: str, version: str, body: bytes, at: float) -> None:
        """Keep a version unless it is kept already; the oldest beyond `KEPT` go."""
        key = {"tenant_id": tenant, "owner_id": owner, "model": model}
        same = _of(tenant, owner, model)
        packed = base64.b64encode(zlib.compress(body)).decode()
        try:
            async with self._engine.begin() as connection:
                newest = select(schemas.c.version).where(same).order_by(schemas.c.created_at.desc(), schemas.c.version)
                known = list((await connection.execute(newest)).scalars())
                if version in known:
                    return
                await connection.execute(
                    schemas.insert(), [key | {"version": version, "body": packed, "created_at": at}]
                )
                if old := known[KEPT - 1 :]:
                    await connection.execute(delete(schemas).where(same, schemas.c.version.in_(old)))
                oldest = select(schemas.c.created_at).order_by(schemas.c.created_at.desc()).offset(ROWS_MAX).limit(1)
                if (bound := (await connection.execute(oldest)).scalar()) is not None:
                    await connection.execute(delete(schemas).where(schemas.c.created_at <= bound))
        except IntegrityError:
            return  # another process was first

    async def get(self, tenant: str, owner: str, model: str, version: str) -> tuple[bytes, float] | None:
        """A version, and since when it held, in seconds since 1970, UTC."""
        this = _of(tenant, owner, model) & (schemas.c.version == version)
        query = select(schemas.c.body, schemas.c.created_at).where(this)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else (zlib.decompress(base64.b64decode(row[0])), row[1])

    async def versions(self, tenant: str, owner: str, model: str) -> list[tuple[str, float]]:
        """The versions that are kept, the newest first, and since when each held."""
        query = (
            select(schemas.c.version, schemas.c.created_at)
            .where(_of(tenant, owner, model))
            .order_by(schemas.c.created_at.desc(), schemas.c.version)
        )
        async with self._engine.connect() as connection:
            return [(version, at) for version, at in await connection.execute(query)]


def _of(tenant: str, owner: str, model: str) -> ColumnElement[bool]:
    return (schemas.c.tenant_id == tenant) & (schemas.c.owner_id == owner) & (schemas.c.model == model)
