"""/v1/models/{id}/load, /unload and /status, and /v1/models/loaded: which local models are in memory."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, Literal, cast, get_args
from urllib.parse import unquote

import msgspec
from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from msgspec import Struct

from backends.base import IN_MEMORY, Backend, Call, Loads, Wait
from compat.canonical.error import GatewayError, InvalidRequest
from compat.canonical.model import Modality
from gateway.api.reading import Disconnected
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import Asked, attended, decoded, estate_of, grant_of, visit_of, word
from gateway.auth.keycard import moment
from gateway.auth.principal import Grant
from gateway.auth.registrar import By
from gateway.db.audit import Act
from gateway.house import House
from gateway.routing.router import Route
from gateway.routing.selection import permitted
from gateway.telemetry.logging import logger

LOAD_S = 600.0
"""How long a model may be waited for."""
REFUSED_S = 0.05
"""What is refused at once is refused to those too who do not wait."""
_WAIT = {"wait": "`false` answers 202 at once, with the standing as it is by then; the body may say it too."}
_MODALITY = {"modality": "Of a name that has routes for several, which is meant: text unless said."}


class LoadOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is loaded."""

    wait: bool = True
    """Answer when it is ready."""


class UnloadOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is unloaded."""

    force: bool = False
    """A pinned one as well."""
    wait: bool = True
    """Answer when it is out."""


class LoadFailure(Struct, frozen=True, kw_only=True):
    """How a model failed last."""

    reason: str
    retry_at: datetime | None = None
    """Not before then is it tried again."""
    failures: int = 1
    """In a row."""
    log_tail: list[str] | None = None
    """The last the engine said, for whoever has the scope `admin`; null for others."""


class ModelStatus(Struct, frozen=True, kw_only=True):
    """How a local model stands; null is not known."""

    id: str
    object: Literal["model.status"] = "model.status"
    status: str
    """unloaded, queued, loading, ready, busy, draining or failed."""
    loading: float | None = None
    """While it loads: 0 to 1."""
    running: int = 0
    """Requests that have a slot."""
    waiting: int = 0
    slots: int | None = None
    memory_bytes: int | None = None
    """What it takes, or would take."""
    memory_source: str | None = None
    """How that is known: estimate, engine or measured."""
    load_s: float | None = None
    """How long it takes to load, as it went until now; so is the next for a request."""
    request_s: float | None = None
    loaded_at: datetime | None = None
    last_used_at: datetime | None = None
    idle_unload_at: datetime | None = None
    """When it is unloaded unless it is used."""
    pinned: bool = False
    steps: list[str] = []
    """What was given up so that it fits into memory."""
    failure: LoadFailure | None = None
    pid: int | None = None
    """Of its process, for whoever has the scope `admin`."""


class LoadedModels(Struct, frozen=True, kw_only=True):
    """What is in memory."""

    object: Literal["list"] = "list"
    data: list[ModelStatus]
    next_cursor: None = None
    pools: dict[str, dict[str, float]]
    """By local backend: loaded, max_loaded, memory_bytes, memory_max_bytes and waiting; and since it was connected
    loads, evictions and crashes."""


_BEGUN = ResponseSpec(
    ModelStatus, generate_examples=False, description="Begun, for who does not wait; as it stands by now."
)
_load, _unload = msgspec.json.Decoder(LoadOptions), msgspec.json.Decoder(UnloadOptions)


def routes(house: House) -> list[Any]:
    under_way: set[asyncio.Task[None]] = set()

    def begin(request: Asked, id_: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do the work beside the request, and write it down when it is done: nobody may be waiting by then."""
        visit, grant = visit_of(request), grant_of(request)
        by = By(actor=grant.principal.id, key_id=grant.key_id, request_id=visit.request_id)
        act = Act(
            actor=by.actor,
            action=f"model.{visit.route.rpartition('/')[2]}",
            target=id_,
            tenant=grant.principal.tenant,
            request_id=by.request_id,
            detail=by.signed({}),
        )

        async def whole() -> None:
            await work
            await house.archive.acts.add(act)

        def over(task: "asyncio.Task[None]") -> None:
            under_way.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                said = error.word if isinstance(error, GatewayError) else type(error).__name__
                logger().warning("model_act_failed", action=act.action, model=id_, error=said)

        task = asyncio.create_task(whole())
        under_way.add(task)
        task.add_done_callback(over)
        return task

    async def answered(request: Asked, route: Route, work: "asyncio.Task[None]", *, wait: bool) -> Response[Any]:
        if not wait:
            await asyncio.wait({work}, timeout=REFUSED_S)
            if work.done():
                work.result()
            return Response(_standing(route, grant_of(request)), status_code=202)
        try:
            await attended(request, _ended(work))
        except Disconnected:
            return Response(None, status_code=CLIENT_GONE)
        return Response(_standing(route, grant_of(request)), status_code=200)

    @post(
        "/v1/models/{model_id:str}/load",
        opt={"scope": "models:write", "body": LoadOptions, "query": _WAIT | _MODALITY},
        status_code=200,
        responses={202: _BEGUN},
        summary="Load a model",
        description="Bring a local model into memory, where others may have to make room.  Answers when it is ready; "
        "a client that leaves before has not unloaded it.  A configured name means the first local model of its "
        "routes.",
    )
    async def load_model(request: Asked, model_id: FromPath[str]) -> Response[ModelStatus]:
        route = await _local(request, model_id)
        wait = (await decoded(request, _load)).wait and word(request, "wait", ("true", "false")) != "false"
        call = Call(
            request_id=visit_of(request).request_id,
            principal=grant_of(request).principal,
            deadline=asyncio.get_running_loop().time() + LOAD_S,
            wait=Wait(),
        )
        work = begin(request, route.name, _loads(route).load(route.model, call))
        return await answered(request, route, work, wait=wait)

    @post(
        "/v1/models/{model_id:str}/unload",
        opt={"scope": "models:write", "body": UnloadOptions, "query": _WAIT | _MODALITY},
        status_code=200,
        responses={202: _BEGUN},
        summary="Unload a model",
        description="Take a local model out of memory.  What runs on it is finished first; who waits for it, or comes "
        "later, has it loaded again.  A pinned one is a conflict, unless `force` is true.",
    )
    async def unload_model(request: Asked, model_id: FromPath[str]) -> Response[ModelStatus]:
        route = await _local(request, model_id)
        options = await decoded(request, _unload)
        wait = options.wait and word(request, "wait", ("true", "false")) != "false"
        work = begin(request, route.name, _loads(route).unload(route.model, force=options.force))
        return await answered(request, route, work, wait=wait)

    @get(
        "/v1/models/{model_id:str}/status",
        opt={"scope": "models:read", "query": _MODALITY},
        summary="Get a model's status",
        description="How a local model stands: whether it is in memory, how far it is loaded, who uses it and waits "
        "for it, what it takes, and how it failed last.",
    )
    async def model_status(request: Asked, model_id: FromPath[str]) -> ModelStatus:
        return _standing(await _local(request, model_id), grant_of(request))

    @get(
        "/v1/models/loaded",
        opt={"scope": "models:read"},
        summary="List models in memory",
        description="The local models in memory or on their way there, and what memory they take of what they may.",
    )
    async def list_loaded(request: Asked) -> LoadedModels:
        grant = grant_of(request)
        found, pools = [], {}
        for name, backend in estate_of(request).backends.items():
            if isinstance(backend, Loads) and grant.may_use(name):
                routes = [Route(backend, model.name) for model in await backend.models()]
                found += [_standing(route, grant) for route in routes if grant.may_ask(route.name)]
                pools[name] = backend.counts()
        found = [one for one in found if one.status in IN_MEMORY]
        return LoadedModels(data=found, pools=pools)

    return [load_model, unload_model, model_status, list_loaded]


async def _ended(work: "asyncio.Task[None]") -> None:
    await asyncio.shield(work)


async def _local(request: Asked, model_id: str) -> Route:
    """The local model that an id means.  Raises ModelNotFound, Forbidden, or InvalidRequest for one that is not."""
    id_, grant = unquote(model_id), grant_of(request)
    modality = word(request, "modality", get_args(Modality)) or "text"
    plan = await estate_of(request).router.plan(id_, cast(Modality, modality), grant=grant)
    if grant.restricted:
        plan = permitted(plan, grant)
    for route in plan.routes:
        if isinstance(route.backend, Loads):
            route.backend.standing(route.model)  # raises ModelNotFound
            return route
    raise InvalidRequest(
        f"'{id_[:200]}' is no local model: there is nothing to load or unload.", param="model_id", code="not_local"
    )


def _loads(route: Route) -> Loads:
    backend: Backend = route.backend
    assert isinstance(backend, Loads)
    return backend


def _standing(route: Route, grant: Grant) -> ModelStatus:
    told, admin = _loads(route).standing(route.model), "admin" in grant.principal.scopes
    given = {name: told[name] for name in ModelStatus.__struct_fields__ if name in told}
    given |= {name: _moment(told.get(name)) for name in ("loaded_at", "last_used_at", "idle_unload_at")}
    given |= {name: round(took_s, 3) for name in ("load_s", "request_s") if (took_s := told.get(name)) is not None}
    if told["status"] != "loading":
        given["loading"] = None
    given["failure"] = _failure(told.get("failure"), admin=admin)
    return ModelStatus(id=route.name, **(given if admin else given | {"pid": None}))


def _failure(told: Mapping[str, Any] | None, *, admin: bool) -> LoadFailure | None:
    if told is None:
        return None
    return LoadFailure(
        reason=told["reason"],
        retry_at=_moment(told.get("retry_at")),
        failures=told.get("failures", 1),
        log_tail=list(told.get("log_tail") or ()) if admin else None,
    )


def _moment(at: float | None) -> datetime | None:
    return None if at is None else moment(at)
