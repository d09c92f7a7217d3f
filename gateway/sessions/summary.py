"""What a model writes about a session: a summary of its oldest turns, a title.  Requests within a request."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from backends.base import Call
from compat.canonical.error import ContextTooLong, GatewayError
from compat.canonical.event import TextDelta
from compat.canonical.message import Message, Text
from compat.canonical.request import Sampling, TextRequest
from compat.nativeturn import transcript
from compat.openai.responses_item import Item
from gateway.asking import Origin, ask
from gateway.auth.principal import Grant
from gateway.db.engine import FAILURES
from gateway.house import Estate, House
from gateway.sessions.session import Session
from gateway.telemetry.logging import logger
from gateway.visit import Visit

if TYPE_CHECKING:
    from gateway.db.sessions import SessionRows

SUMMARY_TOKENS = 400
"""Of a summary, at most."""
TITLE_TOKENS = 24
TITLE_S = 60.0
"""How long a title may take."""
TRIES = 4
"""With half of the text each time, where it is too long for who is to sum it up."""
TEXT_MAX = 200_000
"""Characters that are summed up: of more, the newest."""
TITLED_MAX = 2000
_SUM_UP = (
    "Sum up the conversation below, for an assistant who goes on with it and does not see it. Keep names, numbers, "
    "decisions and what is still open. Write plain text, no more than 200 words."
)
_ENTITLE = "Answer with a title of at most six words for the conversation below: plain text, no quotes, nothing else."


class Asker(Struct, frozen=True):
    """The request that a session's own requests are part of."""

    house: House
    estate: Estate
    visit: Visit
    grant: Grant


def asker(origin: Origin) -> Asker:
    """In whose name a session asks: not a backend's, so the one that answers the turn may be asked as well."""
    return Asker(origin.house, origin.estate, replace(origin.visit, backend=None, lent=()), origin.grant)


class Titles:
    """Has a model think up titles, after the answers that they are for."""

    def __init__(self, rows: "SessionRows") -> None:
        self._rows = rows
        self._thinking: set[asyncio.Task[None]] = set()

    def begin(self, origin: Asker, session: Session, items: Sequence[Item]) -> None:
        """Think of one, where that is configured, if the session has none of its client's."""
        model = origin.estate.config.sessions.title_model
        if model is None:
            return
        task = asyncio.create_task(self._think(origin, model, session, transcript(items)))
        self._thinking.add(task)
        task.add_done_callback(self._thinking.discard)

    async def aclose(self) -> None:
        """Give up what is being thought of."""
        for task in self._thinking:
            task.cancel()
        await asyncio.gather(*self._thinking, return_exceptions=True)

    async def _think(self, origin: Asker, model: str, session: Session, text: str) -> None:
        try:
            title = await entitled(origin, model, text)
            if title:
                await self._rows.entitle(session, title)
        except (GatewayError, TimeoutError, *FAILURES) as e:
            logger().warning("session_not_titled", session=session.id, error=type(e).__name__)


async def summarized(origin: Asker, model: str, before: str | None, text: str, due: float) -> str:
    """A summary of a conversation.  Raises GatewayError.

    before: the summary of what came before it.  due: by the loop's clock.
    """
    whole = text[-TEXT_MAX:]
    if before is not None:
        whole = f"Summary of what came before:\n{before}\n\n{whole}"
    for n in range(TRIES):
        try:
            return await _said(origin, model, _SUM_UP, whole[-(len(whole) >> n) :], SUMMARY_TOKENS, due)
        except ContextTooLong:
            if n + 1 == TRIES:
                raise
    raise AssertionError("the last one returns or raises")


async def entitled(origin: Asker, model: str, text: str) -> str:
    """A title for a conversation; empty where none was thought of.  Raises GatewayError."""
    due = asyncio.get_running_loop().time() + TITLE_S
    said = await _said(origin, model, _ENTITLE, text[:TITLED_MAX], TITLE_TOKENS, due)
    line = next((line.strip(" \"'*#.") for line in said.splitlines() if line.strip(" \"'*#.")), "")
    return "".join(c for c in line if c.isprintable())[:100]


async def _said(origin: Asker, model: str, task: str, text: str, most: int, due: float) -> str:
    assert origin.visit.principal is not None, "the guard lets nobody in without one"
    request = TextRequest(
        model=model,
        messages=(
            Message(role="system", parts=(Text(text=task),)),
            Message(role="user", parts=(Text(text=text),)),
        ),
        sampling=Sampling(max_tokens=most),
    )
    call = Call(request_id=origin.visit.request_id, principal=origin.visit.principal, deadline=due, origin=origin)
    pieces: list[str] = []
    async with asyncio.timeout_at(due), aclosing(ask(request, call)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
    said = "".join(pieces).strip()
    if not said:
        raise GatewayError("The model said nothing.")
    return said
