"""GET /v1/providers: the backends there are, how they are, and what is left of their quotas."""

import time
from datetime import UTC, datetime
from typing import Any

from litestar import get

from backends.base import Backend, Priced, Probed
from gateway.api.resource import Asked, estate_of, grant_of
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.routing.quota import Standing

QUOTAS_MAX = 100
"""Limits shown of one backend: those that have least left come first."""


def routes(house: House) -> list[Any]:
    @get(
        "/v1/providers",
        opt={"scope": "models:read"},
        summary="List providers",
        description="The backends, their state as `/ready` tells it, and what is left of their quotas, where they say.",
    )
    async def list_providers(request: Asked) -> dict[str, Any]:
        estate, grant = estate_of(request), grant_of(request)
        data = [
            await described(estate, grant, name, backend)
            for name, backend in estate.backends.items()
            if grant.may_use(name)
        ]
        return {"object": "list", "data": data, "next_cursor": None}

    async def described(estate: Estate, grant: Grant, name: str, backend: Backend) -> dict[str, Any]:
        entry = estate.config.backends[name]
        trouble = await backend.ready() if isinstance(backend, Probed) else None
        away = [route for route in house.book.troubled(house.book.now()) if route.startswith(f"{name}/")]
        return {
            "id": name,
            "object": "provider",
            "kind": entry.kind,
            "price": entry.terms.price or (backend.price if isinstance(backend, Priced) else None),
            "dialects": sorted(getattr(backend, "dialects", ())),
            "models": estate.registry.count(name),
            "own_keys": entry.terms.own_keys,
            "status": "ready" if trouble is None else "troubled",
            "trouble": trouble,
            "routes_left_alone": len(away),
            "quotas": _quotas(house.quotas.standings(name), grant),
        }

    return [list_providers]


def _quotas(standings: list[Standing], grant: Grant) -> list[dict[str, Any]]:
    now = time.time()
    mine = [one for one in standings if not one.model or grant.may_ask(one.model) or grant.may_ask(_id(one))]
    mine.sort(key=lambda one: one.remaining / one.most if one.most else 0.0)
    return [
        {
            "model": one.model[:300] or None,
            "unit": None if one.unit == "any" else one.unit,
            "window": one.span or None,
            "limit": one.most,
            "remaining": one.remaining,
            "resets_at": _time(one.resets_at) if one.resets_at > now else None,
        }
        for one in mine[:QUOTAS_MAX]
    ]


def _id(one: Standing) -> str:
    return f"{one.account}/{one.model}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
