"""Turns: what was asked and what was answered, item by item, one turn going on from another.

Every read and write is of one tenant.  A turn is durable when `put` returns: a client that has been
told of an answer finds it again after a power cut.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field
from sqlalchemy import Row, Select, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from compat.canonical.event import Usage
from compat.canonical.principal import Principal
from compat.openai.responses_item import sound
from gateway.db import turning
from gateway.db.engine import durably
from gateway.db.tables import items, turns

Item = dict[str, Any]
"""An item of OpenAI's Responses API, decoded."""

_write = msgspec.json.Encoder().encode
MANY = 100
"""Items that are not decoded on the event loop any more."""


class Turn(Struct, kw_only=True):
    id: str
    created_at: float
    """Seconds since 1970, UTC."""
    backend: str
    model: str
    status: str
    previous_id: str | None = None
    session_id: str | None = None
    remote: bool = False
    """The backend keeps the contents; items have only their `id` and `type` here."""
    body: Item = {}
    """The response without its output."""
    usage: Usage = Usage()
    given: Sequence[Item] = ()
    """The items that were new with this turn."""
    output: Sequence[Item] = ()


class Known(Struct, frozen=True):
    """An item that was referred to."""

    item: Item = field(default_factory=dict)
    remote_backend: str | None = None
    """Who keeps its contents, when they are not here."""


class ResponseRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing: set[asyncio.Task[None]] = set()

    async def put(self, principal: Principal, turn: Turn) -> None:
        """Keep a turn; one of the same id is replaced, as providers that count from one need."""
        await self._finished(self._put(principal, turn))

    async def get(self, tenant: str, id_: str) -> Turn | None:
        """A turn with its output, but without what was given."""
        found = select(turns).where(turns.c.tenant_id == tenant, turns.c.id == id_)
        said = (
            select(items)
            .where(items.c.tenant_id == tenant, items.c.turn_id == id_, items.c.output == 1)
            .order_by(items.c.position)
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(found)).one_or_none()
            return None if row is None else read_turn(row, (await connection.execute(said)).all())

    async def chain(self, tenant: str, id_: str) -> list[Turn]:
        """A turn and those it goes back to, oldest first; empty when there is no such turn.

        Turns that have been deleted end the chain: see `previous_id` of the first.
        """
        # UNION, not UNION ALL: a provider that repeats its ids could have made a ring.
        link = (turns.c.id, turns.c.previous_id)
        back = select(*link).where(turns.c.tenant_id == tenant, turns.c.id == id_).cte("back", recursive=True)
        back = back.union(select(*link).where(turns.c.tenant_id == tenant, turns.c.id == back.c.previous_id))
        ids = select(back.c.id)
        found = select(turns).where(turns.c.tenant_id == tenant, turns.c.id.in_(ids))
        said = select(items).where(items.c.tenant_id == tenant, items.c.turn_id.in_(ids)).order_by(items.c.position)
        return await self._line(found, said, id_, {})

    async def line(self, tenant: str, session_id: str, last: str) -> list[Turn]:
        """A turn of a session and those it goes back to, oldest first; empty when there is no such turn.

        Unlike `chain` it does not go from turn to turn, which a database that has not counted its rows plans badly.
        """
        return await self._line(turning.TURNS, turning.ITEMS, last, turning.of(tenant, session_id))

    async def known(self, tenant: str, ids: Iterable[str]) -> dict[str, Known]:
        """The items of these ids that there are, by id."""
        query = (
            select(items.c.id, items.c.body, turns.c.remote, turns.c.backend)
            .join(turns, (turns.c.tenant_id == items.c.tenant_id) & (turns.c.id == items.c.turn_id))
            .where(items.c.tenant_id == tenant, items.c.id.in_(list(ids)))
            .order_by(turns.c.created_at)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return {row.id: Known({}, row.backend) if row.remote else Known(_item(row)) for row in rows}

    async def delete(self, tenant: str, id_: str) -> None:
        await self._finished(self._delete(tenant, id_))

    async def _line(self, found: Select[Any], said: Select[Any], last: str, bound: dict[str, Any]) -> list[Turn]:
        async with self._engine.connect() as connection:
            rows = (await connection.execute(found, bound)).all()
            spoken = (await connection.execute(said, bound)).all()
        return await asyncio.to_thread(_lined, rows, spoken, last) if len(spoken) > MANY else _lined(rows, spoken, last)

    async def settle(self) -> None:
        """Return when every write that was begun is over."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _finished(self, write: Coroutine[Any, Any, None]) -> None:
        # Shielded: a client that leaves meanwhile must not leave a connection in the middle of its work.
        task = asyncio.ensure_future(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def _put(self, principal: Principal, turn: Turn) -> None:
        tenant, rows = principal.tenant, item_rows(principal, turn)
        async with durably(self._engine) as connection:
            await connection.execute(delete(turns).where(turns.c.tenant_id == tenant, turns.c.id == turn.id))
            await connection.execute(insert(turns).values(turn_row(principal, turn)))
            if rows:
                await connection.execute(insert(items), rows)

    async def _delete(self, tenant: str, id_: str) -> None:
        async with durably(self._engine) as connection:
            await connection.execute(delete(turns).where(turns.c.tenant_id == tenant, turns.c.id == id_))


def turn_row(principal: Principal, turn: Turn) -> dict[str, Any]:
    """A turn as its row."""
    return {
        "tenant_id": principal.tenant,
        "id": turn.id,
        "owner_id": principal.id,
        "session_id": turn.session_id,
        "previous_id": turn.previous_id,
        "created_at": turn.created_at,
        "backend": turn.backend,
        "model": turn.model[:300],
        "status": turn.status,
        "remote": int(turn.remote),
        "body": "" if turn.remote else _write(turn.body).decode(),
        "input_tokens": turn.usage.input_tokens,
        "output_tokens": turn.usage.output_tokens,
        "cached_tokens": turn.usage.cached_tokens,
        "reasoning_tokens": turn.usage.reasoning_tokens,
    }


def item_rows(principal: Principal, turn: Turn) -> list[dict[str, Any]]:
    """The items of a turn as their rows."""
    return [
        {
            "tenant_id": principal.tenant,
            "turn_id": turn.id,
            "position": position,
            "owner_id": principal.id,
            # A client's own words, within what the column takes; PostgreSQL refuses NUL.
            "id": item["id"].replace("\x00", "")[:200],
            "output": int(position >= len(turn.given)),
            "kind": item["type"].replace("\x00", "")[:64],
            "body": "" if turn.remote else _write(item).decode(),
        }
        for position, item in enumerate([*turn.given, *turn.output])
    ]


def read_turn(row: Row[Any], rows: Sequence[Row[Any]]) -> Turn:
    """The turn of a row.

    rows: of its items, in their order.
    """
    remote = bool(row.remote)
    return Turn(
        id=row.id,
        created_at=row.created_at,
        backend=row.backend,
        model=row.model,
        status=row.status,
        previous_id=row.previous_id,
        session_id=row.session_id,
        remote=remote,
        body={} if remote else msgspec.json.decode(row.body),
        usage=Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cached_tokens=row.cached_tokens,
            reasoning_tokens=row.reasoning_tokens,
        ),
        given=() if remote else [_item(item) for item in rows if not item.output],
        output=() if remote else [_item(item) for item in rows if item.output],
    )


def _lined(rows: Sequence[Row[Any]], said: Sequence[Row[Any]], last: str) -> list[Turn]:
    """What ends with the last, of these turns."""
    by_id = {row.id: row for row in rows}
    of: dict[str, list[Row[Any]]] = {}
    for item in said:
        of.setdefault(item.turn_id, []).append(item)
    line: list[Turn] = []
    next_: str | None = last
    while next_ is not None and (row := by_id.pop(next_, None)) is not None:
        line.append(read_turn(row, of.get(row.id, ())))
        next_ = row.previous_id
    return line[::-1]


def _item(row: Row[Any]) -> Item:
    return sound(msgspec.json.decode(row.body))
