"""Registering models, changing what is registered of them, and removing them: POST, PATCH and DELETE under /v1/models;
all of it out of one gateway and into another: /v1/models/export and /import."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar
from urllib.parse import unquote

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath
from msgspec import Struct

from compat.canonical.error import InvalidRequest
from gateway.api.catalogue import Catalogue, standings
from gateway.api.resource import Asked, by_of, decoded, grant_of, word
from gateway.house import House
from gateway.registry.form import Kept, ModelChanges, NewModel
from gateway.registry.register import Register
from gateway.registry.removal import Removal

T = TypeVar("T")
_SCOPE = "models:write"
_new = msgspec.json.Decoder(NewModel)
_changes = msgspec.json.Decoder(ModelChanges)
_kept = msgspec.json.Decoder(Kept)


class ModelDeleted(Struct, frozen=True, kw_only=True):
    """A model that is gone."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
    freed_bytes: int
    kept_for: list[str] = []
    """Other models that have files of it, which stay for them."""


class Imported(Struct, frozen=True, kw_only=True):
    """What an import has done."""

    object: Literal["registry.import"] = "registry.import"
    created: int
    updated: int
    unchanged: int


def routes(house: House) -> list[Any]:
    catalogue = Catalogue(house)
    register = Register(house)
    removal = Removal(house, register)
    under_way: set[asyncio.Task[Any]] = set()

    async def whole(work: Coroutine[Any, Any, T]) -> T:
        """Do it to the end, whether or not the client stays."""
        task = asyncio.create_task(work)
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return await asyncio.shield(task)

    async def shown(id_: str) -> dict[str, Any]:
        estate = house.estate
        one = await catalogue.one(estate, id_)
        seen = None if one is None else one.of(standings(estate))
        entry = house.entries.get(id_)
        told = {"defaults": {} if entry is None else entry.defaults, "hidden": entry is not None and entry.hidden}
        if one is None or seen is None:
            return {"id": id_, "object": "model", **told}
        return one.rendered(seen[1]) | told

    @post(
        "/v1/models",
        opt={"scope": _SCOPE, "body": NewModel},
        status_code=201,
        summary="Register a model",
        description="Name a model of a local backend by its source on the hub or its path on the server, or one of a "
        "provider's that its list does not name.  What was found by itself, or removed without its files, is "
        "registered by its id alone.  Nothing is downloaded: POST /v1/models/download does that.",
    )
    async def register_model(request: Asked) -> dict[str, Any]:
        _only(request)
        form = await decoded(request, _new)
        return await shown(await whole(register.create(form, grant_of(request), by_of(request))))

    @patch(
        "/v1/models/{model_id:str}",
        opt={"scope": _SCOPE, "body": ModelChanges, "route": "/v1/models/{id}"},
        summary="Change a model",
        description="What is left out stays; null takes back what was said.  From then on the model is registered, and "
        "what is found of it does not change what was said.",
    )
    async def change_model(request: Asked, model_id: FromPath[str]) -> dict[str, Any]:
        _only(request)
        form = await decoded(request, _changes)
        await house.estate.registry.learn_of(unquote(model_id))
        work = register.change(unquote(model_id), form, grant_of(request), by_of(request))
        return await shown(await whole(work))

    @delete(
        "/v1/models/{model_id:str}",
        opt={
            "scope": _SCOPE,
            "route": "/v1/models/{id}",
            "query": {
                "files": "`true` deletes its files as well: those in a model folder, and downloaded ones.",
                "force": "`true` removes it while it is in memory, waited for, pinned or downloaded; what runs on it "
                "is finished first.",
            },
        },
        status_code=200,
        summary="Remove a model",
        description="Take a model out of what is served.  One whose files stay where models are looked for is hidden "
        "until it is registered again.",
    )
    async def remove_model(request: Asked, model_id: FromPath[str]) -> ModelDeleted:
        _only(request, "files", "force")
        await house.estate.registry.learn_of(unquote(model_id))
        flags = {name: word(request, name, ("true", "false")) == "true" for name in ("files", "force")}
        kept = await asyncio.to_thread(removal.kept_for, unquote(model_id), grant_of(request)) if flags["files"] else []
        work = removal.remove(unquote(model_id), grant_of(request), by_of(request), **flags)
        id_, freed = await whole(work)
        return ModelDeleted(id=id_, freed_bytes=freed, kept_for=kept)

    @get(
        "/v1/models/export",
        opt={"scope": _SCOPE, "query": {"all": "`true` tells of models too that were only found."}},
        summary="Export the registry",
        description="What is registered, for POST /v1/models/import, here or elsewhere.",
    )
    async def export_models(request: Asked) -> Kept:
        return register.export(grant_of(request), everything=word(request, "all", ("true", "false")) == "true")

    @post(
        "/v1/models/import",
        opt={"scope": _SCOPE, "body": Kept},
        status_code=200,
        summary="Import a registry",
        description="Register what was exported: all of it, or nothing.  Doing so twice changes nothing.  What has no "
        "files here is `registered` where its source is known, else `missing`.",
    )
    async def import_models(request: Asked) -> Imported:
        _only(request)
        kept = await decoded(request, _kept)
        created, updated = await whole(register.take_in(kept, grant_of(request), by_of(request)))
        return Imported(created=created, updated=updated, unchanged=len(kept.models) - created - updated)

    return [register_model, change_model, remove_model, export_models, import_models]


def _only(request: Asked, *names: str) -> None:
    """Raises InvalidRequest for what else is in the query: something may depend on it that does not happen."""
    for name in request.query_params:
        if name not in names:
            known = f"known are {' and '.join(names)}" if names else "this takes none"
            raise InvalidRequest(
                f"Unknown query parameter '{name[:64]}': {known}.", param=name[:64], code="unknown_parameter"
            )
