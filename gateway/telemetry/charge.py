"""What a visit that is over cost: one rule for budgets and for usage rows."""

from typing import NamedTuple

from compat.canonical.event import Usage
from gateway.routing.router import Route
from gateway.telemetry.prices import Tariff
from gateway.visit import Visit

COST_MAX = 10**15
"""In nano-USD: a million dollars for one request is a provider's nonsense."""
_UNKNOWN = Usage()


class Charge(NamedTuple):
    """What a request cost."""

    nanousd: int | None = None
    """None: it cannot be told."""
    source: str | None = None
    """Who says what the model costs."""
    date: str | None = None


def charged(visit: Visit) -> Charge:
    """The cost of a visit that is over."""
    if visit.handed is None:
        return Charge(0)  # nobody was asked for an answer
    costs = spent(visit)
    # Not the sum: nobody knows whether what was lost is charged, and a budget has reserved the dearest.
    total = None if None in costs else max((cost or 0 for cost in costs), default=0)
    if visit.lost and total is None:
        return Charge()
    route = visit.answered or (visit.lost[-1] if visit.lost else None)
    if visit.own_key if route is None else route.account is not None:
        return Charge(total, "own_key")  # the user pays the provider
    asked = (visit.backend, visit.model) if route is None else (route.backend.name, route.model)
    tariff = _tariff(visit, *asked)
    if tariff is None:
        return Charge()
    # Whether a provider charges for what it refused, only its price of nothing tells.
    return Charge(total if costs or tariff.free else None, tariff.source, tariff.date)


def spent(visit: Visit) -> list[int | None]:
    """What each route that worked cost, in nano-USD; None where it cannot be told."""
    costs: list[int | None] = []
    if visit.answered is not None:
        costs.append(_cost(visit, visit.answered, visit.usage or _UNKNOWN))
    costs += [_cost(visit, route, _UNKNOWN) for route in visit.lost]
    return costs


def _cost(visit: Visit, route: Route, usage: Usage) -> int | None:
    if route.account is not None:
        return 0
    tariff = _tariff(visit, route.backend.name, route.model)
    cost = None if tariff is None else tariff.cost(usage)
    return cost if cost is not None and 0 <= cost <= COST_MAX else None


def _tariff(visit: Visit, backend: str | None, model: str | None) -> Tariff | None:
    prices = visit.prices
    if prices is None or backend is None or model is None:
        return None
    tariff = prices.of(backend, model)
    if tariff is None and visit.answered_by not in (None, model):
        tariff = prices.of(backend, visit.answered_by or "")  # often more exact: what an alias stands for
    return tariff
