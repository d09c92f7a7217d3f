"""Sessions: conversations that are kept, gone on with, branched and exported.

A turn is written once, durably, when it is over, before its client is told so: an acknowledged message is never lost,
and a request that fails before it has shown anything leaves its session as it was.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from backends.base import Wait
from compat.canonical.error import Conflict, InvalidRequest, TimedOut
from gateway.auth.principal import Grant
from gateway.auth.registrar import SYSTEM
from gateway.db.engine import FAILURES
from gateway.db.responses import Turn
from gateway.sessions.branch import cut
from gateway.sessions.form import Branching, NewSession, SessionChanges, checked, entitled
from gateway.sessions.holding import Held, Holding, absent
from gateway.sessions.importing import Exported, taken_in
from gateway.sessions.listing import Listing
from gateway.sessions.messages import Keeper, parse_messages, turns_of
from gateway.sessions.session import Session, could_be_id
from gateway.sessions.summary import Titles
from gateway.sessions.title import title_of
from gateway.telemetry.logging import logger
from gateway.visit import new_id

if TYPE_CHECKING:
    from gateway.db.audit import Act
    from gateway.db.responses import ResponseRows
    from gateway.db.sessions import SessionRows
    from gateway.house import House

WATCH_S = 600.0
"""How often it is looked for sessions whose time is over."""
PIECE, REST_S = 20, 0.05
"""How many of them are removed between rests, in which others can write."""
DAY_S = 86_400.0
WAIT_S = 60.0
"""How long a change waits for who generates in its session, unless its client says."""


class Sessions:
    """Whatever changes what was said in a session waits until nobody generates in it."""

    def __init__(self, house: "House", rows: "SessionRows", turns: "ResponseRows") -> None:
        self._house = house
        self.rows = rows
        self.turns = turns
        self.holding = Holding(rows)
        """Who is at work in which session."""
        self.titles = Titles(rows)
        """Who thinks them up, where a model does."""

    async def open(self) -> None:
        """End what a process before this one has left behind."""
        await self.rows.free()

    async def aclose(self) -> None:
        await self.titles.aclose()
        await self.holding.settle()

    async def get(self, tenant: str, id_: str) -> Session:
        """Raises NotFound: with the same words for one that is somebody else's."""
        session = await self.rows.get(tenant, id_) if could_be_id(id_) else None
        if session is None:
            raise absent(id_)
        return session

    async def create(self, grant: Grant, form: NewSession, request_id: str) -> Session:
        """Raises InvalidRequest, and as artifacts do that cannot be kept."""
        fields = checked(form)
        session = new(grant, fields)
        keeper = Keeper(self._house, grant, request_id)
        said = await keeper.items(parse_messages(form.messages))
        turns = turns_of(session.id, None, said, session.created_at)
        return await self._begin(grant, session, turns, keeper.uses)

    async def take_in(self, grant: Grant, export: Exported, request_id: str) -> Session:
        """A new session as another one was exported.  Raises InvalidRequest."""
        session = new(grant, checked(export.session))
        keeper = Keeper(self._house, grant, request_id)
        turns = await taken_in(keeper, session.id, export.messages, session.created_at)
        return await self._begin(grant, session, turns, keeper.uses)

    async def _begin(self, grant: Grant, session: Session, turns: Sequence[Turn], uses: Sequence[str]) -> Session:
        if session.title is None:
            given = [item for turn in turns for item in turn.given]
            session = msgspec.structs.replace(session, title=title_of(given))
        return await self.rows.create(session, turns, principal=grant.principal, uses=uses)

    async def change(self, grant: Grant, id_: str, form: SessionChanges, wait_s: float = WAIT_S) -> Session:
        """Raises InvalidRequest, NotFound, Conflict when it is closed, or TimedOut.

        A turn under way brings a head and a state of its own: to change these waits for it.
        """
        tenant, fields = grant.principal.tenant, checked(form)
        session = await self._opened(tenant, id_)
        if form.head is not UNSET and not await self.rows.has(tenant, id_, form.head):
            raise InvalidRequest(
                "Invalid value for 'head': expected the id of an answer in this session, like one of the "
                "'alternatives' of its messages.",
                param="head",
                code="invalid_value",
            )
        if form.head is not UNSET or form.state is not UNSET:
            async with self._held(tenant, id_, wait_s) as held:
                if form.head is not UNSET:
                    moved = await self.rows.move(tenant, id_, form.head, held.worker)
                    session = await self._changed(tenant, id_, moved)
                if fields:
                    changed = await self.rows.update(tenant, id_, fields, held.worker)
                    session = await self._changed(tenant, id_, changed)
        elif fields:
            session = await self._changed(tenant, id_, await self.rows.update(tenant, id_, fields))
        return session

    async def add(
        self, grant: Grant, id_: str, given: Sequence[dict[str, Any]], request_id: str, wait_s: float = WAIT_S
    ) -> list[Turn]:
        """Put messages at the end of a session; the turns that they became.

        Raises InvalidRequest, NotFound, Conflict, TimedOut, and as artifacts do that cannot be kept.
        """
        tenant = grant.principal.tenant
        await self._opened(tenant, id_)
        messages = parse_messages(given)
        if not messages:
            raise InvalidRequest(
                "Invalid value for 'messages': expected at least one.", param="messages", code="invalid_value"
            )
        keeper = Keeper(self._house, grant, request_id)
        said = await keeper.items(messages)
        async with self._held(tenant, id_, wait_s) as held:
            turns = turns_of(id_, held.session.head, said, time.time())
            now = await self.rows.append(
                held.session,
                turns,
                principal=grant.principal,
                uses=keeper.uses,
                title=title_of(item for items in said for item in items),
                worker=held.worker,
            )
            if now is None:
                raise absent(id_)
            held.over = True
        return turns

    async def reset(self, tenant: str, id_: str, wait_s: float = WAIT_S) -> Session:
        """Remove what was said, and keep the session.  Raises NotFound, Conflict when it is closed, or TimedOut."""
        await self._opened(tenant, id_)
        async with self._held(tenant, id_, wait_s) as held:
            return await self._changed(tenant, id_, await self.rows.reset(tenant, id_, held.worker))

    async def close(self, tenant: str, id_: str, wait_s: float = WAIT_S) -> Session:
        """Make it read-only, for good; again is as good as once.  Raises NotFound, TimedOut."""
        session = await self.get(tenant, id_)
        if session.status == "closed":
            return session
        async with self._held(tenant, id_, wait_s, closed=True) as held:
            return await self._changed(tenant, id_, await self.rows.close(tenant, id_, held.worker))

    async def branch(self, grant: Grant, id_: str, form: Branching) -> Session:
        """A new session that begins as this one does, up to a message.  Raises NotFound, Conflict, InvalidRequest."""
        tenant = grant.principal.tenant
        source = await self.get(tenant, id_)
        own = entitled(form.title)
        found = await cut(self.rows, source, form.message_id)
        if found is None:
            raise InvalidRequest(
                "Invalid value for 'message_id': expected the id of a message that GET "
                f"/v1/sessions/{id_}/messages lists.",
                param="message_id",
                code="invalid_value",
            )
        whole, last = found
        now = time.time()
        session = msgspec.structs.replace(
            source,
            id=new_id("sess"),
            owner=grant.principal.id,
            title=source.title if own is None else own,
            titled=source.titled or own is not None,
            status="open",
            head=None,
            message_count=0,
            # It may stand for what is not in the branch, as may the state.
            summary=None,
            state={},
            created_at=now,
            last_used_at=now,
            closed_at=None,
        )
        pairs = [(old, new_id("gen")) for old in whole]
        needs = None if last is None else last.id
        if last is not None:
            last.id, last.session_id = new_id("gen"), session.id
            last.previous_id = pairs[-1][1] if pairs else None
        made = await self.rows.branch(session, id_, pairs, last, principal=grant.principal, needs=needs)
        if made is None:
            await self.get(tenant, id_)
            raise changed_meanwhile()
        return made

    async def delete(self, tenant: str, id_: str, act: "Act") -> None:
        """With all that was said, for ever.  Raises NotFound.

        act: what is written to the audit log in the same transaction.
        """
        if not (could_be_id(id_) and await self.rows.delete(tenant, id_, act)):
            raise absent(id_)

    def listing(self, session: Session, base_url: str) -> Listing:
        """What was said in a session, as it is now."""
        return Listing(self._house, session, base_url)

    async def watch(self) -> None:
        """Remove, for ever, the sessions whose time is over (`sessions.unused_days`, `closed_days`)."""
        while True:
            try:
                await self.sweep(time.time())
            except FAILURES as e:
                logger().warning("sessions_not_removed", error=type(e).__name__)
            await asyncio.sleep(WATCH_S)

    async def sweep(self, now: float) -> int:
        """Remove those whose time is over by `now`, in seconds since 1970, UTC; how many they were."""
        settings, removed = self._house.estate.config.sessions, 0
        unused = None if settings.unused_days is None else now - settings.unused_days * DAY_S
        closed = None if settings.closed_days is None else now - settings.closed_days * DAY_S
        while unused is not None or closed is not None:
            found = await self.rows.expired(unused, closed, PIECE)
            for tenant, id_ in found:
                act = SYSTEM.act("session.delete", id_, tenant, {"reason": "retention"})
                removed += await self.rows.expire(tenant, id_, unused, closed, act)
            if len(found) < PIECE:
                break
            await asyncio.sleep(REST_S)
        if removed:
            logger().info("sessions_removed", count=removed)
        return removed

    @asynccontextmanager
    async def _held(self, tenant: str, id_: str, wait_s: float, *, closed: bool = False) -> AsyncGenerator[Held, None]:
        """Have a session to oneself, once nobody generates in it.

        Raises NotFound, TimedOut, and Conflict unless it may be `closed`.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(wait_s):
                    held = await stack.enter_async_context(self.holding.hold(tenant, id_, Wait()))
            except TimeoutError as e:
                raise TimedOut(
                    f"The session was busy for {wait_s:g} s: something is generated in it. Try again when that is "
                    "over, or cancel it."
                ) from e
            if not closed:
                refuse_closed(held.session)
            yield held

    async def _opened(self, tenant: str, id_: str) -> Session:
        session = await self.get(tenant, id_)
        refuse_closed(session)
        return session

    async def _changed(self, tenant: str, id_: str, session: Session | None) -> Session:
        """The session, if it was changed.  Raises as `_opened` does: it was closed or deleted meanwhile."""
        if session is None:
            await self._opened(tenant, id_)
            raise changed_meanwhile()
        return session


def new(grant: Grant, fields: dict[str, Any]) -> Session:
    """A session of the caller's to which nothing has been said yet."""
    now = time.time()
    principal = grant.principal
    empty = Session(id=new_id("sess"), tenant=principal.tenant, owner=principal.id, created_at=now, last_used_at=now)
    return msgspec.structs.replace(empty, **fields)


def changed_meanwhile() -> Conflict:
    """The refusal of what was overtaken by another request."""
    return Conflict("The session was changed by another request meanwhile; try again.")


def refuse_closed(session: Session) -> None:
    """Raises Conflict."""
    if session.status == "closed":
        raise Conflict(f"The session '{session.id}' is closed: it can be read, exported, branched and deleted.")
