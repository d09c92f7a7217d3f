"""GET /v1/schema: what may be asked of the gateway, or of one model, and which model to choose."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from litestar import MediaType, Request, Response, get

from compat.canonical.error import GatewayError, InvalidRequest, NotFound
from compat.canonical.model import Modality
from gateway.api.document import VERSION
from gateway.api.resource import estate_of, grant_of, visit_of, word
from gateway.house import Estate, House
from gateway.routing.router import NAME_MAX, Route
from gateway.routing.selection import permitted
from gateway.schema.bodies import BODIES, Json
from gateway.schema.book import SchemaBook
from gateway.schema.content import filtered
from gateway.schema.facts import status
from gateway.schema.guidance import guidance

_MODALITIES: tuple[Modality, ...] = get_args(Modality)
_PATHS = tuple(dict.fromkeys(body.path for body in BODIES))
_HOUSE = "default", "system"
"""Whose the versions are that any caller sees who is not restricted."""

Asked = Request[Any, Any, Any]


class _Schemas:
    def __init__(self, house: House) -> None:
        self._house = house
        self._book = SchemaBook(house, VERSION)

    async def general(self, request: Asked, endpoint: str | None, modality: Modality | None) -> Json:
        grant = grant_of(request)
        whole = filtered(await self._book.general(), endpoint, modality)
        return whole | {"guidance": guidance(self._house, estate_of(request), grant, modality)}

    async def of_model(self, request: Asked, name: str, endpoint: str | None, modality: Modality | None) -> Json:
        """Raises what a request for this name would be answered with."""
        estate, rows = estate_of(request), self._house.archive.schemas
        plans = await self._plans(request, estate, name, modality)
        whole = await self._book.of_model(name, plans, estate)
        if modality is None:
            # Else it is not all that is to be said of the name.
            self._book.keep(rows, *self._owner(request), name, whole)
        routes = {route.name: route for some in plans.values() for route in some}
        stands = {row["name"]: status(routes[row["name"]], estate) for row in whole["routes"]}
        whole = filtered(whole, endpoint, modality)
        whole["routes"] = [row | {"status": stands[row["name"]]} for row in whole["routes"]]
        # A name that leads to several models is not one to choose from: what there is instead is.
        makes = [one for one in _MODALITIES if any(one in row["modalities"] for row in whole["routes"])]
        advice = [one for made in makes for one in guidance(self._house, estate, grant_of(request), made)]
        return whole | {"guidance": advice}

    async def of_version(self, request: Asked, name: str, version: str) -> Json:
        """One that was kept, as it was.  Raises NotFound."""
        rows, owner = self._house.archive.schemas, self._owner(request)
        found = await rows.get(*owner, name, version)
        if found is None:
            known = ", ".join(one for one, _ in await rows.versions(*owner, name))
            raise NotFound(
                f"No schema of this version is kept of the model '{name[:200]}'; "
                + (f"there are {known}." if known else "none is.")
            )
        body, since = found
        at = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        whole: Json = msgspec.json.decode(body)
        return whole | {"since": at}

    def _owner(self, request: Asked) -> tuple[str, str]:
        """Whose versions a caller sees: what a restricted one may not use is no business of theirs."""
        grant = grant_of(request)
        if not grant.restricted and self._house.archive.accounts.idle:
            return _HOUSE
        return grant.principal.tenant[:64], f"key:{grant.principal.id}"[:64]

    async def _plans(
        self, request: Asked, estate: Estate, name: str, modality: Modality | None
    ) -> dict[Modality, Sequence[Route]]:
        grant, accounts = grant_of(request), self._house.archive.accounts
        own = None if accounts.idle else await accounts.of(visit_of(request), estate)
        out: dict[Modality, Sequence[Route]] = {}
        failure: GatewayError | None = None
        for made in _MODALITIES if modality is None else (modality,):
            try:
                plan = await estate.router.plan(name, made, own, grant)
                out[made] = (permitted(plan, grant) if grant.restricted else plan).routes
            except GatewayError as e:
                failure = failure or e
        if not out and failure is not None:
            raise failure
        return out


def routes(house: House) -> list[Any]:
    schemas = _Schemas(house)

    @get(
        "/v1/schema",
        opt={
            "scope": "models:read",
            "query": {
                "model": "A name a client can ask for: what its endpoints take, and what each of its routes carries.",
                "modality": f"Only what makes this: {', '.join(_MODALITIES)}.",
                "endpoint": "Only what this path takes, such as /v1/chat/completions.",
                "version": "With `model`: the schema as it was at this version.",
            },
        },
        summary="Describe parameters",
        description="The parameters of all generating endpoints, with type, range, default, description and examples; "
        "of one model, what each of its routes makes of them; and which model to choose.  It has an ETag.",
    )
    async def get_schema(request: Asked) -> Response[bytes]:
        name, version = _name(request), word(request, "version")
        modality: Any = word(request, "modality", _MODALITIES)
        endpoint = word(request, "endpoint", _PATHS)
        if version is not None:
            if name is None:
                raise InvalidRequest("'version' goes with 'model'.", param="version", code="invalid_value")
            whole = filtered(await schemas.of_version(request, name, version), endpoint, modality)
        elif name is not None:
            whole = await schemas.of_model(request, name, endpoint, modality)
        else:
            whole = await schemas.general(request, endpoint, modality)
        body = msgspec.json.encode(whole)
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization, x-api-key, api-key"}
        if _holds(request.headers.get("if-none-match"), tag):
            return Response(b"", status_code=304, headers=headers, media_type=MediaType.JSON)
        return Response(body, headers=headers, media_type=MediaType.JSON)

    return [get_schema]


def _name(request: Asked) -> str | None:
    """The model that is asked about.  Raises InvalidRequest."""
    given: str | None = request.query_params.get("model")
    if given is not None and (not given or not given.isprintable() or len(given) > NAME_MAX):
        raise InvalidRequest(
            f"Invalid value for 'model': expected a name of up to {NAME_MAX} printable characters.",
            param="model",
            code="invalid_value",
        )
    return given


def _holds(asked: str | None, tag: str) -> bool:
    """Whether what a client has is what it would get."""
    said = [one.strip().removeprefix("W/") for one in (asked or "").split(",")]
    return tag in said or said == ["*"]
