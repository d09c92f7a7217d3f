"""Where a branch begins: after a message, which may be in the middle of a turn."""

from typing import TYPE_CHECKING

import msgspec

from compat.canonical.event import Usage
from gateway.db.responses import Turn
from gateway.sessions.said import said
from gateway.sessions.session import Session, could_be_id

if TYPE_CHECKING:
    from gateway.db.sessions import SessionRows


async def cut(rows: "SessionRows", session: Session, message_id: str) -> tuple[list[str], Turn | None] | None:
    """The turns of the shown line up to a message, oldest first, and what there is of the last one where that ends
    in its middle.

    None when the message is not in the line.
    """
    if not could_be_id(message_id):
        return None
    tenant = session.tenant
    ids = await rows.line(tenant, session.id, session.head)
    # An answer is called as its turn is.
    if message_id in ids:
        return ids[ids.index(message_id) :][::-1], None
    wanted = await rows.holding(tenant, session.id, message_id)
    for n, id_ in enumerate(ids):
        if id_ in wanted and (turn := (await rows.turns(tenant, [id_])).get(id_)) is not None:
            kept = _kept(turn, message_id)
            if kept is not None:
                return ids[n + 1 :][::-1], kept
    return None


def _kept(turn: Turn, message_id: str) -> Turn | None:
    """A turn up to a message that was given in it."""
    messages = said(turn)
    for n, message in enumerate(messages):
        if message.id == message_id and not message.answer:
            given = [item for one in messages[: n + 1] for item in one.items]
            # Nothing was answered to it yet.
            return msgspec.structs.replace(
                turn, given=given, output=(), body={}, backend="", model="", status="completed", usage=Usage()
            )
    return None
