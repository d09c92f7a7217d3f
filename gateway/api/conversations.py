"""/v1/conversations: sessions, as OpenAI's clients know them."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.params import FromPath

from compat.canonical.error import Conflict, InvalidRequest, NotFound
from compat.openai.conversations import (
    Conversation,
    ConversationChange,
    ConversationDeleted,
    ConversationItems,
    NewConversation,
    NewItems,
    items_of,
    metadata_of,
    pictures_of,
    render_item,
)
from compat.openai.responses_answer import render_response
from compat.openai.responses_item import Item
from gateway.api.conversing import SCOPE, absent, append, held, line_of, told_apart
from gateway.api.pictured import checked, kept, urls
from gateway.api.resource import Asked, by_of, could_be_id, decoded, grant_of, number, visit_of
from gateway.db.responses import Turn
from gateway.house import House
from gateway.sessions.session import Session
from gateway.sessions.title import title_of
from gateway.visit import new_id

PAGE, PAGE_MAX = 20, 100
"""Items a page: unless the client says, and at most."""
_SEEN = "message.input_image.image_url"
_INCLUDE = "What else is shown of items: `message.input_image.image_url`, `reasoning.encrypted_content` …"
ADDED: dict[str, Any] = {"modality": "text", "store": False}
"""The body of a turn that nobody has answered."""
_new = msgspec.json.Decoder(NewConversation)
_change = msgspec.json.Decoder(ConversationChange)
_items = msgspec.json.Decoder(NewItems)


def routes(house: House) -> list[Any]:
    async def found(request: Asked, id_: str) -> Session:
        tenant = grant_of(request).principal.tenant
        session = await house.cabinet.sessions.rows.get(tenant, id_) if could_be_id(id_) else None
        if session is None:
            raise absent(id_)
        return session

    async def shown(request: Asked, items: Sequence[Item], *, whole: bool = False) -> list[Item]:
        """whole: with the pictures that were made."""
        include = _include(request)
        wanted = [item for item in items if whole or (_SEEN in include and item["type"] != "artifact")]
        pictures = await urls(house, grant_of(request).principal.tenant, wanted) if any(pictures_of(wanted)) else {}
        return [render_item(item, include, pictures) for item in items]

    @post(
        "/v1/conversations",
        opt={"scope": SCOPE, "body": NewConversation},
        status_code=200,
        summary="Create a conversation",
        description="A conversation to be named in /v1/responses, with up to 20 items to begin with.  It is a session, "
        "and /v1/sessions knows it by the same id.",
    )
    async def create_conversation(request: Asked) -> Conversation:
        asked: NewConversation = await decoded(request, _new)
        metadata, items = metadata_of(asked), items_of(asked, new_id)
        turns, uses = await _turns(house, request, items)
        for turn in turns:
            told_apart(turn, ())
        now, grant = time.time(), grant_of(request)
        session = Session(
            id=new_id("conv"),
            tenant=grant.principal.tenant,
            owner=grant.principal.id,
            title=title_of(items),
            metadata=metadata,
            created_at=now,
            last_used_at=now,
        )
        for turn in turns:
            turn.session_id = session.id
        session = await house.cabinet.sessions.rows.create(session, turns, principal=grant.principal, uses=uses)
        return _conversation(session)

    @get(
        "/v1/conversations/{conversation_id:str}",
        opt={"scope": SCOPE},
        summary="Get a conversation",
        description="When it was begun, and its metadata; what was said is among its items.",
    )
    async def get_conversation(request: Asked, conversation_id: FromPath[str]) -> Conversation:
        return _conversation(await found(request, conversation_id))

    @post(
        "/v1/conversations/{conversation_id:str}",
        opt={"scope": SCOPE, "body": ConversationChange},
        status_code=200,
        summary="Update a conversation",
        description="Give a conversation other metadata.  A closed one cannot be changed.",
    )
    async def update_conversation(request: Asked, conversation_id: FromPath[str]) -> Conversation:
        asked: ConversationChange = await decoded(request, _change)
        metadata = metadata_of(asked)
        session = await found(request, conversation_id)
        now = await house.cabinet.sessions.rows.update(session.tenant, session.id, {"metadata": metadata})
        if now is None:
            raise Conflict("The conversation is closed.")
        return _conversation(now)

    @delete(
        "/v1/conversations/{conversation_id:str}",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Delete a conversation",
        description="Delete a conversation with its items and its responses.  One that is being answered is deleted "
        "as well; that answer is lost.",
    )
    async def delete_conversation(request: Asked, conversation_id: FromPath[str]) -> ConversationDeleted:
        session = await found(request, conversation_id)
        act = by_of(request).act("session.delete", session.id, session.tenant)
        if not await house.cabinet.sessions.rows.delete(session.tenant, session.id, act):
            raise absent(conversation_id)
        return ConversationDeleted(id=session.id, object="conversation.deleted", deleted=True)

    @get(
        "/v1/conversations/{conversation_id:str}/items",
        opt={
            "scope": SCOPE,
            "query": {
                "limit": f"Items a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "order": "`desc`, the newest first, unless it is `asc`.",
                "after": "The id of the last item of the page before.",
                "include": _INCLUDE,
            },
        },
        summary="List a conversation's items",
        description="What was said and made.  A picture that was made is an `image_generation_call`, whose `result` is "
        "only in the item itself; a mesh is a message that names its artifact.",
    )
    async def list_items(request: Asked, conversation_id: FromPath[str]) -> ConversationItems:
        order, after = request.query_params.get("order", "desc"), request.query_params.get("after")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"Invalid value for 'order': '{order[:50]}'.", param="order", code="invalid_value")
        limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
        items = [item for turn in await line_of(house, await found(request, conversation_id)) for item in _all(turn)]
        items = items if order == "asc" else items[::-1]
        if after is not None:
            begin = next((n + 1 for n, item in enumerate(items) if item["id"] == after), None)
            if begin is None:
                raise NotFound(f"Item with id '{after[:200]}' not found.", param="after")
            items = items[begin:]
        return _list(await shown(request, items[:limit]), more=len(items) > limit)

    @post(
        "/v1/conversations/{conversation_id:str}/items",
        opt={"scope": SCOPE, "body": NewItems, "query": {"include": _INCLUDE}},
        status_code=200,
        summary="Add items to a conversation",
        description="Add up to 20 items at its end, once nobody is answering in it.",
    )
    async def add_items(request: Asked, conversation_id: FromPath[str]) -> ConversationItems:
        asked: NewItems = await decoded(request, _items)
        items = items_of(asked, new_id)
        session = await found(request, conversation_id)
        async with held(house, session.tenant, session.id, visit_of(request).wait) as it:
            [turn], uses = await _turns(house, request, items)
            told_apart(turn, await line_of(house, it.session))
            await append(house, it, grant_of(request).principal, turn, uses)
        return _list(await shown(request, turn.given), more=False)

    @get(
        "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
        opt={"scope": SCOPE, "query": {"include": _INCLUDE}},
        summary="Get a conversation's item",
        description="One of its items; a picture that was made with its contents.",
    )
    async def get_item(request: Asked, conversation_id: FromPath[str], item_id: FromPath[str]) -> Response[bytes]:
        _, item = _item(await line_of(house, await found(request, conversation_id)), item_id)
        [one] = await shown(request, [item], whole=True)
        return Response(render_response(one), media_type=MediaType.JSON)

    @delete(
        "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Delete a conversation's item",
        description="Take an item out of a conversation, once nobody is answering in it.  Later turns go on without "
        "it.",
    )
    async def delete_item(request: Asked, conversation_id: FromPath[str], item_id: FromPath[str]) -> Conversation:
        session = await found(request, conversation_id)
        async with held(house, session.tenant, session.id, visit_of(request).wait) as it:
            turn, item = _item(await line_of(house, it.session), item_id)
            await house.archive.item_rows.remove(it.session, turn, item["id"])
        return _conversation(session)

    return [
        create_conversation,
        get_conversation,
        update_conversation,
        delete_conversation,
        list_items,
        add_items,
        get_item,
        delete_item,
    ]


async def _turns(house: House, request: Asked, items: list[Item]) -> tuple[list[Turn], list[str]]:
    """What is added, as a turn of its own, and the artifacts in it; none of nothing."""
    if not items:
        return [], []
    grant, visit = grant_of(request), visit_of(request)
    await checked(house, grant, items, "items")
    given, uses = await kept(house, grant, items, visit.request_id)
    turn = Turn(
        id=new_id("gen"), created_at=time.time(), backend="", model="", status="completed", given=given, body=ADDED
    )
    return [turn], uses


def _conversation(session: Session) -> Conversation:
    return Conversation(
        id=session.id, object="conversation", created_at=int(session.created_at), metadata=session.metadata
    )


def _list(items: list[Item], *, more: bool) -> ConversationItems:
    # Of an empty page, too: the published schema has strings.
    first, last = (items[0]["id"], items[-1]["id"]) if items else ("", "")
    return ConversationItems(object="list", data=items, first_id=first, last_id=last, has_more=more)


def _item(line: Sequence[Turn], id_: str) -> tuple[Turn, Item]:
    """An item and its turn.  Raises NotFound."""
    for turn in reversed(line):
        for item in _all(turn):
            if item["id"] == id_:
                return turn, item
    raise NotFound(f"Item with id '{id_[:200]}' not found.")


def _all(turn: Turn) -> list[Item]:
    return [*turn.given, *turn.output]


def _include(request: Asked) -> list[str]:
    return [value for name in ("include", "include[]") for value in request.query_params.getall(name, [])]
