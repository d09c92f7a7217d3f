"""The turns of sessions and the artifacts in them: put, copied, counted and removed, within others' transactions."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Insert,
    Select,
    String,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from compat.canonical.principal import Principal
from gateway.db.artifacts import hold
from gateway.db.responses import Turn, item_rows, turn_row
from gateway.db.sessionrow import Stub
from gateway.db.tables import artifact_uses, items, sessions, turns
from gateway.db.turning import NEW_ITEMS, NEW_TURNS
from gateway.sessions.said import count, words

HELD_S = 60.0
"""How long at least an artifact lives from when a session holds it: who removes what expires may not see it yet."""
PIECE = 200
"""Rows that are written in one go, not to hold up the loop."""


def of(tenant: str, id_: str) -> ColumnElement[bool]:
    """Which session."""
    return and_(sessions.c.tenant_id == tenant, sessions.c.id == id_)


async def put(connection: AsyncConnection, principal: Principal, given: Sequence[Turn]) -> None:
    """Write turns with their items; their ids are the gateway's own, and new."""
    for n in range(0, len(given), PIECE):
        piece = given[n : n + PIECE]
        rows = [turn_row(principal, turn) | {"messages": count(turn), "words": words(turn)} for turn in piece]
        await connection.execute(NEW_TURNS, rows)
        if rows := [row for turn in piece for row in item_rows(principal, turn)]:
            await connection.execute(NEW_ITEMS, rows)


async def held(connection: AsyncConnection, principal: Principal, id_: str, uses: Collection[str]) -> None:
    """Have a session hold artifacts."""
    await hold(connection, principal.tenant, id_, principal.id, uses, time.time() + HELD_S)


async def empty(connection: AsyncConnection, tenant: str, id_: str) -> None:
    """Remove all turns of a session, and let go of its artifacts."""
    await connection.execute(delete(turns).where(turns.c.tenant_id == tenant, turns.c.session_id == id_))
    held = and_(artifact_uses.c.tenant_id == tenant, artifact_uses.c.session_id == id_)
    await connection.execute(delete(artifact_uses).where(held))


class Link(NamedTuple):
    """What a turn goes on from, and how many messages it adds."""

    before: str
    """Empty: nothing."""
    messages: int


async def links(connection: AsyncConnection, tenant: str, id_: str) -> dict[str, Link]:
    """All turns of a session, by id.

    In one row, out of an index: a query that goes from turn to turn is planned badly where a database has not
    counted its rows yet, and thousands of rows would hold up the loop.
    """
    fields = (turns.c.id, func.coalesce(turns.c.previous_id, ""), cast(func.coalesce(turns.c.messages, 0), String))
    one = fields[0].concat("\t").concat(fields[1]).concat("\t").concat(fields[2])
    found: str | None = await connection.scalar(select(func.aggregate_strings(one, "\n")).where(_within(tenant, id_)))
    return {} if not found else await asyncio.to_thread(_read, found)


def line(links: Mapping[str, Link], head: str | None) -> list[str]:
    """The turns that end with the head, the newest first."""
    found: dict[str, None] = {}
    # A provider that repeats its ids could have made a ring.
    while head and head not in found and (link := links.get(head)) is not None:
        found[head] = None
        head = link.before
    return list(found)


async def newest(connection: AsyncConnection, tenant: str, id_: str, turn_id: str) -> str:
    """The end of the lines that go through a turn: of several, the one that was made last."""
    after: dict[str, list[str]] = {}
    for one, link in (await links(connection, tenant, id_)).items():
        after.setdefault(link.before, []).append(one)
    ends, seen, left = list[str](), {turn_id}, [turn_id]
    while left:
        one = left.pop()
        # A provider that repeats its ids could have made a ring.
        further = [follower for follower in after.get(one, ()) if follower not in seen]
        seen.update(further)
        left += further
        if one not in after:
            ends.append(one)
    if len(ends) < 2:
        return ends[0] if ends else turn_id
    made = list[tuple[float, str]]()
    for n in range(0, len(ends), PIECE):
        these = and_(turns.c.tenant_id == tenant, turns.c.id.in_(ends[n : n + PIECE]))
        found = await connection.execute(select(turns.c.created_at, turns.c.id).where(these))
        made += [(row.created_at, row.id) for row in found]
    return max(made)[1]


def _read(found: str) -> dict[str, Link]:
    rows = (one.split("\t") for one in found.split("\n"))
    return {row[0]: Link(row[1], int(row[2])) for row in rows if len(row) == 3}


def stubs(tenant: str, ids: Collection[str]) -> Select[Any]:
    """These turns, as far as their session's shape goes."""
    found = select(*(turns.c[name] for name in Stub.__struct_fields__))
    return found.where(turns.c.tenant_id == tenant, turns.c.id.in_(ids))


def beside(tenant: str, id_: str, before: Collection[str | None]) -> Select[Any]:
    """All turns that go on from these."""
    known = turns.c.previous_id.in_([one for one in before if one is not None])
    found = or_(known, turns.c.previous_id.is_(None)) if None in before else known
    return select(*(turns.c[name] for name in Stub.__struct_fields__)).where(_within(tenant, id_), found)


def _within(tenant: str, id_: str) -> ColumnElement[bool]:
    return and_(turns.c.tenant_id == tenant, turns.c.session_id == id_)


async def recount(connection: AsyncConnection, tenant: str, id_: str, head: str | None) -> int:
    """Count the messages of the line that ends with the head, and write it down."""
    found = await links(connection, tenant, id_)
    said = sum(found[one].messages for one in line(found, head))
    await connection.execute(update(sessions).where(of(tenant, id_)).values(message_count=said))
    return said


def copied_turns(principal: Principal, session_id: str) -> Insert:
    """What copies the turn `old` as `new`, going on from `before`, into a session."""
    values: dict[str, Any] = {column.name: column for column in turns.c}
    values |= {
        "id": bindparam("new", type_=String),
        "previous_id": bindparam("before", type_=String),
        "session_id": literal(session_id),
        "owner_id": literal(principal.id),
    }
    mine = and_(turns.c.tenant_id == principal.tenant, turns.c.id == bindparam("old", type_=String))
    return insert(turns).from_select(list(values), select(*values.values()).where(mine))


def copied_items(principal: Principal) -> Insert:
    """What copies the items of the turn `old` to the turn `new`."""
    values: dict[str, Any] = {column.name: column for column in items.c}
    values |= {"turn_id": bindparam("new", type_=String), "owner_id": literal(principal.id)}
    mine = and_(items.c.tenant_id == principal.tenant, items.c.turn_id == bindparam("old", type_=String))
    return insert(items).from_select(list(values), select(*values.values()).where(mine))
