"""The audit log: who changed what, written in the transaction of the change, so that neither is without the other."""

import time
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.db.tables import audit
from gateway.visit import new_id


class Act(Struct, frozen=True, kw_only=True):
    """One administrative act."""

    actor: str
    """Who acts: a principal's id, or `cli`."""
    action: str
    """noun.verb, like `key.revoke`."""
    target: str
    """The id of what is acted on."""
    tenant: str
    """Of what is acted on."""
    request_id: str | None = None
    detail: dict[str, Any] = {}
    """What changed, in plain values; never a secret."""


async def note(connection: AsyncConnection, act: Act) -> None:
    """Write an act down within the transaction that does it."""
    await connection.execute(
        insert(audit).values(
            id=new_id("aud"),
            tenant_id=act.tenant,
            owner_id=act.actor,
            at=time.time(),
            action=act.action,
            target=act.target[:300],
            request_id=act.request_id,
            detail=msgspec.json.encode(act.detail).decode(),
        )
    )


class AuditRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, act: Act) -> None:
        """Write down an act that changes nothing in the database."""
        async with self._engine.begin() as connection:
            await note(connection, act)

    async def page(self, limit: int, before: str | None = None, tenant: str | None = None) -> list[dict[str, Any]]:
        """The newest acts, or those before the one of the id `before`."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        if tenant is not None:
            query = query.where(audit.c.tenant_id == tenant)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
