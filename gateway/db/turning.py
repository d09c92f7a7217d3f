"""The statements of a turn in a session, made once: to make them anew costs more than to run them."""

import time
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    String,
    Text,
    and_,
    bindparam,
    case,
    cast,
    extract,
    func,
    insert,
    or_,
    select,
    update,
)

from gateway.db.tables import items, sessions, turns

UNCOUNTED = -1
"""For the count of a line that has to be counted."""

_TENANT, _ID = bindparam("of_tenant", type_=String), bindparam("of_id", type_=String)
_WORKER, _NOW = bindparam("by_worker", type_=String), bindparam("at_now", type_=Float)
_TITLE, _HEAD = bindparam("new_title", type_=String), bindparam("new_head", type_=String)
_mine = and_(turns.c.tenant_id == _TENANT, turns.c.session_id == _ID)
_theirs = and_(turns.c.tenant_id == items.c.tenant_id, turns.c.id == items.c.turn_id)

TURNS = select(turns).where(_mine)
"""All turns of a session; takes `of`."""
ITEMS = select(items).join(turns, _theirs).where(_mine).order_by(items.c.position)
"""All that was said in them; takes `of`."""
NEW_TURNS, NEW_ITEMS = insert(turns), insert(items)


def of(tenant: str, id_: str) -> dict[str, Any]:
    """Which session, as parameters."""
    return {"of_tenant": tenant, "of_id": id_}


def by(worker: str | None) -> dict[str, Any]:
    """Who holds it, and when it is, as parameters."""
    return {"by_worker": worker, "at_now": time.time()}


class Turning:
    """Those that tell time, by the clock of their database."""

    def __init__(self, dialect: str) -> None:
        now = clock(dialect)
        untitled = sessions.c.title.is_(None)
        follows = sessions.c.head.is_not_distinct_from(bindparam("before", type_=String))
        longer = sessions.c.message_count + bindparam("more", type_=Integer)
        free = or_(sessions.c.held_by.is_(None), sessions.c.held_until < now, sessions.c.held_by == _WORKER)
        free_one = update(sessions).where(sessions.c.tenant_id == _TENANT, sessions.c.id == _ID, free)
        self.take = free_one.values(held_by=_WORKER, held_until=now + bindparam("lease_s", type_=Float)).returning(
            sessions
        )
        """Hold a session for `lease_s`; takes `of` and `by`."""
        self.append = free_one.values(
            head=_HEAD,
            last_used_at=bindparam("used_at", type_=Float),
            message_count=case((follows, longer), else_=UNCOUNTED),
            held_by=None,
            held_until=None,
            title=case((untitled, _TITLE), else_=sessions.c.title),
            words=case((untitled, bindparam("new_words", type_=Text)), else_=sessions.c.words),
            state=func.coalesce(bindparam("new_state", type_=Text), sessions.c.state),
            summary=func.coalesce(bindparam("new_summary", type_=Text), sessions.c.summary),
        ).returning(sessions)
        """Give it another head and let go of it; takes `of`, `by` and all that is bound here."""


def clock(dialect: str) -> ColumnElement[Any]:
    """By the database's clock; SQLite's is that of the machine, which all its processes are on: takes `at_now`."""
    return cast(extract("epoch", func.clock_timestamp()), Float) if dialect == "postgresql" else _NOW
