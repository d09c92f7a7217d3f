"""The items of a session's turns, changed one by one: what OpenAI's Conversations API does.

Every read and write is of one tenant, and durable when it returns.
"""

import msgspec
from sqlalchemy import and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import durably
from gateway.db.lines import of, recount
from gateway.db.responses import Turn
from gateway.db.tables import items, sessions, turns
from gateway.sessions.said import count, words
from gateway.sessions.session import Session

_write = msgspec.json.Encoder().encode


class ItemRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def remove(self, session: Session, turn: Turn, id_: str) -> None:
        """Take an item out of a session's turn.  Whoever asks holds the session."""
        left = msgspec.structs.replace(
            turn,
            given=[item for item in turn.given if item["id"] != id_],
            output=[item for item in turn.output if item["id"] != id_],
        )
        mine = and_(turns.c.tenant_id == session.tenant, turns.c.id == turn.id, turns.c.session_id == session.id)
        of_turn = and_(items.c.tenant_id == session.tenant, items.c.turn_id == turn.id)
        async with durably(self._engine) as connection:
            if (await connection.execute(select(turns.c.id).where(mine))).one_or_none() is None:
                return
            await connection.execute(delete(items).where(of_turn, items.c.id == id_.replace("\x00", "")[:200]))
            await connection.execute(update(turns).where(mine).values(messages=count(left), words=words(left)))
            query = select(sessions.c.head).where(of(session.tenant, session.id))
            head = (await connection.execute(query)).scalar_one_or_none()
            await recount(connection, session.tenant, session.id, head)

    async def hide(self, tenant: str, turn: Turn) -> None:
        """A turn stays in its session, and is no response that can be asked for any more."""
        body = _write(turn.body | {"store": False}).decode()
        mine = and_(turns.c.tenant_id == tenant, turns.c.id == turn.id)
        async with durably(self._engine) as connection:
            await connection.execute(update(turns).where(mine).values(body=body))
