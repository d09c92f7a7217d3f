"""What runs and what has just run: requests, as their tenant may look at them and end them.

A view of what is there anyway: the house's guests, whose visits are written as they go, and of each tenant the
last that are over.  Nothing is done here while a request runs.
"""

import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from compat.canonical.event import Usage
from compat.native import Timing, Tokens
from gateway.auth.keycard import moment
from gateway.visit import Visit

if TYPE_CHECKING:
    from gateway.house import House

KEPT = 500
"""Requests that are over, of one tenant."""
TENANTS_MAX = 64
"""Tenants whose requests are remembered: those who have asked last."""

Status = Literal["queued", "loading", "running", "done", "failed", "cancelled"]
CANCELLED, CLIENT_GONE = "request_cancelled", "client_gone"
_ABORTED = {CANCELLED: "The request was cancelled.", CLIENT_GONE: "The client closed its connection."}
"""Codes of requests that somebody did not want any more, and what is said of those that nobody was told."""


class Failure(Struct, frozen=True):
    """Why a request has no answer."""

    code: str
    message: str


class Progress(Struct, frozen=True):
    """How far a picture or a mesh is."""

    step: int
    of: int


class RequestStatus(Struct, frozen=True, kw_only=True):
    """How a request stands; null is not known, or not yet."""

    id: str
    object: Literal["request"] = "request"
    status: Status
    created_at: datetime
    ended_at: datetime | None
    endpoint: str
    streamed: bool
    model: str
    """As it was asked for."""
    backend: str | None
    """Who has it now, or had it last."""
    answered_model: str | None
    """The model that answers, as its backend calls it."""
    queue_position: int | None
    """0 when it is next."""
    eta_s: float | None
    """While it waits: how long that may still take."""
    load_progress: float | None
    """While its model loads: 0 to 1."""
    progress: Progress | None
    attempts: int
    error: Failure | None
    usage: Tokens | None
    timing: Timing


class Requests:
    def __init__(self, house: "House") -> None:
        self._house = house
        self._over: dict[str, deque[Visit]] = {}
        """By tenant; the one that has asked last comes last."""

    def keep(self, visit: Visit) -> None:
        """Remember one that is over, without what it held."""
        if visit.requested is None or visit.principal is None:
            return
        visit.presence = visit.prices = visit.answered = visit.trace = None
        visit.lent, visit.lost = (), []
        tenant = visit.principal.tenant
        kept = self._over.pop(tenant, None)
        if kept is None:
            kept = deque(maxlen=KEPT)
            if len(self._over) >= TENANTS_MAX:
                del self._over[next(iter(self._over))]
        kept.append(visit)
        self._over[tenant] = kept

    def of(self, tenant: str) -> list[Visit]:
        """A tenant's, the running ones first, each the newest first."""
        return [*self._running(tenant), *self._ended(tenant)]

    def find(self, tenant: str, id_: str) -> Visit | None:
        """The one of this id, which may be its client's own; of several the newest, running ones before others."""
        return next((visit for visit in self.of(tenant) if id_ in (visit.request_id, visit.given_id)), None)

    def _running(self, tenant: str) -> list[Visit]:
        found = [visit for visit in self._house.guests if visit.requested is not None]
        mine = [visit for visit in found if visit.principal is not None and visit.principal.tenant == tenant]
        return sorted(mine, key=place, reverse=True)

    def _ended(self, tenant: str) -> list[Visit]:
        self._house.ledger.account()  # those that were over a moment ago as well
        return sorted(self._over.get(tenant, ()), key=place, reverse=True)


def place(visit: Visit) -> tuple[bool, float, str]:
    """Of a request among others: what runs comes after what is over, the newer after the older."""
    return not visit.ended, visit.began, visit.request_id


def status(visit: Visit) -> Status:
    """How a request stands, in a word."""
    if visit.ended:
        if visit.code in _ABORTED:
            return "cancelled"
        return "done" if visit.code is None and visit.status < 400 else "failed"
    if visit.wait.held:
        return "queued" if visit.wait.loading is None else "loading"
    return "running"


def shown(visit: Visit) -> RequestStatus:
    """How a request stands now."""
    wait, held = visit.wait, visit.wait.held
    end = visit.ended or time.perf_counter()
    if visit.born is None:
        visit.born = (visit.at or time.time()) - (end - visit.began)
    return RequestStatus(
        id=visit.request_id,
        status=status(visit),
        created_at=moment(visit.born),
        ended_at=moment(visit.at) if visit.ended else None,
        endpoint=visit.route,
        streamed=visit.streamed,
        model=visit.requested or "",
        backend=visit.backend,
        answered_model=visit.answered_by or visit.model,
        queue_position=wait.queue_position if held else None,
        eta_s=round(wait.eta_s, 1) if held and wait.eta_s is not None else None,
        load_progress=wait.loading if held else None,
        progress=Progress(wait.step, wait.steps) if wait.steps else None,
        attempts=visit.attempts,
        error=_failure(visit),
        usage=_tokens(visit.usage),
        timing=Timing(
            queue_s=round(wait.queue_s, 3),
            load_s=round(wait.load_s, 3),
            first_token_s=None if visit.first is None else round(visit.first - visit.began, 3),
            total_s=round(end - visit.began, 3),
        ),
    )


def _failure(visit: Visit) -> Failure | None:
    if not visit.ended or visit.code is None:
        return None
    return Failure(visit.code, visit.said or _ABORTED.get(visit.code, "The request failed."))


def _tokens(usage: Usage | None) -> Tokens | None:
    if usage is None:
        return None
    return Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
