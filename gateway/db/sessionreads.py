"""Sessions, as they are read: one, a page of them, and the turns of their lines."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, exists, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.lines import beside, line, links, of, stubs
from gateway.db.query import ask
from gateway.db.responses import Turn, read_turn
from gateway.db.sessionrow import Stub, session_of, stub_of
from gateway.db.tables import items, sessions, turns
from gateway.sessions.said import folded
from gateway.sessions.session import Session, Status, could_be_id

SEARCH_S = 10.0
"""How long a search may take."""


class SessionReads:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, tenant: str, id_: str) -> Session | None:
        """None also where it is another tenant's: by the same query."""
        query = select(sessions).where(of(tenant, id_))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else session_of(row)

    async def page(
        self,
        tenant: str,
        limit: int,
        after: tuple[float, str] | None = None,
        *,
        status: Status | None = None,
        search: str | None = None,
    ) -> list[Session]:
        """Sessions by last use, the last first.

        after: `last_used_at` and `id` of the last of the page before.
        search: what its title or one of its messages contains, whatever the case of its letters.
        Raises Unfinished when a search takes too long.
        """
        query = select(sessions).where(sessions.c.tenant_id == tenant).limit(limit)
        query = query.order_by(sessions.c.last_used_at.desc(), sessions.c.id.desc())
        if after is not None:
            place = tuple_(literal(after[0]), literal(after[1]))
            query = query.where(tuple_(sessions.c.last_used_at, sessions.c.id) < place)
        if status is not None:
            query = query.where(sessions.c.status == status)
        if search is not None:
            wanted = folded(search)
            mine = and_(turns.c.tenant_id == tenant, turns.c.session_id == sessions.c.id)
            heard = exists().where(mine, turns.c.words.contains(wanted, autoescape=True))
            query = query.where(or_(sessions.c.words.contains(wanted, autoescape=True), heard))
        return [session_of(row) for row in await ask(self._engine, query, SEARCH_S)]

    async def line(self, tenant: str, id_: str, head: str | None) -> list[str]:
        """The ids of a session's turns that end with the head, the newest first."""
        async with self._engine.connect() as connection:
            return line(await links(connection, tenant, id_), head)

    async def stubs(self, tenant: str, ids: Sequence[str]) -> list[Stub]:
        """These turns, in this order, as far as they are there."""
        found = {stub.id: stub for stub in await self._stubs(stubs(tenant, ids))}
        return [found[id_] for id_ in ids if id_ in found]

    async def beside(self, tenant: str, id_: str, shown: Collection[Stub]) -> list[Stub]:
        """All turns that go on from what these go on from: themselves, and their alternatives."""
        return await self._stubs(beside(tenant, id_, {stub.previous_id for stub in shown})) if shown else []

    async def has(self, tenant: str, id_: str, turn_id: str) -> bool:
        """Whether a turn is one of a session's."""
        query = select(turns.c.id).where(turns.c.tenant_id == tenant, turns.c.session_id == id_, turns.c.id == turn_id)
        if not could_be_id(turn_id):
            return False
        async with self._engine.connect() as connection:
            return (await connection.scalar(query)) is not None

    async def holding(self, tenant: str, id_: str, item_id: str) -> set[str]:
        """The ids of a session's turns in which an item of this id is."""
        here = and_(turns.c.tenant_id == items.c.tenant_id, turns.c.id == items.c.turn_id, turns.c.session_id == id_)
        query = select(items.c.turn_id).where(items.c.tenant_id == tenant, items.c.id == item_id).join(turns, here)
        async with self._engine.connect() as connection:
            return set((await connection.scalars(query)).all())

    async def turns(self, tenant: str, ids: Collection[str]) -> dict[str, Turn]:
        """These turns with all their items, by id."""
        found = select(turns).where(turns.c.tenant_id == tenant, turns.c.id.in_(ids))
        said = select(items).where(items.c.tenant_id == tenant, items.c.turn_id.in_(ids)).order_by(items.c.position)
        parts: dict[str, list[Row[Any]]] = {}
        async with self._engine.connect() as connection:
            rows = (await connection.execute(found)).all()
            for item in await connection.execute(said):
                parts.setdefault(item.turn_id, []).append(item)
        return {row.id: read_turn(row, parts.get(row.id, ())) for row in rows}

    async def _stubs(self, query: Select[Any]) -> list[Stub]:
        async with self._engine.connect() as connection:
            return [stub_of(row) for row in (await connection.execute(query)).all()]
