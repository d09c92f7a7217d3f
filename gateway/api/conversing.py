"""A request to /v1/responses as a turn of a conversation: what came before it, and where it is kept.

A conversation is a session.  As OpenAI has it, what is asked and answered is added when the answer is complete: one
that fails or is broken off leaves its conversation as it was.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import msgspec

from backends.base import Timeouts, Wait
from compat.canonical.error import Conflict, ContextTooLong, Forbidden, InvalidRequest, NotFound, TimedOut
from compat.canonical.principal import Principal
from compat.canonical.request import Envelope
from compat.openai.conversations import pictures_of
from compat.openai.responses import conversation_of, instructed, truncation_of, with_input
from compat.openai.responses_item import Item
from gateway.api.generation import Job, Language
from gateway.api.pictured import checked, kept, written_out
from gateway.db.responses import Turn
from gateway.house import House
from gateway.routing.router import Plan
from gateway.sessions.context import Line, room
from gateway.sessions.holding import Held
from gateway.sessions.seeing import seen_of
from gateway.sessions.session import Session
from gateway.sessions.title import title_of
from gateway.visit import new_id

SUMMARY = "What was said before, in short:"
SCOPE = "sessions"
"""What a conversation needs, besides what generating does."""
WAIT_S = Timeouts().total_s
"""How long a busy conversation is waited for, unless the client says: who does not stay must not wait for ever."""

Rebuilt = Callable[[Envelope, list[Item]], Envelope]
"""A request and what came before it → the request with that written out."""


async def line_of(house: House, session: Session) -> list[Turn]:
    """The turns of a conversation, oldest first."""
    return [] if session.head is None else await house.archive.turns.line(session.tenant, session.id, session.head)


@asynccontextmanager
async def held(
    house: House, tenant: str, id_: str, wait: Wait, timeout_s: float | None = None
) -> AsyncGenerator[Held, None]:
    """Have a conversation to oneself that can be gone on with.  Raises NotFound, Conflict, TimedOut."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(WAIT_S if timeout_s is None else timeout_s):
                it = await stack.enter_async_context(house.cabinet.sessions.holding.hold(tenant, id_, wait))
        except TimeoutError as e:
            raise TimedOut("The conversation was busy for as long as the request may take.") from e
        except NotFound as e:
            raise absent(id_) from e
        if it.session.status != "open":
            raise Conflict("The conversation is closed.")
        yield it


def told_apart(turn: Turn, line: Sequence[Turn]) -> None:
    """Give those of its items another id whose own is in its conversation already: clients' and providers' may repeat,
    and lists go on from one."""
    taken = {item["id"] for before in line for item in (*before.given, *before.output)}

    def fresh(item: Item) -> Item:
        if item["id"] in taken:
            item = item | {"id": new_id("item")}
        taken.add(item["id"])
        return item

    turn.given, turn.output = [fresh(item) for item in turn.given], [fresh(item) for item in turn.output]


async def append(house: House, it: Held, principal: Principal, turn: Turn, uses: Sequence[str]) -> None:
    """Keep a turn of a conversation that is held, durably, as its head.  Raises Conflict."""
    turn.session_id, turn.previous_id = it.session.id, it.session.head
    rows = house.cabinet.sessions.rows
    writing = it.writing = asyncio.ensure_future(
        rows.append(it.session, turn, principal=principal, uses=uses, title=title_of(turn.given), worker=it.worker)
    )
    # Whoever leaves meanwhile does not break it off: it is waited for before anybody else has the conversation.
    now = await asyncio.shield(writing)
    if now is None:
        raise Conflict("The conversation was deleted meanwhile.")
    it.session, it.over = now, True


class Conversation:
    """The conversation of a request, held while that is answered."""

    def __init__(self, job: Job, it: Held, turns: list[Turn]) -> None:
        self._house = job.house
        self._visit = job.visit
        self._grant = job.grant
        self._held = it
        self._turns = turns
        self._asked = job.envelope
        self._word = truncation_of(job.envelope)
        self._line: Line | None = None
        self._seen: frozenset[str] = frozenset()
        self._rebuilt: Rebuilt | None = None

    @property
    def id(self) -> str:
        return self._held.session.id

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer says of it."""
        said = {} if self._word is None else {"truncation": self._word}
        return {"conversation": {"id": self.id}, **said}

    async def expanded(self, plan: Plan, given: Sequence[Item], rebuilt: Rebuilt) -> Envelope:
        """The request with what came before.  Raises as `checked` does.

        given: what is new in it.
        """
        await checked(self._house, self._grant, given, "input")
        self._seen = seen_of(self._turns, plan, given)
        if any(pictures_of(given)):
            own = await written_out(self._house, self._grant.principal.tenant, given, self._seen)
            self._asked = with_input(self._asked, own)
        policy = {"auto": "drop_oldest", "disabled": "error", None: self._held.session.context or "error"}[self._word]
        self._line = Line(self._turns, given, policy, self._held.session.summary, self._seen.__contains__)
        self._rebuilt = rebuilt
        self._line.fit(room(plan.routes, None), 0)
        return await self._told(self._line, rebuilt)

    async def shorten(self, error: ContextTooLong) -> Envelope | None:  # noqa: ARG002
        """The request with less of what came before, where its client lets go of that."""
        if self._line is None or self._rebuilt is None or not self._line.shorten():
            return None
        return await self._told(self._line, self._rebuilt)

    async def add(self, turn: Turn) -> None:
        """Keep a turn, durably.  Raises Conflict."""
        items, uses = await kept(self._house, self._grant, turn.given, self._visit.request_id)
        turn.given = items
        told_apart(turn, self._turns)
        await append(self._house, self._held, self._grant.principal, turn, uses)

    async def _told(self, line: Line, rebuilt: Rebuilt) -> Envelope:
        before = await written_out(self._house, self._grant.principal.tenant, line.kept, self._seen)
        if line.summary is not None:
            said = {"type": "input_text", "text": f"{SUMMARY}\n{line.summary.text}"}
            before = [{"type": "message", "role": "developer", "content": [said]}, *before]
        return rebuilt(self._asked, before)


@asynccontextmanager
async def within(job: Job, language: Callable[[Conversation], Language]) -> AsyncGenerator[Job, None]:
    """Hold the conversation that a request names.

    language: that of a request in a conversation.
    Raises InvalidRequest, Forbidden, NotFound, Conflict, TimedOut.
    """
    id_ = conversation_of(job.envelope)
    if id_ is None:
        yield job
        return
    if SCOPE not in job.grant.principal.scopes:
        raise Forbidden(f"Your API key or token lacks the scope '{SCOPE}'.")
    if bytes(job.envelope.fields.get("background", b"")) == b"true":
        raise InvalidRequest(
            "'background' is not supported with 'conversation': a turn is kept when it is complete.",
            param="background",
            code="unsupported_parameter",
        )
    began = perf_counter()
    async with held(job.house, job.grant.principal.tenant, id_, job.visit.wait, job.timeout_s) as it:
        envelope, session = job.envelope, it.session
        left_s = None if job.timeout_s is None else max(0.001, job.timeout_s - (perf_counter() - began))
        if not envelope.model and session.model is not None:
            envelope = msgspec.structs.replace(envelope, model=session.model)
            job.visit.requested = session.model
        if session.system is not None:
            envelope = instructed(envelope, session.system)
        inner = msgspec.structs.replace(job, envelope=envelope, timeout_s=left_s)
        conversation = Conversation(inner, it, await line_of(job.house, session))
        yield msgspec.structs.replace(inner, language=language(conversation))


def absent(id_: str) -> NotFound:
    """The error for a conversation that is not there, or is somebody else's."""
    return NotFound(f"Conversation with id '{id_[:200]}' not found.")
