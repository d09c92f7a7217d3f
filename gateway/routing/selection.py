"""Which of a plan's routes can do what a request wants, and in which order they are asked.

A route is left out only for what is known of it, and only while another may do: where none may, all
are asked as they stand, and the backend's own refusal is the answer.
"""

import random
import re
from collections.abc import Callable, Sequence

import msgspec

from backends.base import Price
from compat.canonical.error import Forbidden, InvalidRequest, RateLimited
from compat.canonical.model import Modality
from compat.canonical.request import Dialect, Envelope
from gateway.auth.principal import Grant
from gateway.routing.health import HealthBook
from gateway.routing.quota import QuotaBook
from gateway.routing.router import Plan, Route
from gateway.settings import SelectionMode
from gateway.visit import Visit

CHARACTERS_PER_TOKEN = 6
"""More than a token of ordinary text has: what is too long by this measure is too long."""

NAMES_MAX = 10
"""Of what a caller may use, that a refusal tells."""

_MODALITIES: dict[Dialect, Modality] = {
    "embeddings": "embedding",
    "rerank": "rerank",
    "images": "image",
    "image_edits": "image",
    "3d": "3d",
}
_PRICES: dict[SelectionMode, frozenset[Price]] = {
    "local_only": frozenset({"local"}),
    "free_only": frozenset({"free", "local"}),
    "commercial_only": frozenset({"paid"}),
}
_SAID = ("messages", "input", "prompt")
"""The fields of a request, by its dialect, in which pictures may be."""
_TOOLS = ("tools", "functions")
_pictures = re.compile(rb'"(?:image_url|input_image|images)"|"type"\s*:\s*"image"').search


def modality_of(envelope: Envelope) -> Modality:
    """What a request wants made."""
    if envelope.dialect == "native" and (said := envelope.fields.get("modality")) is not None:
        modality: Modality | None = msgspec.json.decode(said)
        return modality or "text"
    return _MODALITIES.get(envelope.dialect, "text")


def select(
    plan: Plan,
    envelope: Envelope,
    book: HealthBook,
    mode: SelectionMode,
    visit: Visit,
    quotas: QuotaBook | None = None,
) -> Sequence[Route]:
    """The routes to ask, in order; those left out go to the visit's trail.

    Raises InvalidRequest, or RateLimited where only free routes may be asked and none has anything left.
    """
    routes = plan.routes
    if mode != "auto":
        routes = [route for route in routes if route.price in _PRICES[mode]]
        visit.trail += [(route.name, reason) for route in plan.routes if (reason := _priced_out(route, mode))]
        if not routes:
            raise InvalidRequest(
                f"No route of the model '{plan.requested}' is allowed by '{mode}'.",
                param="selection_mode",
                code="unsupported_value",
            )
    if len(routes) > 1:
        routes = _able(routes, envelope, visit)
    if quotas is not None and (len(routes) > 1 or mode == "free_only"):
        routes = _unspent(routes, quotas, envelope, mode, visit)
    return routes if plan.strategy == "order" or len(routes) == 1 else _STRATEGIES[plan.strategy](routes, book)


def permitted(plan: Plan, grant: Grant) -> Plan:
    """The plan with those of its routes that a caller may take.  Raises Forbidden when there are none.

    Whoever may ask for a name may take all its routes; BACKEND/MODEL of a route is as good as the name.
    """
    named = grant.may_ask(plan.requested) or (plan.bare is not None and grant.may_ask(plan.bare))
    routes = tuple(r for r in plan.routes if (named or grant.may_ask(r.name)) and grant.may_use(r.backend.name))
    if not routes:
        raise Forbidden(
            f"This API key may not use the model '{plan.requested[:200]}'; {_granted(grant)}.", code="model_not_allowed"
        )
    return plan if len(routes) == len(plan.routes) else msgspec.structs.replace(plan, routes=routes)


def _granted(grant: Grant) -> str:
    """What a restricted caller may use, in words."""
    parts = [
        f"{name} {_some(allowed)}"
        for name, allowed in (("models", grant.models), ("backends", sorted(grant.backends or ())))
        if allowed
    ]
    if grant.models == () or grant.backends == frozenset():
        return "it may use none"
    return f"it may use {' of '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_MAX
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(f"'{name[:100]}'" for name in names[:NAMES_MAX]) + more


def allowed(route: Route, mode: SelectionMode, modality: Modality) -> str | None:
    """Why a route would be left out before any request is looked at; None if it would not."""
    return _priced_out(route, mode) or _makes_other(route, modality)


def _makes_other(route: Route, modality: Modality) -> str | None:
    """Some models do what is another's main work as well: those that embed can rank."""
    if route.modality in (None, modality) or modality in route.capabilities:
        return None
    return f"makes {route.modality}, not {modality}"


def _priced_out(route: Route, mode: SelectionMode) -> str | None:
    if mode == "auto" or route.price in _PRICES[mode]:
        return None
    return f"its price class is {route.price or 'unknown'}, which {mode} does not allow"


def _able(routes: Sequence[Route], envelope: Envelope, visit: Visit) -> Sequence[Route]:
    lacks = _wants(envelope)
    kept, left_out = [], []
    for route in routes:
        reason = lacks(route)
        if reason is None:
            kept.append(route)
        else:
            left_out.append((route.name, reason))
    if not kept:
        return routes
    visit.trail += left_out
    return kept


def _unspent(
    routes: Sequence[Route], quotas: QuotaBook, envelope: Envelope, mode: SelectionMode, visit: Visit
) -> Sequence[Route]:
    """Without those whose free quota does not suffice."""
    spent = {route.key: at for route in routes if (at := quotas.until(route, envelope)) is not None}
    if not spent:
        return routes
    if len(spent) == len(routes):
        if mode != "free_only":
            return routes
        # How much this request needs is a guess; that there is nothing at all is not.
        spent = {route.key: at for route in routes if (at := quotas.until(route)) is not None}
    visit.trail += [
        (route.name, f"free quota used up until {quotas.in_words(at)}")
        for route in routes
        if (at := spent.get(route.key)) is not None
    ]
    if len(spent) == len(routes):
        first = min(spent.values())
        raise RateLimited(
            f"The free quota of the model's routes is used up until {quotas.in_words(first)}.",
            retry_after_s=quotas.wait_s(first),
        )
    return [route for route in routes if route.key not in spent]


def _wants(envelope: Envelope) -> Callable[[Route], str | None]:
    """What a route lacks for this request, as far as that is known; None for nothing."""
    modality = modality_of(envelope)
    said = next((bytes(envelope.fields[name]) for name in _SAID if name in envelope.fields), b"")
    pictures = modality == "text" and _pictures(said) is not None
    tools = any(bytes(envelope.fields.get(name, b"null")) not in (b"null", b"[]") for name in _TOOLS)
    size = 0 if pictures or modality != "text" else len(envelope.body)
    tokens: int | None = None

    def too_long(window: int) -> bool:
        nonlocal tokens
        if size // CHARACTERS_PER_TOKEN <= window:
            return False
        if tokens is None:
            tokens = _characters(envelope.body) // CHARACTERS_PER_TOKEN
        return tokens > window

    def lacks(route: Route) -> str | None:
        if other := _makes_other(route, modality):
            return other
        if route.capabilities and pictures and "vision" not in route.capabilities:
            return "takes no images"
        if route.capabilities and tools and "tools" not in route.capabilities:
            return "takes no tools"
        if route.context_length is not None and too_long(route.context_length):
            return f"context of {route.context_length} tokens is too short"
        return None

    return lacks


def _characters(body: bytes) -> int:
    """Of most alphabets, several bytes are one, and many clients write six for each."""
    text = body.decode("utf-8", "replace")
    return len(text) - 5 * text.count("\\u")


def _weighted(routes: Sequence[Route], book: HealthBook) -> Sequence[Route]:  # noqa: ARG001
    """Each place is drawn by weight among those left."""
    rest, order = list(routes), []
    while rest:
        chosen = random.choices(rest, [max(route.weight, 0.0) or 1e-9 for route in rest])[0]  # noqa: S311
        rest.remove(chosen)
        order.append(chosen)
    return order


def _latency(routes: Sequence[Route], book: HealthBook) -> Sequence[Route]:
    """The faster of two drawn ones comes first: all of the traffic on the fastest would make it the slowest."""
    now = book.now()
    order = random.sample(list(routes), len(routes))
    if book.of(order[1].key).speed(now) < book.of(order[0].key).speed(now):
        order[0], order[1] = order[1], order[0]
    return [order[0], *sorted(order[1:], key=lambda route: book.of(route.key).speed(now))]


def _least_busy(routes: Sequence[Route], book: HealthBook) -> Sequence[Route]:
    return sorted(routes, key=lambda route: book.of(route.key).busy)


_STRATEGIES = {"weighted": _weighted, "latency": _latency, "least_busy": _least_busy}
