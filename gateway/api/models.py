"""GET /v1/models and /v1/models/{id}: OpenAI's list, with what the gateway knows besides, or Anthropic's.

The path is the same in both dialects; a client that names a version of Anthropic's speaks that one.
"""

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath, FromQuery

from compat.anthropic import models as anthropic
from compat.canonical.error import ModelNotFound
from compat.canonical.model import Model
from compat.openai import models as openai
from gateway.house import Estate, House
from gateway.visit import Visit


class _Listed:
    """A model under the name a client can ask for it by."""

    def __init__(self, id_: str, model: Model, routes: list[str] | None = None) -> None:
        self.id = id_
        self.model = model
        self.routes = routes
        """Where a configured name leads; None for a backend's own model."""

    def rendered(self, visit: Visit) -> dict[str, Any]:
        if visit.anthropic:
            return anthropic.render_model(self.model, self.id)
        out = openai.render_model(self.model, self.id)
        return out if self.routes is None else out | {"owned_by": "pluggably", "routes": self.routes}


async def _listed(estate: Estate) -> dict[str, _Listed]:
    """Everything a client can ask for, by the id it would ask with: configured names first."""
    models = await estate.registry.all()
    by_id = {model.id: model for model in models}
    out: dict[str, _Listed] = {}
    for name, entry in estate.config.models.items():
        if "*" in name:
            continue
        targets = [route if isinstance(route, str) else route.to for route in entry.routes]
        first = by_id.get(targets[0]) or Model(name=targets[0].partition("/")[2], backend=targets[0].partition("/")[0])
        out[name] = _Listed(name, first, targets)
    for id_, model in by_id.items():
        out.setdefault(id_, _Listed(id_, model))
    return out


def routes(house: House) -> list[Any]:  # noqa: ARG001
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
        visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
        data = [
            one.rendered(visit)
            for one in (await _listed(request.scope["estate"])).values()  # type: ignore[typeddict-item]
            if (modality is None or one.model.modality == modality)
            and (backend is None or one.model.backend == backend)
        ]
        if visit.anthropic:
            return anthropic.render_page(data, limit=limit, after_id=after_id, before_id=before_id)
        return {"object": "list", "data": data, "next_cursor": None}

    @get(
        "/v1/models/{model_id:path}",
        opt={"scope": "models:read", "route": "/v1/models/{id}"},
        summary="Get a model",
        description="One model by its id, which may contain slashes.",
    )
    async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[dict[str, Any]]:
        id_ = model_id.removeprefix("/")
        estate: Estate = request.scope["estate"]  # type: ignore[typeddict-item]
        visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
        listed = await _listed(estate)
        found = listed.get(id_) or next((one for one in listed.values() if one.id.partition("/")[2] == id_), None)
        if found is None:
            raise ModelNotFound(f"The model '{id_[:200]}' does not exist. GET /v1/models lists what there is.")
        return Response(found.rendered(visit))

    return [list_models, get_model]
