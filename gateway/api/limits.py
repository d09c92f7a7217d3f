"""GET /v1/limits: what binds the caller, and what is left of it."""

import time
from typing import Any

from litestar import Request, get
from litestar.params import FromQuery

from gateway.api.resource import estate_of, grant_of
from gateway.house import House
from gateway.limits.binding import NANO, Account
from gateway.limits.budgets import begins_anew, lines
from gateway.limits.standing import moment
from gateway.routing.selection import permitted


def _counted(account: Account, standing: tuple[float, float, float], now: float) -> list[dict[str, Any]]:
    limit, found = account.limit, []
    for unit, most, left in (
        ("requests_per_minute", limit.requests_per_minute, standing[0]),
        ("tokens_per_minute", limit.tokens_per_minute, standing[1]),
    ):
        if most is not None:
            full_at = moment(now + (most - left) * 60 / most + 0.999)
            found.append(_row(account, unit, most, max(0, int(left + 1e-6)), full_at))
    if limit.concurrent is not None:
        left = max(0, limit.concurrent - int(standing[2]))
        found.append(_row(account, "concurrent", limit.concurrent, left, None))
    return found


def _row(account: Account, unit: str, most: float, left: float, resets_at: str | None) -> dict[str, Any]:
    named = {"object": "limit", "of": account.kind, "name": account.name, "unit": unit}
    return named | {"limit": most, "remaining": left, "resets_at": resets_at}


def routes(house: House) -> list[Any]:
    @get(
        "/v1/limits",
        opt={"scope": "inference"},
        summary="List limits",
        description="The limits and budgets that bind the caller: of the key, the user and the tenant, and with "
        "`model` those of a model as well; how much is left of each, and when all of it is there again.",
    )
    async def list_limits(request: Request[Any, Any, Any], model: FromQuery[str | None] = None) -> dict[str, Any]:
        grant, plan, limiter = grant_of(request), None, house.limiter
        if model is not None:
            plan = permitted(await estate_of(request).router.plan(model, grant=grant), grant)
        accounts, now = limiter.accounts(grant, plan), time.time()
        data: list[dict[str, Any]] = []
        counted = [account for account in accounts if account.counted]
        for account, standing in zip(counted, await limiter.standings(counted) if counted else (), strict=True):
            data += _counted(account, standing, now)
        budgets = lines(accounts, now)
        spent = await limiter.budgets.spent([line.scope for line in budgets]) if budgets else {}
        for line in budgets:
            kind = "day" if len(line.scope.period) == len("YYYY-MM-DD") else "month"
            left = max(0, line.most - spent[line.scope]) / NANO
            anew = moment(begins_anew(line.scope.period).timestamp())
            data.append(_row(line.account, f"budget_usd_per_{kind}", line.most / NANO, left, anew))
        return {"object": "list", "data": data, "next_cursor": None}

    return [list_limits]
