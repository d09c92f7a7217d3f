"""Key rows: the keys that were given out.  Of a key itself only its prefix and its MAC are here.

Every change writes its line of the audit log in the same transaction.
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, and_, bindparam, exists, insert, literal, not_, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.db.audit import Act, note
from gateway.db.engine import connect, upgrade, usable
from gateway.db.tables import keys
from gateway.settings import Limit

_ADVISORY_LOCK = 0x706C7568
_JSON = ("scopes", "models", "backends", "tags", "limits")
"""Columns that hold JSON."""


class KeyRow(Struct, frozen=True, kw_only=True):
    """A key as it is kept; times are in seconds since 1970."""

    id: str
    tenant: str
    owner: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None = None
    backends: tuple[str, ...] | None = None
    tags: dict[str, str] = {}
    limits: Limit | None = None
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    old_prefix: str | None = None
    """Of the key before the last rotation."""
    old_expires_at: float | None = None

    def active(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Candidate(Struct, frozen=True):
    """A key that one with a given prefix may be."""

    row: KeyRow
    mac: str
    expires_at: float | None
    """The row's, or where an overlap ends earlier, that."""


class KeyRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, row: KeyRow, mac: str, act: Act) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(insert(keys).values(_columns(row, mac)))
            await note(connection, act)

    async def add_first_admin(self, row: KeyRow, mac: str, act: Act) -> bool:
        """Add a key unless there is an active one with the scope `admin`; of several at once, one succeeds."""
        active = and_(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > time.time()))
        there = exists().where(active, keys.c.scopes.like('%"admin"%'))
        values = _columns(row, mac)
        # One statement, which in SQLite takes the write lock before it looks.
        only = select(*(literal(value, keys.c[name].type) for name, value in values.items())).where(not_(there))
        async with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            done = await connection.execute(insert(keys).from_select(list(values), only))
            if done.rowcount != 1:
                return False
            await note(connection, act)
            return True

    async def candidates(self, prefix: str) -> list[Candidate]:
        """What a key of this prefix may be: a current key, or one that a rotation has left."""
        query = select(keys).where(or_(keys.c.prefix == prefix, keys.c.old_prefix == prefix))
        async with self._engine.connect() as connection:
            found = (await connection.execute(query)).all()
        return [_candidate(row, prefix) for row in found]

    async def get(self, id_: str) -> KeyRow | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(keys).where(keys.c.id == id_))).one_or_none()
        return None if row is None else _row(row)

    async def page(
        self,
        limit: int,
        before: str | None = None,
        *,
        tenant: str | None = None,
        owner: str | None = None,
        revoked: bool = False,
    ) -> list[KeyRow]:
        """The newest keys, or those before the one of the id `before`.

        revoked: those that are revoked as well.
        """
        query = select(keys).order_by(keys.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(keys.c.id < before)
        if tenant is not None:
            query = query.where(keys.c.tenant_id == tenant)
        if owner is not None:
            query = query.where(keys.c.owner_id == owner)
        if not revoked:
            query = query.where(keys.c.revoked_at.is_(None))
        async with self._engine.connect() as connection:
            return [_row(row) for row in (await connection.execute(query)).all()]

    async def change(self, id_: str, fields: Mapping[str, Any], act: Act) -> KeyRow | None:
        """Give fields of a KeyRow other values; None when there is no such key, or it is revoked."""
        values = {name: _json(value) if name in _JSON else value for name, value in fields.items()}
        return await self._update(id_, values, act)

    async def rotate(self, id_: str, prefix: str, mac: str, until: float | None, act: Act) -> KeyRow | None:
        """Put a new key in the place of the old, which is taken `until` then; None as for `change`."""
        values = {
            "prefix": prefix,
            "mac": mac,
            "old_prefix": None if until is None else keys.c.prefix,
            "old_mac": None if until is None else keys.c.mac,
            "old_expires_at": until,
        }
        return await self._update(id_, values, act)

    async def revoke(self, id_: str, act: Act) -> KeyRow | None:
        """End a key, for good; None as for `change`."""
        ended = {"revoked_at": time.time(), "old_prefix": None, "old_mac": None, "old_expires_at": None}
        return await self._update(id_, ended, act)

    async def used(self, at: Mapping[str, float]) -> None:
        """Write down when keys, by id, were used last."""
        newer = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < bindparam("at"))
        statement = update(keys).where(keys.c.id == bindparam("key"), newer).values(last_used_at=bindparam("at"))
        async with self._engine.begin() as connection:
            # In the same order everywhere: two processes must not wait for each other.
            await connection.execute(statement, [{"key": id_, "at": at[id_]} for id_ in sorted(at)])

    async def _update(self, id_: str, values: Mapping[str, Any], act: Act) -> KeyRow | None:
        statement = update(keys).where(keys.c.id == id_, keys.c.revoked_at.is_(None)).values(values).returning(keys)
        async with self._engine.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                return None
            await self._note(connection, act, row)
            return _row(row)

    async def _note(self, connection: AsyncConnection, act: Act, row: Row[Any]) -> None:
        await note(connection, msgspec.structs.replace(act, tenant=row.tenant_id))


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[KeyRows, None]:
    """The rows of a database, which is brought up to date first.  Raises ConfigError when it cannot be used."""
    with usable():
        engine = connect(url)
        try:
            await upgrade(engine)
            yield KeyRows(engine)
        finally:
            await engine.dispose()


def _columns(row: KeyRow, mac: str) -> dict[str, Any]:
    values = msgspec.structs.asdict(row)
    values |= {name: _json(values[name]) for name in _JSON}
    return values | {"mac": mac, "tenant_id": values.pop("tenant"), "owner_id": values.pop("owner")}


def _row(row: Row[Any]) -> KeyRow:
    values = {name: getattr(row, name) for name in KeyRow.__struct_fields__ if name not in ("tenant", "owner")}
    values |= {name: msgspec.json.decode(values[name]) for name in _JSON if values[name] is not None}
    return msgspec.convert(values | {"tenant": row.tenant_id, "owner": row.owner_id}, KeyRow)


def _candidate(row: Row[Any], prefix: str) -> Candidate:
    kept = _row(row)
    if row.prefix == prefix:
        return Candidate(kept, row.mac, kept.expires_at)
    ends = row.old_expires_at or 0.0
    return Candidate(kept, row.old_mac or "", ends if kept.expires_at is None else min(ends, kept.expires_at))


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
