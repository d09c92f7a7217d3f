"""Credential rows: users' own provider keys, sealed.  At most one for each user and backend."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.vault import Sealed
from gateway.db.audit import Act, note
from gateway.db.engine import durably
from gateway.db.tables import credentials
from gateway.visit import new_id

T = TypeVar("T")


class Credential(Struct, frozen=True, kw_only=True):
    """Times are in seconds since 1970, UTC."""

    id: str
    tenant: str
    owner: str
    backend: str
    kind: str
    """api_key, service_account or oauth_token."""
    base_url: str | None = None
    sealed: Sealed
    status: str
    """unused, accepted or rejected by its provider; unreadable where it cannot be opened here."""
    created_at: float
    updated_at: float
    last_used_at: float | None = None

    @property
    def bond(self) -> list[str | None]:
        """What the sealed secret is bound to."""
        return bond(self.id, self.tenant, self.owner, self.backend, self.kind, self.base_url)


class Draft(Struct, frozen=True, kw_only=True):
    """What a user gives; it becomes the one credential that they have for this backend."""

    tenant: str
    owner: str
    backend: str
    kind: str
    base_url: str | None = None
    seal: Callable[[list[str | None]], Sealed]
    """Seals the secret, bound to these words."""
    act: Callable[[str, bool], Act]
    """For the audit log: given the id, and whether it is new."""


class Use(Struct, frozen=True):
    at: float | None
    status: str
    given_at: float
    """When the credential was given that was used."""


class CredentialRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing: set[asyncio.Task[Any]] = set()

    async def put(self, draft: Draft) -> tuple[Credential, bool]:
        """Keep a credential in place of the one there may be; tells whether there was none."""
        return await self._finished(self._put(draft))

    async def delete(self, id_: str, act: Act) -> bool:
        """Tells whether it was there."""
        return await self._finished(self._delete(id_, act))

    async def reseal(self, known: Credential, sealed: Sealed) -> bool:
        """Seal what is in a row anew; not if the row has changed since it was known, which it tells."""
        return await self._finished(self._reseal(known, sealed))

    async def get(self, id_: str) -> Credential | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(credentials).where(credentials.c.id == id_))).one_or_none()
        return None if row is None else _read(row)

    async def of(self, tenant: str, owner: str) -> list[Credential]:
        """A user's."""
        query = select(credentials).where(credentials.c.tenant_id == tenant, credentials.c.owner_id == owner)
        async with self._engine.connect() as connection:
            return [_read(row) for row in await connection.execute(query)]

    async def page(
        self, limit: int, *, before: str | None = None, tenant: str | None = None, owner: str | None = None
    ) -> list[Credential]:
        """The newest, or those before the one of the id `before`; of one tenant or user where these are named."""
        query = select(credentials).order_by(credentials.c.id.desc()).limit(limit)
        for column, value in (("tenant_id", tenant), ("owner_id", owner)):
            if value is not None:
                query = query.where(credentials.c[column] == value)
        if before is not None:
            query = query.where(credentials.c.id < before)
        async with self._engine.connect() as connection:
            return [_read(row) for row in await connection.execute(query)]

    async def some(self) -> bool:
        """Whether anybody has one."""
        async with self._engine.connect() as connection:
            return (await connection.execute(select(credentials.c.id).limit(1))).first() is not None

    async def used(self, uses: Mapping[str, Use]) -> None:
        """Take note, by id, of when credentials were last used, and of what became of it."""
        unchanged = (credentials.c.id == bindparam("key"), credentials.c.updated_at == bindparam("given"))
        values: dict[str, Any] = {"last_used_at": bindparam("at"), "status": bindparam("now")}
        # In the same order everywhere: two processes must not wait for each other.
        rows = [
            {"key": id_, "given": use.given_at, "at": use.at, "now": use.status} for id_, use in sorted(uses.items())
        ]
        async with self._engine.begin() as connection:
            await connection.execute(update(credentials).where(*unchanged).values(values), rows)

    async def settle(self) -> None:
        """Return when every write that was begun is over."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _finished(self, write: Coroutine[Any, Any, T]) -> T:
        # Shielded: a client that leaves meanwhile must not leave a connection in the middle of its work.
        task = asyncio.ensure_future(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _put(self, draft: Draft) -> tuple[Credential, bool]:
        try:
            return await self._put_once(draft)
        except IntegrityError:
            return await self._put_once(draft)  # another has come first: this one replaces it

    async def _put_once(self, draft: Draft) -> tuple[Credential, bool]:
        t, now = credentials.c, time.time()
        mine = (t.tenant_id == draft.tenant, t.owner_id == draft.owner, t.backend == draft.backend)
        async with durably(self._engine) as connection:
            old = (await connection.execute(select(credentials).where(*mine).with_for_update())).one_or_none()
            id_ = old.id if old is not None else new_id("cred")
            sealed = draft.seal(bond(id_, draft.tenant, draft.owner, draft.backend, draft.kind, draft.base_url))
            values = {
                "kind": draft.kind,
                "base_url": draft.base_url,
                "master_id": sealed.master_id,
                "sealed": sealed.text,
                "status": "unused",
                "updated_at": now,
                "last_used_at": None,
            }
            if old is None:
                whose = {"id": id_, "tenant_id": draft.tenant, "owner_id": draft.owner, "backend": draft.backend}
                await connection.execute(insert(credentials).values(**whose, created_at=now, **values))
            else:
                await connection.execute(update(credentials).where(t.id == id_).values(**values))
            await note(connection, draft.act(id_, old is None))
            row = (await connection.execute(select(credentials).where(t.id == id_))).one()
        return _read(row), old is None

    async def _delete(self, id_: str, act: Act) -> bool:
        async with durably(self._engine) as connection:
            gone = await connection.execute(delete(credentials).where(credentials.c.id == id_))
            if gone.rowcount:
                await note(connection, act)
        return bool(gone.rowcount)

    async def _reseal(self, known: Credential, sealed: Sealed) -> bool:
        t = credentials.c
        unchanged = (t.id == known.id, t.updated_at == known.updated_at, t.sealed == known.sealed.text)
        async with durably(self._engine) as connection:
            done = await connection.execute(
                update(credentials).where(*unchanged).values(master_id=sealed.master_id, sealed=sealed.text)
            )
        return bool(done.rowcount)


def bond(id_: str, tenant: str, owner: str, backend: str, kind: str, base_url: str | None) -> list[str | None]:
    """The words of a row that its secret is bound to."""
    return [id_, tenant, owner, backend, kind, base_url]


def _read(row: Row[Any]) -> Credential:
    return Credential(
        id=row.id,
        tenant=row.tenant_id,
        owner=row.owner_id,
        backend=row.backend,
        kind=row.kind,
        base_url=row.base_url,
        sealed=Sealed(row.master_id, row.sealed),
        status=row.status,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_used_at=row.last_used_at,
    )
