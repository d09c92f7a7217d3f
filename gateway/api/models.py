"""GET /v1/models and /v1/models/{id}: OpenAI's list, with what the gateway knows besides, or Anthropic's.

The path is the same in both dialects; a client that names a version of Anthropic's speaks that one.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp, Receive, Scope, Send

from backends.base import Loads
from compat.anthropic import models as anthropic
from compat.canonical.model import Model
from compat.openai import models as openai
from gateway.api.resource import estate_of, visit_of
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.settings import Target
from gateway.visit import Visit

_PATH = "/v1/models/"
_VERBS = ("load", "unload", "status")
"""What may follow a model's id in a path."""


def whole_ids(app: ASGIApp) -> ASGIApp:
    """Have the application see a model's id as one part of the path, whatever slashes are in it.

    A verb after it is one only behind a slash that is not encoded.
    """
    verbs = tuple(f"/{verb}".encode() for verb in _VERBS)

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        if (path := scope.get("path", "")).startswith(_PATH):
            id_, verb = path.removeprefix(_PATH).strip("/"), ""
            if scope["raw_path"].rstrip(b"/").endswith(verbs):
                id_, _, verb = id_.rpartition("/")
            if id_:
                scope["path"] = f"{_PATH}{quote(id_, safe='')}/{verb}".rstrip("/")
        await app(scope, receive, send)

    return framed


class _Listed:
    """A model under the name a client can ask for it by."""

    def __init__(self, id_: str, models: Sequence[Model], routes: list[str] | None = None) -> None:
        self.id = id_
        self.models = models
        """One; or one for each modality that a configured name has routes for."""
        self.routes = routes
        """Where a configured name leads; None for a backend's own model."""

    def of(self, modality: str | None, backend: str | None) -> Model | None:
        """What a client gets to see who asks for these only."""
        for model in self.models:
            if modality in (None, model.modality) and backend in (None, model.backend):
                return model
        return None

    def is_for(self, name: str, grant: Grant) -> bool:
        """Whether a caller may use any of its routes, under the name or the route's own."""
        routes = self.routes or [model.id for model in self.models]
        return any(
            (grant.may_ask(name) or grant.may_ask(route)) and grant.may_use(route.partition("/")[0]) for route in routes
        )

    def rendered(self, model: Model, visit: Visit) -> dict[str, Any]:
        if visit.anthropic:
            return anthropic.render_model(model, self.id)
        out = openai.render_model(model, self.id)
        return out if self.routes is None else out | {"owned_by": "pluggably", "routes": self.routes}


async def _listed(house: House, estate: Estate, visit: Visit) -> dict[str, _Listed]:
    """Everything a client can ask for, by the id it would ask with: configured names first."""
    grant = visit.grant
    assert grant is not None, "the guard lets nobody in without one"
    accounts = house.archive.accounts
    own = None if accounts.idle else await accounts.of(visit, estate)
    listed = _all(estate, await (estate.registry.all() if own is None else own.models()))
    if not grant.restricted:
        return listed
    return {name: one for name, one in listed.items() if one.is_for(name, grant)}


def _all(estate: Estate, models: Sequence[Model]) -> dict[str, _Listed]:
    by_id = {model.id: _as_it_stands(model, estate) for model in models}
    out: dict[str, _Listed] = {}
    for name, entry in estate.config.models.items():
        if "*" in name:
            continue
        if isinstance(entry.routes, tuple):
            targets = _targets(entry.routes)
            out[name] = _Listed(name, [_model(targets[0], by_id)], targets)
        else:
            by_modality = {modality: _targets(routes) for modality, routes in entry.routes.items()}
            firsts = [
                msgspec.structs.replace(_model(targets[0], by_id), modality=modality)
                for modality, targets in by_modality.items()
            ]
            out[name] = _Listed(name, firsts, list(dict.fromkeys(chain.from_iterable(by_modality.values()))))
    for id_, model in by_id.items():
        out.setdefault(id_, _Listed(id_, [model]))
    return out


def _as_it_stands(model: Model, estate: Estate) -> Model:
    backend = estate.backends.get(model.backend)
    if backend is not None and isinstance(backend, Loads):
        return msgspec.structs.replace(model, status=backend.standing(model.name)["status"])
    return model


def _targets(routes: Sequence[str | Target]) -> list[str]:
    return [route if isinstance(route, str) else route.to for route in routes]


def _model(id_: str, known: Mapping[str, Model]) -> Model:
    backend, _, name = id_.partition("/")
    return known.get(id_) or Model(name=name, backend=backend)


def routes(house: House) -> list[Any]:
    @get(
        "/v1/models",
        opt={"scope": "models:read"},
        summary="List models",
        description="Every model a client can ask for: configured names, local models, and what providers list. "
        "With the header `anthropic-version`, in Anthropic's shape, a page at a time.",
    )
    async def list_models(
        request: Request[Any, Any, Any],
        modality: FromQuery[str | None] = None,
        backend: FromQuery[str | None] = None,
        limit: FromQuery[str | None] = None,
        after_id: FromQuery[str | None] = None,
        before_id: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        visit = visit_of(request)
        data = [
            one.rendered(model, visit)
            for one in (await _listed(house, estate_of(request), visit)).values()
            if (model := one.of(modality, backend)) is not None
        ]
        if visit.anthropic:
            return anthropic.render_page(data, limit=limit, after_id=after_id, before_id=before_id)
        return {"object": "list", "data": data, "next_cursor": None}

    @get(
        "/v1/models/{model_id:str}",
        opt={"scope": "models:read", "route": "/v1/models/{id}"},
        summary="Get a model",
        description="One model by its id, which may contain slashes.",
    )
    async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[dict[str, Any]]:
        id_ = unquote(model_id)
        visit = visit_of(request)
        listed = await _listed(house, estate_of(request), visit)
        found = listed.get(id_) or next((one for one in listed.values() if one.id.partition("/")[2] == id_), None)
        model = None if found is None else found.of(None, None)
        if found is None or model is None:
            assert visit.grant is not None, "the guard lets nobody in without one"
            raise estate_of(request).router.unknown(id_, visit.grant)
        return Response(found.rendered(model, visit))

    return [list_models, get_model]
