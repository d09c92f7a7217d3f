"""The audit log: who changed what, written in the transaction of the change, so that neither is without the other."""

import time
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, insert, select
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


class Event(Act, frozen=True, kw_only=True):
    """An act that was written down."""

    id: str
    at: float
    """Seconds since 1970, UTC."""


async def note(connection: AsyncConnection, act: Act) -> None:
    """Write an act down within the transaction that does it."""
    await connection.execute(
        insert(audit).values(
            id=new_id("aud"),
            tenant_id=act.tenant,
            owner_id=act.actor[:64],
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

    async def page(
        self,
        limit: int,
        before: str | None = None,
        *,
        tenant: str | None = None,
        action: str | None = None,
        actor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Event]:
        """The newest acts, or those before the one of the id `before`."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        wanted = [(audit.c.tenant_id, tenant), (audit.c.action, action), (audit.c.owner_id, actor)]
        query = query.where(*(column == value for column, value in wanted if value is not None))
        if before is not None:
            query = query.where(audit.c.id < before)
        if since is not None:
            query = query.where(audit.c.at >= since)
        if until is not None:
            query = query.where(audit.c.at < until)
        async with self._engine.connect() as connection:
            return [_event(row) for row in (await connection.execute(query)).all()]


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        at=row.at,
        actor=row.owner_id,
        action=row.action,
        target=row.target,
        tenant=row.tenant_id,
        request_id=row.request_id,
        detail=msgspec.json.decode(row.detail),
    )
