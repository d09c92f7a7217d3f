"""Artifacts and the blobs that hold their bytes, as they are kept.

An artifact and its blob are referred to in one transaction, which touches the blob's `wanted_at`; a blob is removed
only as it was last seen.  So whoever comes first, an artifact has its bytes: on PostgreSQL the one that comes second
waits for the row, and finds it changed or gone.
"""

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Row, and_, case, delete, exists, func, insert, literal, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.artifacts.artifact import Artifact, Kind
from gateway.db.audit import Act, note
from gateway.db.engine import durably
from gateway.db.tables import artifact_uses, artifacts, blobs

CHUNK = 200
"""Rows in one statement."""
DAMAGED = -1
"""The size of a blob whose object is not what was kept."""
Blob = tuple[str, str]
"""A tenant and the hash of what it keeps."""
_read = msgspec.json.Decoder(dict[str, Any]).decode
_T = TypeVar("_T")


class ArtifactRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing: set[asyncio.Task[Any]] = set()

    async def refer(self, artifact: Artifact, key: str, now: float) -> bool:
        """Keep an artifact whose bytes its tenant has already under this key; False where it has not.

        Raises LookupError where its parent is gone.
        """
        return await self._finished(self._refer(artifact, key, now))

    async def add(self, artifact: Artifact, key: str, now: float, *, instead: str | None = None) -> str:
        """Keep an artifact and the key of its bytes, or refer to the same bytes that came before; the key they have.

        instead: the key under which they are not good, and of which this one takes the place.
        Raises LookupError where its parent is gone.
        """
        return await self._finished(self._add(artifact, key, now, instead))

    async def get(self, id_: str, tenant: str | None = None) -> Artifact | None:
        """An artifact; with a tenant only one of its own."""
        query = select(artifacts).where(artifacts.c.id == id_)
        if tenant is not None:
            query = query.where(artifacts.c.tenant_id == tenant)
        return next(iter(await self._found(query)), None)

    async def several(self, tenant: str, ids: Collection[str]) -> list[Artifact]:
        """Those of these that there are."""
        mine = (artifacts.c.tenant_id == tenant, artifacts.c.id.in_(list(ids)))
        return await self._found(select(artifacts).where(*mine))

    async def page(
        self, tenant: str, limit: int, before: str | None = None, *, kind: Kind | None = None, mime: str | None = None
    ) -> list[Artifact]:
        """A tenant's newest, or those before the one of the id `before`; mime: what its media type begins with."""
        query = select(artifacts).where(artifacts.c.tenant_id == tenant).order_by(artifacts.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(artifacts.c.id < before)
        if kind is not None:
            query = query.where(artifacts.c.kind == kind)
        if mime is not None:
            query = query.where(artifacts.c.mime.startswith(mime, autoescape=True))
        return await self._found(query)

    async def children(self, tenant: str, id_: str) -> list[Artifact]:
        """The oldest first."""
        query = select(artifacts).where(artifacts.c.tenant_id == tenant, artifacts.c.parent_id == id_)
        return await self._found(query.order_by(artifacts.c.id))

    async def uses(self, tenant: str, id_: str) -> int:
        """How many sessions hold it."""
        held = (artifact_uses.c.tenant_id == tenant, artifact_uses.c.artifact_id == id_)
        return int(await self._one(select(func.count()).select_from(artifact_uses).where(*held)))

    async def key(self, tenant: str, sha256: str) -> str | None:
        """Where the bytes are; None: nowhere any more."""
        mine = (blobs.c.tenant_id == tenant, blobs.c.sha256 == sha256)
        found: str | None = await self._one(select(blobs.c.key).where(*mine))
        return found

    async def blob(self, tenant: str, sha256: str) -> tuple[str, bool] | None:
        """Where the bytes are, and whether nobody has found them damaged; None: nowhere."""
        mine = (blobs.c.tenant_id == tenant, blobs.c.sha256 == sha256)
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(blobs.c.key, blobs.c.size_bytes).where(*mine))).one_or_none()
        return None if row is None else (row.key, row.size_bytes != DAMAGED)

    async def damaged(self, key: str) -> None:
        """What is under this key is not what was kept: who puts the same bytes writes them anew."""
        await self._finished(self._damaged(key))

    async def used(
        self, tenant: str, *, key_id: str | None = None, owner: str | None = None, keyless: bool = False
    ) -> int:
        """What artifacts take together, in bytes: a tenant's, a key's, or a user's, `keyless`: those without a key.

        Each counts, also those that have their bytes in common.
        """
        which = [artifacts.c.tenant_id == tenant]
        if key_id is not None:
            which.append(artifacts.c.key_id == key_id)
        if owner is not None:
            which.append(artifacts.c.owner_id == owner)
        if keyless:
            which.append(artifacts.c.key_id.is_(None))
        return int(await self._one(select(func.coalesce(func.sum(artifacts.c.size_bytes), 0)).where(*which)))

    async def totals(self) -> tuple[int, int]:
        """How many artifacts there are, and what their bytes take of the store."""
        count = await self._one(select(func.count()).select_from(artifacts))
        return int(count), await self.stored_bytes()

    async def stored_bytes(self) -> int:
        sizes = select(func.coalesce(func.sum(blobs.c.size_bytes), 0)).where(blobs.c.size_bytes != DAMAGED)
        return int(await self._one(sizes))

    async def delete(self, tenant: str, id_: str, act: Act | None = None) -> list[Blob] | None:
        """Remove it and what was made from it, and say whose bytes may go; None: there is no such artifact.

        act: written down with it.
        """
        return await self._finished(self._delete(tenant, id_, act))

    async def expire(self, now: float) -> list[Blob] | None:
        """Remove some that have expired and that no session holds, with what was made from them.

        None: there are no more.
        """
        query = select(artifacts.c.id).where(_expired(now)).order_by(artifacts.c.expires_at).limit(CHUNK)
        async with self._engine.connect() as connection:
            ids = list((await connection.scalars(query)).all())
        return await self._finished(self._expire(ids, now)) if ids else None

    async def hold(self, tenant: str, session_id: str, owner: str, ids: Collection[str], until: float) -> None:
        """See the function of this name."""
        await self._finished(self._hold(tenant, session_id, owner, ids, until))

    async def unused(self, before: float, limit: int = CHUNK) -> list[Blob]:
        """Bytes that no artifact has, and that nobody has asked for since then."""
        query = select(blobs.c.tenant_id, blobs.c.sha256).where(blobs.c.wanted_at < before, _unused()).limit(limit)
        async with self._engine.connect() as connection:
            return [(row.tenant_id, row.sha256) for row in await connection.execute(query)]

    async def drop(self, blob: Blob) -> str | None:
        """Forget bytes that no artifact has; the key of what is to be removed from the store, None: they stay."""
        return await self._finished(self._drop(blob))

    async def known(self, keys: Collection[str]) -> set[str]:
        """Those of these keys that have bytes of somebody."""
        async with self._engine.connect() as connection:
            return set((await connection.scalars(select(blobs.c.key).where(blobs.c.key.in_(list(keys))))).all())

    async def settle(self) -> None:
        """Return when every write that was begun is over."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _finished(self, write: Coroutine[Any, Any, _T]) -> _T:
        # Shielded: a client that leaves meanwhile must not leave a connection in the middle of its work.
        task = asyncio.ensure_future(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _refer(self, artifact: Artifact, key: str, now: float) -> bool:
        mine = (blobs.c.tenant_id == artifact.tenant, blobs.c.sha256 == artifact.sha256, blobs.c.key == key)
        async with durably(self._engine) as connection:
            # Written first: SQLite cannot turn a transaction that has read into one that writes.
            touched = await connection.execute(update(blobs).where(*mine).values(wanted_at=now))
            if touched.rowcount:
                await _insert(connection, artifact)
            return bool(touched.rowcount)

    async def _damaged(self, key: str) -> None:
        async with durably(self._engine) as connection:
            await connection.execute(update(blobs).where(blobs.c.key == key).values(size_bytes=DAMAGED))

    async def _add(self, artifact: Artifact, key: str, now: float, instead: str | None) -> str:
        made = _insert_blob(self._engine.dialect.name).values(
            tenant_id=artifact.tenant,
            sha256=artifact.sha256,
            owner_id=artifact.owner,
            key=key,
            size_bytes=artifact.size_bytes,
            wanted_at=now,
        )
        which: dict[str, Any] = {"wanted_at": now}
        if instead is not None:
            # Of several who come to mend it the first has it.
            mended = blobs.c.key == instead
            which["key"] = case((mended, key), else_=blobs.c.key)
            which["size_bytes"] = case((mended, artifact.size_bytes), else_=blobs.c.size_bytes)
        made = made.on_conflict_do_update(index_elements=["tenant_id", "sha256"], set_=which)
        async with durably(self._engine) as connection:
            won: str = (await connection.execute(made.returning(blobs.c.key))).scalar_one()
            await _insert(connection, artifact)
        return won

    async def _delete(self, tenant: str, id_: str, act: Act | None) -> list[Blob] | None:
        async with durably(self._engine) as connection:
            gone = await _removed(connection, and_(artifacts.c.tenant_id == tenant, artifacts.c.id == id_))
            if gone and act is not None:
                await note(connection, act)
        return gone or None

    async def _expire(self, ids: Sequence[str], now: float) -> list[Blob]:
        async with self._engine.begin() as connection:
            return await _removed(connection, and_(artifacts.c.id.in_(ids), _expired(now)))

    async def _hold(self, tenant: str, session_id: str, owner: str, ids: Collection[str], until: float) -> None:
        async with durably(self._engine) as connection:
            await hold(connection, tenant, session_id, owner, ids, until)

    async def _drop(self, blob: Blob) -> str | None:
        mine = (blobs.c.tenant_id == blob[0], blobs.c.sha256 == blob[1])
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(blobs.c.wanted_at).where(*mine))).one_or_none()
        if row is None:
            return None
        # As it was seen: one that somebody has asked for meanwhile is not this one any more.
        same = delete(blobs).where(*mine, blobs.c.wanted_at == row.wanted_at, _unused())
        async with self._engine.begin() as connection:
            key: str | None = (await connection.execute(same.returning(blobs.c.key))).scalar_one_or_none()
        return key

    async def _found(self, query: Any) -> list[Artifact]:
        async with self._engine.connect() as connection:
            return [_artifact(row) for row in await connection.execute(query)]

    async def _one(self, query: Any) -> Any:
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalar()


async def hold(
    connection: AsyncConnection, tenant: str, session_id: str, owner: str, ids: Collection[str], until: float
) -> None:
    """Within a transaction: a session refers to these, which are kept as long as it is.

    Those that are not there (any more) are passed over.
    until: seconds since 1970, UTC: none of them expires before, so that who removes what has expired, and cannot see
    yet that it is held, leaves it.
    """
    if not ids:
        return
    mine = (artifacts.c.tenant_id == tenant, artifacts.c.id.in_(list(ids)))
    await connection.execute(update(artifacts).where(*mine, artifacts.c.expires_at < until).values(expires_at=until))
    held = exists().where(artifact_uses.c.session_id == session_id, artifact_uses.c.artifact_id == artifacts.c.id)
    found = select(literal(session_id), artifacts.c.id, artifacts.c.tenant_id, literal(owner)).where(*mine, ~held)
    columns = ["session_id", "artifact_id", "tenant_id", "owner_id"]
    await connection.execute(insert(artifact_uses).from_select(columns, found))


async def _removed(connection: AsyncConnection, which: ColumnElement[bool]) -> list[Blob]:
    """Remove these with all that was made from them, and their uses; whose bytes may go.

    The parents first: a child that is being made waits for its parent's row, and is seen here or finds it gone.
    """
    gone: dict[Blob, None] = {}
    removed = delete(artifacts).where(which)
    while True:
        rows = (
            await connection.execute(removed.returning(artifacts.c.id, artifacts.c.tenant_id, artifacts.c.sha256))
        ).all()
        if not rows:
            return list(gone)
        gone |= dict.fromkeys((row.tenant_id, row.sha256) for row in rows)
        ids = [row.id for row in rows]
        await connection.execute(delete(artifact_uses).where(artifact_uses.c.artifact_id.in_(ids)))
        removed = delete(artifacts).where(artifacts.c.parent_id.in_(ids))


async def _insert(connection: AsyncConnection, artifact: Artifact) -> None:
    if artifact.parent_id is not None:
        # Locks it, so that it is not removed without this one.
        parent = (artifacts.c.tenant_id == artifact.tenant, artifacts.c.id == artifact.parent_id)
        there = await connection.execute(update(artifacts).where(*parent).values(tenant_id=artifact.tenant))
        if not there.rowcount:
            raise LookupError(artifact.parent_id)
    await connection.execute(
        insert(artifacts).values(
            id=artifact.id,
            tenant_id=artifact.tenant,
            owner_id=artifact.owner,
            key_id=artifact.key_id,
            kind=artifact.kind,
            mime=artifact.mime,
            name=artifact.name,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            meta=msgspec.json.encode(artifact.meta).decode(),
            parent_id=artifact.parent_id,
            request_id=artifact.request_id,
            created_at=artifact.created_at,
            expires_at=artifact.expires_at,
        )
    )


def _expired(now: float) -> ColumnElement[bool]:
    """Not what was made from another one, which goes with that; nor what is held, or what was made from it is."""
    child, parent = artifacts.alias("child"), artifacts.alias("parent")
    held = exists().where(artifact_uses.c.artifact_id == artifacts.c.id)
    child_held = exists().where(child.c.parent_id == artifacts.c.id, artifact_uses.c.artifact_id == child.c.id)
    orphaned = not_(exists().where(parent.c.id == artifacts.c.parent_id))
    alone = or_(artifacts.c.parent_id.is_(None), orphaned)
    return and_(artifacts.c.expires_at <= now, alone, not_(held), not_(child_held))


def _unused() -> ColumnElement[bool]:
    same = (artifacts.c.tenant_id == blobs.c.tenant_id, artifacts.c.sha256 == blobs.c.sha256)
    return not_(exists().where(*same))


def _insert_blob(dialect: str) -> Any:
    # Only the one in use: each takes a while to import.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(blobs)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(blobs)


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(
        id=row.id,
        tenant=row.tenant_id,
        owner=row.owner_id,
        key_id=row.key_id,
        kind=row.kind,
        mime=row.mime,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        meta=_read(row.meta),
        parent_id=row.parent_id,
        request_id=row.request_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
