"""What is done once per request when it is over: its cost, metrics, one log line, one usage row.

Rows are queued in memory and written in batches by one task, so the database is never on the way of
a request; when it cannot keep up, the oldest rows are dropped and counted rather than memory filled.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from compat.canonical.event import Usage
from gateway.db.engine import unfit
from gateway.db.usage import LENGTHS
from gateway.telemetry.charge import Charge, charged
from gateway.telemetry.logging import line_logger, logger
from gateway.telemetry.metrics import Metrics
from gateway.visit import Visit, new_id

SETTLE_S = 0.02
"""How long a visit that is over may wait to be accounted for."""
FLUSH_S = 0.5
BATCH = 500
QUEUE_MAX = 50_000
EXEMPLAR_MAX = 100
TOKENS_MAX = 10**9
"""Of one request: beyond, and below 0, it is a provider's nonsense."""
FORGET_S = 3_600
LAST_TRIES = 3
"""How often what is left is tried to be written when the gateway stops."""

_QUIET = frozenset({"/health", "/ready", "/metrics"})


class Rows(Protocol):
    async def add(self, rows: list[dict[str, Any]]) -> None:
        """Write these; those that are there already, from a try that seemed to have failed, stay as they are."""


class Forgetting(Protocol):
    async def forget(self, before: float) -> int: ...


def _believable(usage: Usage) -> Usage:
    """The same, without numbers that cannot be."""
    for name in usage.__struct_fields__:
        if (count := getattr(usage, name)) is not None and not 0 <= count <= TOKENS_MAX:
            return _believable(msgspec.structs.replace(usage, **{name: None}))
    return usage


class Ledger:
    """Settles visits."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._write_line = line_logger("request_finished")
        self._rows: deque[dict[str, Any]] = deque(maxlen=QUEUE_MAX)
        self.dropped = 0
        self._writing: list[dict[str, Any]] = []
        """Those of them that are on their way into the database."""
        self._queued = 0
        self._left = 0
        """Of those queued, how many have left the queue, written or dropped."""
        self.traced: Callable[[Visit], None] | None = None
        """Is told of each visit, while traces are sent somewhere."""
        self.used: Callable[[str, float], None] | None = None
        """Is told which model has answered, as BACKEND/MODEL, and when."""
        self.kept: Callable[[Visit], None] | None = None
        """Is given each visit when all is done with it."""
        self._over: list[Visit] = []
        self._wanted = asyncio.Event()

    @property
    def queued(self) -> int:
        """Rows that are not in the database yet."""
        return len(self._rows)

    def unwritten(self, tenant: str) -> list[dict[str, Any]]:
        """The tenant's rows that may not be in the database yet, the oldest first."""
        self.account()  # those that were over a moment ago as well
        return [row for row in (*self._writing, *self._rows) if row["tenant_id"] == tenant]

    def settle(self, visit: Visit) -> None:
        """Account for a visit that is over: shortly, together with others, which is cheaper than one by one."""
        visit.ended, visit.at = time.perf_counter(), time.time()
        if visit.born is not None:  # so that who was told when it began is not told another time afterwards
            visit.at = visit.born + visit.ended - visit.began
        self._over.append(visit)
        if len(self._over) == 1:
            asyncio.get_running_loop().call_later(SETTLE_S, self.account)

    def account(self) -> None:
        """Account for all that are over."""
        over, self._over = self._over, []
        for visit in over:
            try:
                self._account(visit)
            except Exception:
                # A defect here must not lose the others' rows.
                logger().exception("request_unaccounted", request_id=visit.request_id)
            if self.kept is not None:
                self.kept(visit)

    def _account(self, visit: Visit) -> None:
        if visit.usage is not None and (usage := _believable(visit.usage)) is not visit.usage:
            logger().warning("usage_not_believed", request_id=visit.request_id, backend=visit.backend)
            visit.usage = usage
        total = visit.ended - visit.began
        route = visit.route or "unknown"
        backend = visit.backend or ""
        first = visit.first - visit.began if visit.first is not None else None
        m = self._metrics
        m.child(m.requests, route, backend, str(visit.status)).inc()
        m.child(m.duration, route).observe(total, _exemplar(visit))
        if visit.code is not None or visit.status >= 400:
            m.child(m.errors, route, backend, visit.code or str(visit.status)).inc()
            if not visit.attempts and (refused := m.refusals.get(visit.status)) is not None:
                m.child(refused, visit.code or "").inc()
        charge = None
        if visit.requested is not None:
            charge = charged(visit)
            self._settle_generation(visit, charge, backend, route, first, total)
        if route in _QUIET and visit.status < 400:
            return
        if self.traced is not None:
            self.traced(visit)
        self._write_line(**_line(visit, charge, route, first, total))

    def _settle_generation(
        self, visit: Visit, charge: Charge, backend: str, route: str, first: float | None, total: float
    ) -> None:
        m, usage = self._metrics, visit.usage
        if first is not None:
            m.child(m.first_token, backend).observe(first, _exemplar(visit))
        if visit.wait.queue_s:
            m.child(m.queue, backend).observe(visit.wait.queue_s)
        if visit.wait.load_s:
            m.child(m.load, backend).observe(visit.wait.load_s)
        if visit.handed is not None:
            m.child(m.overhead, route).observe(visit.handed - visit.began)
        if usage is not None:
            m.child(m.tokens, backend, "input").inc(usage.input_tokens or 0)
            m.child(m.tokens, backend, "output").inc(usage.output_tokens or 0)
        if charge.nanousd:
            m.child(m.cost, backend).inc(charge.nanousd / 1e9)
        if self.used is not None and visit.answered is not None:
            self.used(visit.answered.name, visit.at)
        if visit.principal is None:
            return
        self._queued += 1
        if len(self._rows) == QUEUE_MAX:
            self.dropped += 1
            self._left += 1
        self._rows.append(
            _fitting(
                {
                    "id": new_id("use"),
                    "tenant_id": visit.principal.tenant,
                    "owner_id": visit.principal.id,
                    "key_id": visit.grant.key_id if visit.grant else None,
                    "request_id": visit.request_id,
                    "created_at": visit.at,
                    "route": route,
                    "requested_model": visit.requested,
                    "backend": visit.backend,
                    "model": visit.model,
                    "status": visit.status,
                    "code": visit.code,
                    "attempts": visit.attempts,
                    "streamed": int(visit.streamed),
                    "input_tokens": usage.input_tokens if usage else None,
                    "output_tokens": usage.output_tokens if usage else None,
                    "cached_tokens": usage.cached_tokens if usage else None,
                    "reasoning_tokens": usage.reasoning_tokens if usage else None,
                    "cache_written_tokens": usage.cache_written_tokens if usage else None,
                    "cost_nanousd": charge.nanousd,
                    "price_source": charge.source,
                    "price_date": charge.date,
                    "queue_s": visit.wait.queue_s,
                    "load_s": visit.wait.load_s,
                    "first_token_s": first,
                    "total_s": total,
                    "said": visit.said,
                }
            )
        )
        if len(self._rows) >= BATCH:
            self._wanted.set()

    async def write_to(self, rows: Rows) -> None:
        """Write what is queued, until cancelled; what is left then is written before it returns."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                with suppress(TimeoutError):
                    # Not wait_for, which can lose a cancellation when the event is set in the same moment.
                    async with asyncio.timeout(FLUSH_S):
                        await self._wanted.wait()
                self._wanted.clear()
                writing = asyncio.create_task(self._flush(rows))
                await asyncio.shield(writing)
        finally:
            if writing is not None:
                await writing
            self.account()
            for _ in range(LAST_TRIES):
                await self._flush(rows)
                if not self._rows:
                    break
                await asyncio.sleep(FLUSH_S)

    async def caught_up(self, within_s: float) -> None:
        """Return when all that is over now has been written, or the time is."""
        self.account()
        goal, loop = self._queued, asyncio.get_running_loop()
        end = loop.time() + within_s
        self._wanted.set()
        while self._left < goal and loop.time() < end:
            await asyncio.sleep(0.005)

    async def _flush(self, rows: Rows) -> None:
        # What is queued now, not what comes meanwhile: under load that would be one row at a time.
        for _ in range(-(-len(self._rows) // BATCH)):
            self._writing = batch = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
            parts = [batch]
            while parts:
                part = parts.pop()
                try:
                    await rows.add(part)
                except Exception as e:
                    if not unfit(e):
                        self._put_back([row for left in (part, *reversed(parts)) for row in left])
                        self._writing = []
                        logger().error("usage_write_failed", error=type(e).__name__, rows=len(self._rows))
                        return
                    if len(part) > 1:  # the others can be written
                        half = len(part) // 2
                        parts += [part[half:], part[:half]]
                        continue
                    self.dropped += 1
                    logger().error("usage_row_dropped", error=type(e).__name__, request_id=part[0]["request_id"])
                self._left += len(part)
            self._writing = []

    def _put_back(self, batch: list[dict[str, Any]]) -> None:
        # As many as fit: the oldest give way to those that came meanwhile.
        kept = batch[max(len(batch) + len(self._rows) - QUEUE_MAX, 0) :]
        self._rows.extendleft(reversed(kept))
        self.dropped += len(batch) - len(kept)
        self._left += len(batch) - len(kept)


def _exemplar(visit: Visit) -> dict[str, str] | None:
    """What names a request beside a figure: its trace, where there is one."""
    if visit.trace is not None and visit.trace.sampled:
        return {"trace_id": visit.trace.hex}
    # OpenMetrics allows 128 characters in all, and a client may have chosen this one.
    return {"request_id": visit.request_id} if len(visit.request_id) <= EXEMPLAR_MAX else None


async def forget_old(rows: Forgetting, days: Callable[[], int | None], what: str = "usage") -> None:
    """Delete what is older than so many days (None: nothing), now and again, until cancelled."""
    while True:
        if (kept := days()) is not None:
            try:
                if gone := await rows.forget(time.time() - kept * 86_400):
                    logger().info(f"{what}_forgotten", rows=gone)
            except Exception as e:
                logger().error(f"{what}_forget_failed", error=type(e).__name__)
        await asyncio.sleep(FORGET_S)


def _fitting(row: dict[str, Any]) -> dict[str, Any]:
    """The row, its texts as long as their columns and without what PostgreSQL refuses in them."""
    for name, most in LENGTHS.items():
        if (text := row[name]) is not None and (len(text) > (most or 0) or "\x00" in text):
            row[name] = text[:most].replace("\x00", "")
    return row


def _name(given: str | None) -> str | None:
    """A client's own words, no longer than they are kept."""
    return None if given is None else given[: LENGTHS["model"]].replace("\x00", "")


def _line(visit: Visit, charge: Charge | None, route: str, first: float | None, total: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "request_id": visit.request_id,
        "principal": visit.principal.id if visit.principal else None,
        "method": visit.method,
        "route": route,
        "status": visit.status,
        "total_s": round(total, 6),
    }
    if visit.code is not None:
        line["code"] = visit.code
    if visit.trace is not None:
        line["trace_id"] = visit.trace.hex
    if charge is None:
        return line
    usage = visit.usage
    if charge.nanousd is not None:
        line["cost_usd"] = charge.nanousd / 1e9
    return line | {
        "requested_model": _name(visit.requested),
        "backend": visit.backend,
        "model": _name(visit.model),
        "attempts": visit.attempts,
        "streamed": visit.streamed,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "first_token_s": round(first, 6) if first is not None else None,
        "queue_s": round(visit.wait.queue_s, 6),
        "load_s": round(visit.wait.load_s, 6),
    }
