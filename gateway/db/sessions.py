"""Sessions, as they are kept; their turns are those of `gateway.db.responses`.

Every read and write is of one tenant.  What belongs together is one transaction, and durable when it returns: a turn
with its items, the head that it becomes, and the artifacts that the session now holds.

Whoever generates in a session holds it by a lease, told by the database's clock: nobody else takes it meanwhile, in
whatever process they are.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.dml import ReturningUpdate

from compat.canonical.principal import Principal
from gateway.db import turning
from gateway.db.audit import Act, note
from gateway.db.engine import durably
from gateway.db.lines import (
    PIECE,
    copied_items,
    copied_turns,
    empty,
    held,
    links,
    newest,
    of,
    put,
    recount,
)
from gateway.db.responses import Turn
from gateway.db.sessionreads import SessionReads
from gateway.db.sessionrow import columns, fields_of, session_of
from gateway.db.tables import artifact_uses, sessions, turns
from gateway.db.turning import UNCOUNTED, Turning
from gateway.sessions.said import count
from gateway.sessions.session import Session, Summary

LEASE_S = 6.0
"""How long after the death of a process its sessions can be gone on with by another; renewed well before."""


class Taken(NamedTuple):
    """What came of taking a session."""

    session: Session | None
    """As it stands; None: there is none."""
    mine: bool
    """It is held now by who asked; else by somebody else, so ask again in a while."""


P = ParamSpec("P")
T = TypeVar("T")
Write = Callable[Concatenate["SessionRows", P], Coroutine[Any, Any, T]]


def _unbroken(write: Write[P, T]) -> Write[P, T]:
    """A client that leaves meanwhile must not leave a connection in the middle of its work."""

    async def begun(self: "SessionRows", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(self.begin(write(self, *args, **kwargs)))

    begun.__doc__ = write.__doc__
    return begun


class SessionRows(SessionReads):
    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._turning = Turning(engine.dialect.name)
        self._writing: set[asyncio.Task[Any]] = set()

    @_unbroken
    async def create(
        self, session: Session, given: Sequence[Turn] = (), *, principal: Principal, uses: Collection[str] = ()
    ) -> Session:
        """Keep a new session, with the turns that it begins with, oldest first; returns it with its head."""
        if given:
            head, said = given[-1].id, sum(count(turn) for turn in given)
            session = msgspec.structs.replace(session, head=head, message_count=said)
        async with durably(self._engine) as connection:
            await connection.execute(insert(sessions).values(columns(session)))
            await put(connection, principal, given)
            await held(connection, principal, session.id, uses)
        return session

    @_unbroken
    async def branch(
        self,
        session: Session,
        source: str,
        pairs: Sequence[tuple[str, str]],
        last: Turn | None,
        *,
        principal: Principal,
        needs: str | None = None,
    ) -> Session | None:
        """Keep a new session that begins with turns of another, the `source`, and holds the artifacts that it holds.

        pairs: ids of the turns, oldest first, and of their copies.  last: comes after these, as it is given.
        needs: the turn that `last` is a part of.
        Returns None where the source, or one of these turns, is there no more: then nothing was written.
        """
        before = [None, *(new for _, new in pairs)]
        copies = [{"old": old, "new": new, "before": before[n]} for n, (old, new) in enumerate(pairs)]
        head = last.id if last is not None else before[-1]
        session = msgspec.structs.replace(session, head=head)
        wanted = {old for old, _ in pairs} | ({needs} if needs is not None else set())
        # Changes nothing, and keeps out whoever empties or deletes the source until all is copied.
        locked = update(sessions).where(of(principal.tenant, source)).values(status=sessions.c.status)
        async with durably(self._engine) as connection:
            if not (await connection.execute(locked)).rowcount:
                return None
            if not wanted <= (await links(connection, principal.tenant, source)).keys():
                return None
            await connection.execute(insert(sessions).values(columns(session)))
            for n in range(0, len(copies), PIECE):
                await connection.execute(copied_turns(principal, session.id), copies[n : n + PIECE])
                await connection.execute(copied_items(principal), copies[n : n + PIECE])
            if last is not None:
                await put(connection, principal, [last])
            theirs = and_(artifact_uses.c.tenant_id == principal.tenant, artifact_uses.c.session_id == source)
            uses = (await connection.scalars(select(artifact_uses.c.artifact_id).where(theirs))).all()
            for n in range(0, len(uses), PIECE):
                await held(connection, principal, session.id, uses[n : n + PIECE])
            said = await recount(connection, principal.tenant, session.id, head)
        return msgspec.structs.replace(session, message_count=said)

    @_unbroken
    async def update(
        self, tenant: str, id_: str, fields: Mapping[str, Any], worker: str | None = None
    ) -> Session | None:
        """Give fields of an open session other values; None when there is none that is open.

        worker: who took it, and must still have it.  None: whoever has it.
        """
        wanted = and_(of(tenant, id_), _open)
        if worker is not None:
            wanted = and_(wanted, self._free(worker))
        return await self._changed(update(sessions).where(wanted).values(fields_of(fields)).returning(sessions))

    @_unbroken
    async def entitle(self, session: Session, title: str) -> Session | None:
        """Another title instead of one that was made up; None when it has another one by now, or is closed."""
        same = and_(sessions.c.titled == 0, sessions.c.title.is_not_distinct_from(session.title))
        wanted = and_(of(session.tenant, session.id), _open, same)
        changes = fields_of({"title": title})
        return await self._changed(update(sessions).where(wanted).values(changes).returning(sessions))

    @_unbroken
    async def close(self, tenant: str, id_: str, worker: str | None = None) -> Session | None:
        """Closing what is closed changes nothing.  None when there is none, or others than `worker` have it."""
        now = time.time()
        values = {"status": "closed", "closed_at": func.coalesce(sessions.c.closed_at, now)}
        wanted = and_(of(tenant, id_), self._free(worker))
        return await self._changed(update(sessions).where(wanted).values(values).returning(sessions))

    @_unbroken
    async def move(self, tenant: str, id_: str, head: str, worker: str) -> Session | None:
        """Go on from the end of the lines that go through another of its turns, of several the newest; None when there
        is none that is open, or has such a turn.

        worker: who took it.
        """
        values = {"head": head, "last_used_at": time.time(), "summary": None}
        theirs = exists().where(turns.c.tenant_id == tenant, turns.c.session_id == id_, turns.c.id == head)
        wanted = and_(of(tenant, id_), _open, self._free(worker), theirs)
        async with durably(self._engine) as connection:
            row = (await connection.execute(update(sessions).where(wanted).values(values).returning(sessions))).first()
            if row is None:
                return None
            end = await newest(connection, tenant, id_, head)
            await connection.execute(update(sessions).where(of(tenant, id_)).values(head=end))
            said = await recount(connection, tenant, id_, end)
        return msgspec.structs.replace(session_of(row), head=end, message_count=said)

    @_unbroken
    async def reset(self, tenant: str, id_: str, worker: str) -> Session | None:
        """Remove all its turns, and let go of its artifacts; None when there is none that is open.

        worker: who took it.
        """
        own = sessions.c.titled == 1
        values = {
            "head": None,
            "message_count": 0,
            "summary": None,
            "state": "{}",
            "title": case((own, sessions.c.title), else_=None),
            "words": case((own, sessions.c.words), else_=None),
            "last_used_at": time.time(),
        }
        wanted = and_(of(tenant, id_), _open, self._free(worker))
        async with durably(self._engine) as connection:
            row = (await connection.execute(update(sessions).where(wanted).values(values).returning(sessions))).first()
            if row is None:
                return None
            await empty(connection, tenant, id_)
        return session_of(row)

    @_unbroken
    async def delete(self, tenant: str, id_: str, act: Act) -> bool:
        """Remove it with its turns, and let go of its artifacts; False when there is none."""
        return await self._delete(tenant, id_, act)

    async def expired(self, unused: float | None, closed: float | None, limit: int) -> list[tuple[str, str]]:
        """Tenants and ids of sessions that were used last, or closed, before these moments; None: whenever."""
        query = select(sessions.c.tenant_id, sessions.c.id).where(self._over(unused, closed)).limit(limit)
        async with self._engine.connect() as connection:
            return [(row.tenant_id, row.id) for row in await connection.execute(query)]

    @_unbroken
    async def expire(self, tenant: str, id_: str, unused: float | None, closed: float | None, act: Act) -> bool:
        """Remove it as `delete` does, unless it was used meanwhile."""
        return await self._delete(tenant, id_, act, self._over(unused, closed))

    @_unbroken
    async def append(
        self,
        session: Session,
        turn: Turn | Sequence[Turn],
        *,
        principal: Principal,
        uses: Collection[str] = (),
        title: str | None = None,
        state: dict[str, Any] | None = None,
        summary: Summary | None = None,
        worker: str | None = None,
    ) -> Session | None:
        """Keep a turn of a session, durably, and make it the head; ends the lease of `worker`.

        turn: its `session_id` and `previous_id` are already set; `previous_id` need not be the head (then it becomes
        an alternative).  Of several, the last becomes the head.
        uses: ids of artifacts in it; those that are not there (any more) are passed over.
        title: for a session that has none by now.
        state, summary: None leaves them.
        worker: who took it.  None: nobody did, and nobody must hold it.
        Returns the session as it is now; None when it was deleted meanwhile, or is held by somebody else: then
        nothing was written.
        """
        given = [turn] if isinstance(turn, Turn) else turn
        fields = fields_of({"title": title, "state": state, "summary": summary})
        bound = {f"new_{name}": fields[name] for name in ("title", "words", "state", "summary")}
        bound |= {
            "new_head": given[-1].id,
            "used_at": time.time(),
            "before": given[0].previous_id,
            "more": sum(count(one) for one in given),
        }
        bound |= turning.of(session.tenant, session.id) | turning.by(worker)
        async with durably(self._engine) as connection:
            row = (await connection.execute(self._turning.append, bound)).first()
            if row is None:
                return None
            await put(connection, principal, given)
            await held(connection, principal, session.id, uses)
            now = session_of(row)
            if now.message_count == UNCOUNTED:
                said = await recount(connection, session.tenant, session.id, now.head)
                now = msgspec.structs.replace(now, message_count=said)
        return now

    async def take(self, tenant: str, id_: str, worker: str) -> Taken:
        """Hold a session for LEASE_S, unless somebody else does."""
        taking = self.begin(self._take(tenant, id_, worker))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self.begin(self._untake(taking, id_, worker))
            raise

    @_unbroken
    async def renew(self, worker: str, ids: Collection[str]) -> set[str]:
        """Hold them for LEASE_S more; returns those that `worker` still holds."""
        mine = and_(sessions.c.held_by == worker, sessions.c.id.in_(ids))
        values = {"held_until": self._now() + LEASE_S}
        async with self._engine.begin() as connection:
            renewed = update(sessions).where(mine).values(values).returning(sessions.c.id)
            return set((await connection.execute(renewed)).scalars())

    @_unbroken
    async def release(self, worker: str, ids: Collection[str]) -> None:
        """Let go of what `worker` holds and has not appended to."""
        mine = and_(sessions.c.held_by == worker, sessions.c.id.in_(ids))
        async with self._engine.begin() as connection:
            await connection.execute(update(sessions).where(mine).values(held_by=None, held_until=None))

    async def free(self) -> None:
        """End all leases on SQLite, where no other process than this one can hold any."""
        if self._engine.dialect.name == "sqlite":
            async with self._engine.begin() as connection:
                held = sessions.c.held_by.is_not(None)
                await connection.execute(update(sessions).where(held).values(held_by=None, held_until=None))

    async def settle(self) -> None:
        """Return when every write that was begun is over."""
        while self._writing:
            await asyncio.gather(*self._writing, return_exceptions=True)

    def begin(self, write: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Write, whoever still waits for it."""
        task = asyncio.ensure_future(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _take(self, tenant: str, id_: str, worker: str) -> Taken:
        bound = turning.of(tenant, id_) | turning.by(worker) | {"lease_s": LEASE_S}
        async with self._engine.begin() as connection:
            row = (await connection.execute(self._turning.take, bound)).one_or_none()
        return Taken(session_of(row), mine=True) if row is not None else Taken(await self.get(tenant, id_), mine=False)

    async def _untake(self, taking: "asyncio.Task[Taken]", id_: str, worker: str) -> None:
        if (await taking).mine:
            await self.release(worker, [id_])

    async def _changed(self, statement: ReturningUpdate[Any]) -> Session | None:
        async with self._engine.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else session_of(row)

    async def _delete(self, tenant: str, id_: str, act: Act, if_: ColumnElement[bool] | None = None) -> bool:
        wanted = of(tenant, id_) if if_ is None else and_(of(tenant, id_), if_)
        async with durably(self._engine) as connection:
            if not (await connection.execute(delete(sessions).where(wanted))).rowcount:
                return False
            await empty(connection, tenant, id_)
            await note(connection, act)
        return True

    def _over(self, unused: float | None, closed: float | None) -> ColumnElement[bool]:
        ways = [] if unused is None else [sessions.c.last_used_at < unused]
        if closed is not None:
            ways.append(and_(sessions.c.status == "closed", sessions.c.closed_at < closed))
        return and_(or_(false(), *ways), self._free())

    def _free(self, worker: str | None = None) -> ColumnElement[bool]:
        """Whether nobody holds a session, but for `worker`."""
        free = or_(sessions.c.held_by.is_(None), sessions.c.held_until < self._now())
        return free if worker is None else or_(free, sessions.c.held_by == worker)

    def _now(self) -> ColumnElement[Any]:
        now = turning.clock(self._engine.dialect.name)
        return literal(time.time()) if isinstance(now, BindParameter) else now


_open = sessions.c.status == "open"
