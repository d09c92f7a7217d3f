"""GET /v1/models and /v1/models/{id}: OpenAI's list, with what the gateway knows besides, or Anthropic's.

The path is the same in both dialects; a client that names a version of Anthropic's speaks that one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote, unquote

from litestar import Request, Response, get
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp, Receive, Scope, Send

from backends.base import IN_MEMORY
from compat.anthropic import models as anthropic
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from gateway.api.catalogue import Catalogue, Listed, standings
from gateway.api.resource import estate_of, visit_of
from gateway.house import Estate, House
from gateway.registry.entry import Status
from gateway.registry.naming import VERBS
from gateway.visit import Visit

_PATH = "/v1/models/"
MODALITIES: tuple[str, ...] = get_args(Modality)
STATUSES = tuple(sorted({"unloaded", "queued", "failed", *IN_MEMORY, *get_args(Status)}))


def whole_ids(app: ASGIApp) -> ASGIApp:
    """Have the application see a model's id as one part of the path, whatever slashes are in it.

    A verb after it is one only behind a slash that is not encoded.
    """
    verbs = tuple(f"/{verb}".encode() for verb in VERBS)

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        if (path := scope.get("path", "")).startswith(_PATH):
            id_, verb = path.removeprefix(_PATH).strip("/"), ""
            if scope["raw_path"].rstrip(b"/").endswith(verbs):
                id_, _, verb = id_.rpartition("/")
            if id_:
                scope["path"] = f"{_PATH}{quote(id_, safe='')}/{verb}".rstrip("/")
        await app(scope, receive, send)

    return framed


async def _listed(house: House, catalogue: Catalogue, estate: Estate, visit: Visit) -> dict[str, Listed]:
    """Everything a client can ask for, by the id it would ask with: configured names first."""
    grant = visit.grant
    assert grant is not None, "the guard lets nobody in without one"
    accounts = house.archive.accounts
    own = None if accounts.idle else await accounts.of(visit, estate)
    if own is None:
        listed = await catalogue.listed(estate)
    else:
        listed = await catalogue.of(estate, await own.models())
    if not grant.restricted:
        return listed
    return {name: one for name, one in listed.items() if one.is_for(name, grant)}


def found(listed: Mapping[str, Listed], id_: str) -> Listed | None:
    """What an id means: the model of that id, else of that bare name, else of that alias."""
    if (one := listed.get(id_)) is not None:
        return one
    by_name = (one for one in listed.values() if one.routes is None and one.id.partition("/")[2] == id_)
    by_alias = (
        one
        for one in listed.values()
        if one.routes is None
        and any(id_ in (alias, f"{one.models[0].backend}/{alias}") for alias in one.models[0].aliases)
    )
    return next(by_name, None) or next(by_alias, None)


def _check(name: str, given: str | None, known: Sequence[str]) -> None:
    """Raises InvalidRequest for what no model can have."""
    if given is not None and given not in known:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected one of {', '.join(known) or 'none: there are no models'}.",
            param=name,
            code="invalid_value",
        )


def routes(house: House) -> list[Any]:
    catalogue = Catalogue(house)

    @get(
        "/v1/models",
        opt={"scope": "models:read"},
        summary="List models",
        description="Every model a client can ask for: configured names, local models, those that are registered and "
        "not here yet, and what providers list.  With the header `anthropic-version`, in Anthropic's shape, a page at "
        "a time.",
    )
    async def list_models(
        request: Request[Any, Any, Any],
        modality: FromQuery[str | None] = None,
        backend: FromQuery[str | None] = None,
        status: FromQuery[str | None] = None,
        tag: FromQuery[str | None] = None,
        limit: FromQuery[str | None] = None,
        after_id: FromQuery[str | None] = None,
        before_id: FromQuery[str | None] = None,
    ) -> Response[dict[str, Any]]:
        visit, estate = visit_of(request), estate_of(request)
        listed = await _listed(house, catalogue, estate, visit)
        _check("modality", modality, MODALITIES)
        _check("status", status, STATUSES)
        if backend is not None:
            # Whoever may use some backends only is told of no others.
            _check(
                "backend",
                backend,
                sorted(
                    {model.backend for one in listed.values() for model in one.models}
                    | {name for name in estate.backends if visit.grant is None or not visit.grant.restricted}
                ),
            )
        stand = standings(estate)
        wanted = (modality, backend, status, tag)
        if visit.anthropic:
            seen = ((one, one.of(stand, *wanted)) for one in listed.values())
            pages = [anthropic.render_model(shown[1], one.id) for one, shown in seen if shown is not None]
            return Response(anthropic.render_page(pages, limit=limit, after_id=after_id, before_id=before_id))
        body: Any = catalogue.body(listed, stand, wanted)
        return Response(body, media_type="application/json")

    @get(
        "/v1/models/{model_id:str}",
        opt={"scope": "models:read", "route": "/v1/models/{id}"},
        summary="Get a model",
        description="One model by its id, which may contain slashes, or by an alias.",
    )
    async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[dict[str, Any]]:
        id_ = unquote(model_id)
        visit, estate = visit_of(request), estate_of(request)
        one = found(await _listed(house, catalogue, estate, visit), id_)
        shown = None if one is None else one.of(standings(estate))
        if one is None or shown is None:
            assert visit.grant is not None, "the guard lets nobody in without one"
            raise estate.router.unknown(id_, visit.grant)
        if visit.anthropic:
            return Response(anthropic.render_model(shown[1], one.id))
        entry = one.entry
        return Response(one.rendered(shown[1]) | {"defaults": {} if entry is None else entry.defaults})

    return [list_models, get_model]
