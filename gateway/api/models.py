"""GET /v1/models and /v1/models/{id}: OpenAI's list, with what the gateway knows besides."""

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath, FromQuery

from compat.canonical.error import ModelNotFound
from compat.canonical.model import Model
from compat.openai.models import render_model
from gateway.house import Estate, House


async def _listed(estate: Estate) -> dict[str, dict[str, Any]]:
    """Everything a client can ask for, by the id it would ask with: configured names first."""
    models = await estate.registry.all()
    by_id = {model.id: model for model in models}
    out: dict[str, dict[str, Any]] = {}
    for name, entry in estate.config.models.items():
        if "*" in name:
            continue
        targets = [route if isinstance(route, str) else route.to for route in entry.routes]
        first = by_id.get(targets[0]) or Model(name=targets[0].partition("/")[2], backend=targets[0].partition("/")[0])
        out[name] = render_model(first, name) | {"owned_by": "pluggably", "routes": targets}
    for id_, model in by_id.items():
        out.setdefault(id_, render_model(model))
    return out


def routes(house: House) -> list[Any]:  # noqa: ARG001
    @get(
        "/v1/models",
        opt={"scope": "models:read"},
        summary="List models",
        description="Every model a client can ask for: configured names, local models, and what providers list.",
    )
    async def list_models(
        request: Request[Any, Any, Any], modality: FromQuery[str | None] = None, backend: FromQuery[str | None] = None
    ) -> dict[str, Any]:
        listed = (await _listed(request.scope["estate"])).values()  # type: ignore[typeddict-item]
        data = [
            model
            for model in listed
            if (modality is None or model["modality"] == modality) and (backend is None or model["backend"] == backend)
        ]
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
        listed = await _listed(estate)
        found = listed.get(id_) or next((m for m in listed.values() if m["id"].partition("/")[2] == id_), None)
        if found is None:
            raise ModelNotFound(f"The model '{id_[:200]}' does not exist. GET /v1/models lists what there is.")
        return Response(found)

    return [list_models, get_model]
