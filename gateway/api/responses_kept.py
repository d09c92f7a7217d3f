"""/v1/responses/{id} and what hangs from it: the responses that are kept, here or by a provider."""

from collections.abc import Sequence
from typing import Any, Literal

from litestar import MediaType, Request, Response, delete, get, post
from litestar.params import FromPath

from backends.base import KeepsResponses
from compat.canonical.error import Forbidden, InvalidRequest, NotFound
from compat.openai.conversations import as_response, render_item, replayable
from compat.openai.responses_answer import render_response, replay
from compat.openai.responses_item import Item
from compat.sse import split
from gateway.accounts import key_required
from gateway.api.generation import SCOPE
from gateway.api.resource import could_be_id, estate_of, grant_of, number, visit_of
from gateway.api.responses import tenant_of
from gateway.db.responses import Turn
from gateway.house import House

PAGE, PAGE_MAX = 20, 100
"""Items a page: unless the client says, and at most."""


def routes(house: House) -> list[Any]:
    @get(
        "/v1/responses/{response_id:str}",
        opt={"scope": SCOPE},
        summary="Get a response",
        description="A stored response; with `stream=true` as events, unless a provider keeps it.",
    )
    async def get_response(request: Request[Any, Any, Any], response_id: FromPath[str]) -> Response[bytes]:
        turn = await _found(house, request, response_id)
        query = request.query_params
        streams = query.get("stream") == "true"
        if turn.remote:
            if streams:
                raise InvalidRequest(
                    "The provider keeps this response; it cannot be streamed again.", param="stream", code=None
                )
            return _json(await _ask(house, request, turn, "GET"))
        response = _response(turn)
        if streams:
            if not replayable(response["output"]):
                raise InvalidRequest(
                    "There are items in this response that cannot be streamed again; ask without `stream`.",
                    param="stream",
                    code=None,
                )
            events = split(replay(response, _include(request)))[number(request, "starting_after", -1, 2**31) + 1 :]
            return Response(b"".join(event + b"\n\n" for event in events), media_type="text/event-stream")
        return _json(render_response(response | {"output": _shown(response["output"], request)}))

    @delete(
        "/v1/responses/{response_id:str}",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Delete a response",
        description="Delete a stored response; those that went on from it cannot be gone on from any more.",
    )
    async def delete_response(request: Request[Any, Any, Any], response_id: FromPath[str]) -> Response[bytes]:
        turn = await _found(house, request, response_id)
        body = render_response({"id": turn.id, "object": "response", "deleted": True})
        if turn.remote:
            body = await _ask(house, request, turn, "DELETE")
        if turn.session_id is None:
            await house.archive.turns.delete(tenant_of(visit_of(request)), turn.id)
        else:
            await house.archive.item_rows.hide(tenant_of(visit_of(request)), turn)
        return _json(body)

    @get(
        "/v1/responses/{response_id:str}/input_items",
        opt={"scope": SCOPE},
        summary="List a response's input items",
        description="What the model was given, what came before included; newest first unless `order=asc`.",
    )
    async def list_input_items(request: Request[Any, Any, Any], response_id: FromPath[str]) -> Response[bytes]:
        turn = await _found(house, request, response_id)
        if turn.remote:
            return _json(await _ask(house, request, turn, "GET", "/input_items"))
        chain = await house.archive.turns.chain(tenant_of(visit_of(request)), turn.id)
        given = [item for before in chain[:-1] for item in (*before.given, *before.output)] + list(chain[-1].given)
        return _json(render_response(_page(_shown(given, request), request)))

    @post(
        "/v1/responses/{response_id:str}/cancel",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Cancel a response",
        description="Cancel a response that a provider makes in the background.",
    )
    async def cancel_response(request: Request[Any, Any, Any], response_id: FromPath[str]) -> Response[bytes]:
        turn = await _found(house, request, response_id)
        if not turn.remote:
            raise InvalidRequest("Cannot cancel a synchronous response.")
        return _json(await _ask(house, request, turn, "POST", "/cancel"))

    return [get_response, delete_response, list_input_items, cancel_response]


async def _found(house: House, request: Request[Any, Any, Any], id_: str) -> Turn:
    tenant = tenant_of(visit_of(request))
    turn = await house.archive.turns.get(tenant, id_) if could_be_id(id_) else None
    # One that was not to be stored is a turn of its conversation only.
    if turn is None or turn.body.get("store") is False:
        raise NotFound(f"Response with id '{id_[:200]}' not found.")
    return turn


def _response(turn: Turn) -> dict[str, Any]:
    """A turn that is kept here as a response, also where another API has made it."""
    output = [render_item(item, ("reasoning.encrypted_content",), {}) for item in turn.output]
    if turn.body.get("object") == "response":
        own = {} if turn.session_id is None else {"id": turn.id, "conversation": {"id": turn.session_id}}
        return {"completed_at": None, "incomplete_details": None} | turn.body | own | {"output": output}
    return as_response(turn.id, turn.created_at, turn.status, turn.model, turn.usage, output, turn.session_id)


async def _ask(
    house: House, request: Request[Any, Any, Any], turn: Turn, method: Literal["GET", "POST", "DELETE"], part: str = ""
) -> bytes:
    if not grant_of(request).may_use(turn.backend):
        raise Forbidden(f"This API key may not use the backend '{turn.backend}'.", code="model_not_allowed")
    backend = await _backend(house, request, turn.backend)
    if not isinstance(backend, KeepsResponses):
        raise NotFound(f"Response with id '{turn.id}' is kept by backend '{turn.backend}', which is not here any more.")
    return await backend.kept_response(method, turn.id, part, request.url.query)


async def _backend(house: House, request: Request[Any, Any, Any], name: str) -> object:
    """The backend of this name, with the user's own account there if they have one; None if it is not here."""
    estate, visit = estate_of(request), visit_of(request)
    if not house.archive.accounts.idle:
        own = await house.archive.accounts.of(visit, estate)
        if own is not None and own.has(name):
            return own.account(name).backend
    if name in estate.demanding:
        raise key_required(name)
    return estate.backends.get(name)


def _page(items: list[Item], request: Request[Any, Any, Any]) -> dict[str, Any]:
    order, after = request.query_params.get("order", "desc"), request.query_params.get("after")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"Invalid value for 'order': '{order[:50]}'.", param="order", code="invalid_value")
    limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
    items = items if order == "asc" else items[::-1]
    if after is not None:
        begin = next((n + 1 for n, item in enumerate(items) if item["id"] == after), None)
        if begin is None:
            raise NotFound(f"Item with id '{after[:200]}' not found.", param="after")
        items = items[begin:]
    data = items[:limit]
    return {
        "object": "list",
        "data": data,
        # Of an empty page, too: the published schema has strings.
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": len(items) > limit,
    }


def _include(request: Request[Any, Any, Any]) -> list[str]:
    return [value for name in ("include", "include[]") for value in request.query_params.getall(name, [])]


def _shown(items: Sequence[Item], request: Request[Any, Any, Any]) -> list[Item]:
    include = _include(request)
    return [render_item(item, include, {}) for item in items]


def _json(body: bytes) -> Response[bytes]:
    return Response(body, media_type=MediaType.JSON)
