"""/v1/sessions: conversations that are kept, all but generating in them."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar, get_args

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath
from msgspec import Struct

from compat.canonical.error import InvalidRequest
from gateway.api.generation import timeout_of
from gateway.api.reading import Disconnected, base_url
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import (
    PAGE,
    PAGE_MAX,
    Asked,
    attended,
    by_of,
    cursor_of,
    decoded,
    estate_of,
    foreign_cursor,
    grant_of,
    number,
    page,
    visit_of,
    word,
)
from gateway.db.query import Unfinished
from gateway.house import House
from gateway.keeping import ContextPolicy
from gateway.sessions import WAIT_S, Sessions
from gateway.sessions.card import MessageCard, SessionCard, card
from gateway.sessions.export import filename, render_json, render_markdown
from gateway.sessions.form import Branching, NewMessages, NewSession, SessionChanges
from gateway.sessions.importing import Exported
from gateway.sessions.listing import Listing, Place
from gateway.sessions.session import Session, Status

SCOPE = "sessions"
_MEDIA = {"json": "application/json", "markdown": "text/markdown"}
_IDS = ("sess_", "conv_")
_ENDINGS = {"json": "json", "markdown": "md"}
_new = msgspec.json.Decoder(NewSession)
_changes = msgspec.json.Decoder(SessionChanges)
_messages = msgspec.json.Decoder(NewMessages)
_branching = msgspec.json.Decoder(Branching)
_exported = msgspec.json.Decoder(Exported)
_CURES = {
    "context": f"expected {', '.join(get_args(ContextPolicy))}, or null for what is configured",
    "role": 'put it in \'messages\', as in {"messages": [{"role": "user", "text": "…"}]}',
}
"""What refusals of a body say of these fields besides."""
T = TypeVar("T")


class SessionList(Struct, frozen=True):
    """A page of sessions."""

    sessions: list[SessionCard]
    next_cursor: str | None
    """For the page after this one; null on the last."""


class MessageList(Struct, frozen=True):
    """A page of messages."""

    object: Literal["list"]
    data: list[MessageCard]
    next_cursor: str | None
    """For the page after this one; null on the last."""


class DeletedSession(Struct, frozen=True):
    id: str
    object: Literal["session"] = "session"
    deleted: bool = True


def routes(house: House) -> list[Any]:
    def kept() -> Sessions:
        return house.cabinet.sessions

    def tenant(request: Asked) -> str:
        return grant_of(request).principal.tenant

    def listing(request: Asked, session: Session) -> Listing:
        return kept().listing(session, base_url(request.scope, estate_of(request).config.server))

    @post(
        "/v1/sessions",
        opt={"scope": SCOPE, "body": NewSession},
        status_code=201,
        summary="Create a session",
        description="Begin a conversation that is kept.  Every field may be left out.  POST /v1/sessions/{id}/generate "
        "goes on with it.",
    )
    async def create_session(request: Asked) -> Response[SessionCard | None]:
        form = await _read(request, _new)
        making = kept().create(grant_of(request), form, visit_of(request).request_id)
        return await _answered(request, _carded(making), 201)

    @get(
        "/v1/sessions",
        opt={
            "scope": SCOPE,
            "query": {
                "search": "Only those in whose title or messages this stands, whatever the case of its letters.",
                "status": f"Only those that are {' or '.join(get_args(Status))}.",
                "limit": f"Sessions a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="List sessions",
        description="The tenant's conversations by last use, the last first; those begun by /v1/conversations as well. "
        "One that is used while a client pages through them moves to the front, and changes nothing else.",
    )
    async def list_sessions(request: Asked) -> SessionList:
        limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
        wanted: Any = word(request, "status", get_args(Status))
        search, place = word(request, "search"), _session_place(request)
        try:
            found = await kept().rows.page(tenant(request), limit + 1, place, status=wanted, search=search)
        except Unfinished as e:
            raise InvalidRequest(
                "The search takes too long: search for something that stands in more sessions, or page through them "
                "all.",
                param="search",
                code="invalid_value",
            ) from e
        last = found[limit - 1] if len(found) > limit else None
        shown = page([], limit, None if last is None else f"{last.last_used_at!r} {last.id}")
        return SessionList([card(session) for session in found[:limit]], shown["next_cursor"])

    @post(
        "/v1/sessions/import",
        opt={"scope": SCOPE, "body": Exported},
        status_code=201,
        summary="Import a session",
        description="A new session as another one was exported (`format=json`), of this gateway or of another.  "
        "Artifacts come along where the tenant still has them; of others the text says that they are gone.",
    )
    async def import_session(request: Asked) -> Response[SessionCard | None]:
        export = await decoded(request, _exported)
        taking = kept().take_in(grant_of(request), export, visit_of(request).request_id)
        return await _answered(request, _carded(taking), 201)

    @get(
        "/v1/sessions/{session_id:str}",
        opt={"scope": SCOPE},
        summary="Get a session",
        description="A session, without what was said in it.",
    )
    async def get_session(request: Asked, session_id: FromPath[str]) -> SessionCard:
        return card(await kept().get(tenant(request), session_id))

    @put(
        "/v1/sessions/{session_id:str}",
        opt={"scope": SCOPE, "body": SessionChanges},
        summary="Change a session",
        description="What is left out stays, null clears.  `head` chooses which of several answers it is gone on "
        "from, with what followed it.  To change `head` or `state` waits until nothing is generated in it.  A closed "
        "session is a conflict.",
    )
    async def change_session(request: Asked, session_id: FromPath[str]) -> Response[SessionCard | None]:
        form = await _read(request, _changes)
        changing = kept().change(grant_of(request), session_id, form, _wait_s(request))
        return await _answered(request, _carded(changing))

    @delete(
        "/v1/sessions/{session_id:str}",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Delete a session",
        description="Remove a session with all that was said in it, for ever.  Artifacts that no other session holds "
        "go when their time is over.",
    )
    async def delete_session(request: Asked, session_id: FromPath[str]) -> DeletedSession:
        act = by_of(request).act("session.delete", session_id, tenant(request))
        await kept().delete(tenant(request), session_id, act)
        return DeletedSession(session_id)

    @get(
        "/v1/sessions/{session_id:str}/messages",
        opt={
            "scope": SCOPE,
            "query": {
                "order": "`asc`, the oldest first, unless said; or `desc`.",
                "limit": f"Messages a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="List a session's messages",
        description="What was said, along the line that is shown; other answers are the `alternatives` of a message. "
        "The URLs of artifacts are signed anew.",
    )
    async def list_messages(request: Asked, session_id: FromPath[str]) -> MessageList:
        limit, place = number(request, "limit", PAGE, PAGE_MAX, least=1), _message_place(request)
        newest_first = word(request, "order", ("asc", "desc")) == "desc"
        session = await kept().get(tenant(request), session_id)
        found = await listing(request, session).page(limit, place, newest_first=newest_first)
        if found is None:
            raise foreign_cursor()
        shown, last = found
        return MessageList(**page(shown, limit, None if last is None else f"{last[1]} {last[0]}"))

    @post(
        "/v1/sessions/{session_id:str}/messages",
        opt={"scope": SCOPE, "body": NewMessages},
        status_code=201,
        summary="Add messages to a session",
        description="Put messages at the end of a session without having anything generated.  Pictures become "
        "artifacts.  Waits until nothing is generated in it.",
    )
    async def add_messages(request: Asked, session_id: FromPath[str]) -> Response[MessageList | None]:
        form = await _read(request, _messages)

        wait_s = _wait_s(request)

        async def added() -> MessageList:
            grant, request_id = grant_of(request), visit_of(request).request_id
            turns = await kept().add(grant, session_id, form.messages, request_id, wait_s)
            session = await kept().get(tenant(request), session_id)
            return MessageList("list", await listing(request, session).of(turns), None)

        return await _answered(request, added(), 201)

    @post(
        "/v1/sessions/{session_id:str}/reset",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Reset a session",
        description="Remove all that was said, and keep the session.  Waits until nothing is generated in it.",
    )
    async def reset_session(request: Asked, session_id: FromPath[str]) -> Response[SessionCard | None]:
        return await _answered(request, _carded(kept().reset(tenant(request), session_id, _wait_s(request))))

    @post(
        "/v1/sessions/{session_id:str}/branch",
        opt={"scope": SCOPE, "body": Branching},
        status_code=201,
        summary="Branch a session",
        description="A new session that begins as this one does, up to a message, and goes its own way from there.",
    )
    async def branch_session(request: Asked, session_id: FromPath[str]) -> SessionCard:
        form = await decoded(request, _branching)
        return card(await kept().branch(grant_of(request), session_id, form))

    @post(
        "/v1/sessions/{session_id:str}/close",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Close a session",
        description="Make a session read-only, for good: it can be read, exported, branched and deleted.  Closing it "
        "again changes nothing.  Waits until nothing is generated in it.",
    )
    async def close_session(request: Asked, session_id: FromPath[str]) -> Response[SessionCard | None]:
        return await _answered(request, _carded(kept().close(tenant(request), session_id, _wait_s(request))))

    @get(
        "/v1/sessions/{session_id:str}/export",
        opt={"scope": SCOPE, "query": {"format": "`json`, unless said, which can be imported again; or `markdown`."}},
        summary="Export a session",
        description="The whole session as a file.  Artifacts are links, which are good for a while.",
    )
    async def export_session(request: Asked, session_id: FromPath[str]) -> Response[bytes]:
        form = word(request, "format", tuple(_MEDIA)) or "json"
        session = await kept().get(tenant(request), session_id)
        messages = await listing(request, session).all()
        render, shown = render_json if form == "json" else render_markdown, card(session)
        body = await asyncio.to_thread(render, shown, messages)
        return Response(
            body,
            media_type=_MEDIA[form],
            headers={
                "content-disposition": f'attachment; filename="{filename(shown, _ENDINGS[form])}"',
                "x-content-type-options": "nosniff",
            },
        )

    return [
        create_session,
        list_sessions,
        import_session,
        get_session,
        change_session,
        delete_session,
        list_messages,
        add_messages,
        reset_session,
        branch_session,
        close_session,
        export_session,
    ]


async def _read(request: Asked, decoder: msgspec.json.Decoder[T]) -> T:
    """The body.  Raises as `decoded` does."""
    try:
        return await decoded(request, decoder)
    except InvalidRequest as e:
        cure = _CURES.get(e.param or "")
        if cure is None:
            raise
        raise InvalidRequest(f"{e.message.removesuffix('.')}: {cure}.", param=e.param, code=e.code) from e


def _wait_s(request: Asked) -> float:
    """How long a change may wait.  Raises InvalidRequest."""
    given = request.headers.get("x-request-timeout")
    return WAIT_S if given is None else timeout_of(given.encode("latin-1"))


async def _carded(work: Coroutine[Any, Any, Session]) -> SessionCard:
    return card(await work)


async def _answered(request: Asked, work: Coroutine[Any, Any, T], status: int = 200) -> Response[T | None]:
    """What the work returns, which may have to wait; ends with the client."""
    try:
        return Response(await attended(request, work), status_code=status)
    except Disconnected:
        return Response(None, status_code=CLIENT_GONE)


def _session_place(request: Asked) -> tuple[float, str] | None:
    given = cursor_of(request)
    if given is None:
        return None
    used, _, id_ = given.partition(" ")
    try:
        # That of a list of messages begins with a whole number.
        if used.isdigit() or not id_.startswith(_IDS) or not math.isfinite(at := float(used)):
            raise ValueError
    except ValueError as e:
        raise foreign_cursor() from e
    return at, id_


def _message_place(request: Asked) -> Place | None:
    given = cursor_of(request)
    if given is None:
        return None
    number_, _, id_ = given.partition(" ")
    if not (number_.isascii() and number_.isdigit() and len(number_) <= 6):
        raise foreign_cursor()
    return id_, int(number_)
