"""What is done once per request when it is over: metrics, one log line, one usage row.

Rows are queued in memory and written in batches by one task, so the database is never on the way of
a request; when it cannot keep up, the oldest rows are dropped and counted rather than memory filled.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from gateway.telemetry.logging import line_logger, logger
from gateway.telemetry.metrics import Metrics
from gateway.visit import Visit, new_id

SETTLE_S = 0.02
"""How long a visit that is over may wait to be accounted for."""
FLUSH_S = 0.5
BATCH = 500
QUEUE_MAX = 50_000

_QUIET = frozenset({"/health", "/ready", "/metrics"})


class Rows(Protocol):
    async def add(self, rows: list[dict[str, Any]]) -> None: ...


class Ledger:
    """Settles visits."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._write_line = line_logger("request_finished")
        self._rows: deque[dict[str, Any]] = deque(maxlen=QUEUE_MAX)
        self.dropped = 0
        self._over: list[Visit] = []
        self._wanted = asyncio.Event()

    def settle(self, visit: Visit) -> None:
        """Account for a visit that is over: shortly, together with others, which is cheaper than one by one."""
        visit.ended, visit.at = time.perf_counter(), time.time()
        self._over.append(visit)
        if len(self._over) == 1:
            asyncio.get_running_loop().call_later(SETTLE_S, self.account)

    def account(self) -> None:
        """Account for all that are over."""
        over, self._over = self._over, []
        for visit in over:
            self._account(visit)

    def _account(self, visit: Visit) -> None:
        total = visit.ended - visit.began
        route = visit.route or "unknown"
        backend = visit.backend or ""
        first = visit.first - visit.began if visit.first is not None else None
        m = self._metrics
        m.child(m.requests, route, backend, str(visit.status)).inc()
        m.child(m.duration, route).observe(total)
        if visit.code is not None or visit.status >= 400:
            m.child(m.errors, route, backend, visit.code or str(visit.status)).inc()
        if visit.requested is not None:
            self._settle_generation(visit, backend, route, first, total)
        if route in _QUIET and visit.status < 400:
            return
        self._write_line(**_line(visit, route, first, total))

    def _settle_generation(self, visit: Visit, backend: str, route: str, first: float | None, total: float) -> None:
        m, usage = self._metrics, visit.usage
        if first is not None:
            m.child(m.first_token, backend).observe(first)
        if visit.handed is not None:
            m.child(m.overhead, route).observe(visit.handed - visit.began)
        if usage is not None:
            m.child(m.tokens, backend, "input").inc(usage.input_tokens or 0)
            m.child(m.tokens, backend, "output").inc(usage.output_tokens or 0)
        if visit.principal is None:
            return
        if len(self._rows) == QUEUE_MAX:
            self.dropped += 1
        self._rows.append(
            {
                "id": new_id("use"),
                "tenant_id": visit.principal.tenant,
                "owner_id": visit.principal.id,
                "key_id": visit.grant.key_id if visit.grant else None,
                "request_id": visit.request_id,
                "created_at": visit.at,
                "route": route,
                "requested_model": _name(visit.requested),
                "backend": visit.backend,
                "model": _name(visit.model),
                "status": visit.status,
                "code": visit.code,
                "attempts": visit.attempts,
                "streamed": int(visit.streamed),
                "input_tokens": usage.input_tokens if usage else None,
                "output_tokens": usage.output_tokens if usage else None,
                "cached_tokens": usage.cached_tokens if usage else None,
                "reasoning_tokens": usage.reasoning_tokens if usage else None,
                "cache_written_tokens": usage.cache_written_tokens if usage else None,
                "cost_nanousd": None,
                "price_source": None,
                "price_date": None,
                "queue_s": visit.wait.queue_s,
                "load_s": visit.wait.load_s,
                "first_token_s": first,
                "total_s": total,
            }
        )
        if len(self._rows) >= BATCH:
            self._wanted.set()

    async def write_to(self, rows: Rows) -> None:
        """Write what is queued, until cancelled; what is left then is written before it returns."""
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), FLUSH_S)
                self._wanted.clear()
                await self._flush(rows)
        finally:
            self.account()
            await self._flush(rows)

    async def _flush(self, rows: Rows) -> None:
        # What is queued now, not what comes meanwhile: under load that would be one row at a time.
        for _ in range(-(-len(self._rows) // BATCH)):
            batch = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
            try:
                await rows.add(batch)
            except Exception as e:
                self._rows.extendleft(reversed(batch))
                logger().error("usage_write_failed", error=type(e).__name__, rows=len(self._rows))
                return


def _name(given: str | None) -> str | None:
    """A client's own words, as long as their column and without what PostgreSQL refuses in a text."""
    return None if given is None else given[:300].replace("\x00", "")


def _line(visit: Visit, route: str, first: float | None, total: float) -> dict[str, Any]:
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
    if visit.requested is None:
        return line
    usage = visit.usage
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
