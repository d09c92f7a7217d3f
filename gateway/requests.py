"""What runs and what has run: requests, as their tenant may look at them and end them.

A view of what is there anyway: the house's guests, whose visits are written as they go, rows of usage, and answers
that are kept.  Nothing is done here while a request runs.
"""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from compat.canonical.event import Usage
from compat.native import Timing, Tokens
from gateway.auth.keycard import moment
from gateway.visit import Visit

if TYPE_CHECKING:
    from gateway.answers.answer import Answer
    from gateway.house import House

RESULT_MAX = 8 * 1024 * 1024
"""Bytes of a result that is told with the request; larger ones are at its `result_url` only."""
ID_MAX = 128
FOREVER = float("-inf")
SAME_S = 0.005
"""How far the clocks may lie apart by which a request and its answer are told when they began."""

Status = Literal["queued", "loading", "running", "done", "failed", "cancelled"]
CANCELLED, CLIENT_GONE, INTERRUPTED = "request_cancelled", "client_gone", "interrupted"
INTERRUPTED_SAID = "The gateway stopped while it worked on this request; ask again."
TOO_LARGE = "answer_too_large"
TOO_LARGE_SAID = "The answer was larger than 'requests.answer_bytes' and has not been kept."
ABORTED = {CANCELLED: "The request was cancelled.", CLIENT_GONE: "The client closed its connection."}
"""Codes of requests that somebody did not want any more, and what is said of those that nobody was told."""


class Failure(Struct, frozen=True):
    """Why a request has no answer."""

    code: str
    message: str


class Progress(Struct, frozen=True):
    """How far a picture or a mesh is."""

    step: int
    of: int


class Made(Struct, frozen=True, kw_only=True):
    """A picture or a mesh that was made before its request ended; it stays."""

    id: str
    url: str
    """For who has a key; a signed one is at GET /v1/artifacts/{id}."""
    mime: str
    bytes: int
    sha256: str


class Partial(Struct, frozen=True, kw_only=True):
    """What there was of an answer that did not come to its end."""

    text: str = ""
    artifacts: list[Made] = []


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
    partial: Partial | None = None
    """What there was of a native answer that was cancelled or broke off."""
    result: Any = None
    """The answer, where it is kept, is JSON and has at most 8 MiB; only where one request is asked for."""
    url: str
    events_url: str
    cancel_url: str
    result_url: str | None = None
    """Where the whole answer is, as it would have been sent; null where it is not kept."""


class Place(Struct, frozen=True):
    """Where a list goes on: behind what runs and began `at`, or is over since then; and what has been seen by then."""

    live: bool
    at: float
    id: str
    asof: float
    """When the list was begun."""
    born: float
    """Of what ran then, those that began from here on have been told."""


class Requests:
    def __init__(self, house: "House") -> None:
        self._house = house

    def keep(self, visit: Visit) -> None:
        """Keep what there is of the answer of one that is over without having come to its end."""
        if visit.seen is not None and visit.code is not None and not visit.detached:
            self._house.cabinet.answers.note(visit)

    def live(self, tenant: str) -> list[Visit]:
        """What runs here, the newest first."""
        found = [visit for visit in self._house.guests if visit.requested is not None]
        mine = [visit for visit in found if visit.principal is not None and visit.principal.tenant == tenant]
        return sorted(mine, key=lambda visit: (visit.began, visit.request_id), reverse=True)

    def here(self, tenant: str, id_: str) -> Visit | None:
        """The one of this id that runs here, which may be its client's own; of several the newest."""
        return next((visit for visit in self.live(tenant) if id_ in (visit.request_id, visit.given_id)), None)

    async def standing(self, tenant: str, id_: str) -> RequestStatus | None:
        """How the newest request of this id stands, wherever it runs or ran; None: there is none."""
        if (visit := self.here(tenant, id_)) is not None:
            return shown(visit)
        if not (id_ := self.written(id_)):
            return None
        unwritten = [row for row in self._house.ledger.unwritten(tenant) if row["request_id"] == id_]
        answers = self._house.cabinet.answers
        answer = await answers.get(tenant, id_, RESULT_MAX)
        row = unwritten[-1] if unwritten else await self._house.archive.usage.requested(tenant, id_, self._since())
        if answer is not None and (row is None or _began(row) <= answer.created_at + SAME_S):
            return _of_answer(answer, row)
        if row is None:
            return None
        kept = await answers.kept(tenant, [id_])
        found = next((one for one in kept if _is_of(one, row)), None) or next((o for o in kept if o.id == id_), None)
        return told(row, found)

    def written(self, id_: str) -> str:
        """An id as it is written down; empty where none is."""
        return self._house.redact(id_)[:ID_MAX] if id_.isprintable() and len(id_) <= ID_MAX else ""

    async def page(
        self, tenant: str, limit: int, wanted: Status | None = None, after: Place | None = None
    ) -> tuple[list[RequestStatus], Place | None]:
        """A tenant's: those that run, then those that are over, each the newest first; and the place behind them."""
        asof = time.time() if after is None else after.asof
        found: list[tuple[Place, RequestStatus]] = []
        if after is None or after.live:
            for born, one in await self._running(tenant):
                if (after is None or (born, one.id) < (after.at, after.id)) and wanted in (None, one.status):
                    found.append((Place(True, born, one.id, asof, born), one))
        born = FOREVER if after is None else after.at if after.live else after.born
        if len(found) <= limit and wanted in (None, "done", "failed", "cancelled"):
            behind = None if after is None or after.live else (after.at, after.id)
            seen = None if after is None else (asof, born)
            for at, id_, one in await self._over(tenant, limit + 1 - len(found), behind, seen, wanted, asof):
                found.append((Place(False, at, id_, asof, born), one))
        return [one for _, one in found[:limit]], found[limit - 1][0] if len(found) > limit else None

    async def _running(self, tenant: str) -> list[tuple[float, RequestStatus]]:
        """What runs, and when it began, the newest first."""
        here = [(shown(visit), visit) for visit in self.live(tenant)]
        found = [(visit.born or 0.0, one) for one, visit in here]
        ids = {one.id for _, one in found}
        for answer in await self._house.cabinet.answers.elsewhere(tenant):
            if answer.id not in ids:
                found.append((answer.created_at, _of_answer(answer)))
        return sorted(found, key=lambda one: (one[0], one[1].id), reverse=True)

    async def _over(
        self,
        tenant: str,
        limit: int,
        behind: tuple[float, str] | None,
        seen: tuple[float, float] | None,
        wanted: Status | None,
        asof: float,
    ) -> list[tuple[float, str, RequestStatus]]:
        """What is over, and the times and ids that it goes by, the newest first: by its row of usage, whether that is
        in the database yet or not; of what ended by `asof` also by its answer, where the row is lost.
        """
        since, answers = self._since(), self._house.cabinet.answers
        unwritten = self._house.ledger.unwritten(tenant)
        yet = {visit.request_id for visit in self.live(tenant)} | {row["request_id"] for row in unwritten}
        rows = {
            row["id"]: row
            for row in unwritten
            if since <= row["created_at"]
            and (behind is None or (row["created_at"], row["id"]) < behind)
            and (seen is None or row["created_at"] <= seen[0] or _began(row) < seen[1])
            and wanted in (None, _outcome(row))
        }
        written = await self._house.archive.usage.history(
            tenant, limit, since=since, after=behind, seen=seen, cancelled=tuple(ABORTED), outcome=wanted
        )
        rows |= {row["id"]: dict(row) for row in written}
        newest = sorted(rows.values(), key=lambda row: (row["created_at"], row["id"]), reverse=True)[:limit]
        kept = await answers.kept(tenant, [row["request_id"] for row in newest])
        found = [
            (row["created_at"], row["id"], told(row, next((one for one in kept if _is_of(one, row)), None)))
            for row in newest
        ]
        first = newest[-1]["created_at"] if len(newest) == limit else since
        for one in await answers.unaccounted(tenant, limit, first, asof, behind, wanted):
            if one.ended_at is not None and (one.request_id or one.id) not in yet:
                found.append((one.ended_at, one.id, _of_answer(one)))
        return sorted(found, key=lambda one: one[:2], reverse=True)[:limit]

    def _since(self) -> float:
        days = self._house.estate.config.requests.history_days
        return 0.0 if days is None else time.time() - days * 86_400


def status(visit: Visit) -> Status:
    """How a request stands, in a word."""
    if visit.ended:
        return _outcome({"code": visit.code, "status": visit.status})
    if visit.wait.held:
        return "queued" if visit.wait.loading is None else "loading"
    return "running"


def shown(visit: Visit) -> RequestStatus:
    """How a request stands now."""
    wait, held = visit.wait, visit.wait.held
    end = visit.ended or time.perf_counter()
    if visit.born is None:
        visit.born = (visit.at or time.time()) - (end - visit.began)
    failed = visit.ended and visit.code is not None
    error = _failure(visit.code, visit.said) if failed else None
    if visit.ended and visit.too_large and error is None:
        error = Failure(TOO_LARGE, TOO_LARGE_SAID)
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
        error=error,
        usage=_tokens(visit.usage),
        timing=Timing(
            queue_s=round(wait.queue_s, 3),
            load_s=round(wait.load_s, 3),
            first_token_s=None if visit.first is None else round(visit.first - visit.began, 3),
            total_s=round(end - visit.began, 3),
        ),
        partial=visit.seen.partial() if failed and visit.seen is not None else None,
        **_urls(visit.request_id, kept=visit.detached and not visit.too_large),
    )


def told(row: dict[str, Any], kept: "Answer | None" = None) -> RequestStatus:
    """How a request that is over stood in the end, from its row of usage.

    kept: the answer that is found at its `result_url`.
    """
    first = row["first_token_s"]
    usage = Usage(
        **{name: row[name] for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")}
    )
    return RequestStatus(
        id=row["request_id"],
        status=_outcome(row),
        created_at=moment(_began(row)),
        ended_at=moment(row["created_at"]),
        endpoint=row["route"],
        streamed=bool(row["streamed"]),
        model=row["requested_model"],
        backend=row["backend"],
        answered_model=row["model"],
        queue_position=None,
        eta_s=None,
        load_progress=None,
        progress=None,
        attempts=row["attempts"],
        error=None if row["code"] is None else _failure(row["code"], row["said"]),
        usage=None if usage == Usage() else _tokens(usage),
        timing=Timing(
            queue_s=round(row["queue_s"], 3),
            load_s=round(row["load_s"], 3),
            first_token_s=None if first is None else round(first, 3),
            total_s=round(row["total_s"], 3),
        ),
        **_urls(row["request_id"], kept=False)
        | {"result_url": None if kept is None else f"/v1/requests/{kept.id}/result"},
    )


def _of_answer(answer: "Answer", row: dict[str, Any] | None = None) -> RequestStatus:
    """How a request stands whose answer is kept, or will be.

    row: of its usage, which knows more than an answer that was kept before its last byte was sent.
    """
    known = msgspec.json.decode(answer.standing or b"", type=RequestStatus)
    if row is not None and not answer.asynchronous:
        known = told(row)
    about: dict[str, Any] = {"id": answer.id}
    there = known.result_url is not None if answer.asynchronous else answer.http_status is not None
    about |= _urls(answer.id, kept=there)
    if answer.status != "running":
        about["status"] = answer.status
    if answer.ended_at is not None and known.ended_at is None:  # its process is gone, or another has ended it
        code, said = (CANCELLED, None) if answer.status == "cancelled" else (INTERRUPTED, INTERRUPTED_SAID)
        about |= {"ended_at": moment(answer.ended_at), "error": _failure(code, said)}
    if answer.partial is not None:
        about["partial"] = msgspec.json.decode(answer.partial, type=Partial)
    if answer.status == "done" and answer.body and answer.is_json:
        about["result"] = msgspec.Raw(answer.body)
    return replace(known, **about)


def _outcome(row: dict[str, Any]) -> Literal["done", "failed", "cancelled"]:
    if row["code"] in ABORTED:
        return "cancelled"
    return "done" if row["code"] is None and row["status"] < 400 else "failed"


def _began(row: dict[str, Any]) -> float:
    return float(row["created_at"] - row["total_s"])


def _is_of(answer: "Answer", row: dict[str, Any]) -> bool:
    """Whether an answer is that of the request of a row: an id may have been used again."""
    within = _began(row) - SAME_S <= answer.created_at <= float(row["created_at"]) + SAME_S
    return within and (answer.request_id or answer.id) == row["request_id"]


def _failure(code: str | None, said: str | None) -> Failure:
    return Failure(code or "failed", said or ABORTED.get(code or "", "The request failed."))


def _urls(id_: str, *, kept: bool) -> dict[str, Any]:
    url = f"/v1/requests/{id_}"
    return {
        "url": url,
        "events_url": f"{url}/events",
        "cancel_url": f"{url}/cancel",
        "result_url": f"{url}/result" if kept else None,
    }


def _tokens(usage: Usage | None) -> Tokens | None:
    if usage is None:
        return None
    return Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
