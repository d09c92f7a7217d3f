"""What is left of providers' quotas, learned from what they say beside their answers.

The headers of an answer are only put aside when it comes; they are read when somebody asks, or once a
second.  Between them requests are counted here: what is under way has not been told yet.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct

from compat.canonical.error import RateLimited
from compat.canonical.request import Envelope
from compat.quota import Reading, read
from gateway.limits.estimate import likely
from gateway.routing.router import Route
from gateway.telemetry.logging import logger

KNOWN_MAX = 2000
"""Clients may name any model of a backend; of more than this, those whose windows are over are forgotten."""
WRITE_S = 1.0
BRIEF_S = 60.0
"""What is over so soon is not worth keeping for another process."""
REFUSED = "any"
"""The unit of a refusal: the provider did not say what has run out, only until when."""

AMPLE_REQUESTS, AMPLE_TOKENS = 200, 200_000
"""While so much is left, nobody looks closely."""
UNSEEN = 50
"""Requests that may pass before somebody looks again."""
_NEARLY = 1e-6

Headers = Sequence[tuple[str, str]]
_Key = tuple[str, str]
"""Account and model; the model is empty where the provider counts all of them together."""


class Standing(Struct, frozen=True, kw_only=True):
    """How one limit stands: a row of the table `quotas`."""

    account: str
    """The backend; for a user's own account its credential's id behind a #."""
    model: str
    """Empty where the provider counts all models together."""
    unit: str
    span: str
    most: int | None
    remaining: int
    resets_at: float
    evenly: bool
    updated_at: float


class Rows(Protocol):
    async def put(self, standings: Sequence[Standing]) -> None: ...


class _Window(Struct):
    most: int | None
    remaining: float
    resets_at: float
    evenly: bool
    seen: float
    kept: bool = False
    """There is a row of it."""

    def left(self, now: float) -> float:
        if now >= self.resets_at:
            return math.inf if self.most is None else self.most
        if self.evenly and self.most is not None:
            missing = max(0.0, self.most - self.remaining)
            return self.remaining + missing * max(0.0, now - self.seen) / max(self.resets_at - self.seen, _NEARLY)
        return self.remaining

    def take(self, amount: float, now: float) -> None:
        """An answer has come that cost so much."""
        left = self.left(now)
        if left < 1:
            self.resets_at = now  # there was more than we knew
        elif now < self.resets_at:
            self.remaining, self.seen = max(0.0, left - amount), now

    def holds(self, need: float, now: float) -> float:
        """When so much is there, or all of it if that is less."""
        if not self.evenly or self.most is None or self.most <= self.remaining:
            return self.resets_at
        share = (min(need, self.most) - self.remaining) / (self.most - self.remaining)
        return max(now, self.seen + share * (self.resets_at - self.seen))


class _Quota:
    """All that is known of one account's model."""

    def __init__(self) -> None:
        self.windows: dict[tuple[str, str], _Window] = {}
        self.requests = 0
        """Under way: sent, and not answered yet."""
        self.tokens = 0.0
        self.unseen = 0
        """Requests that may pass without a look at anything: plenty is left."""

    def until(self, tokens: float, now: float) -> float | None:
        """When a request of so many tokens may be sent; None for now."""
        latest = None
        for (unit, _), window in self.windows.items():
            if now >= window.resets_at:
                continue
            need, held = 1.0 if _counts_requests(unit) else max(tokens, 1.0), self.under_way(unit)
            if window.most is not None:
                need = max(1.0, min(need, float(window.most)))
            if window.left(now) - held < need - _NEARLY:
                latest = max(latest or now, window.holds(need + held, now))
        return latest

    def look(self, now: float) -> None:
        """See whether plenty is left."""
        ample = all(
            window.left(now) >= (AMPLE_REQUESTS if _counts_requests(unit) else AMPLE_TOKENS)
            for (unit, _), window in self.windows.items()
        )
        self.unseen = UNSEEN if ample else 0

    def under_way(self, unit: str) -> float:
        return self.requests if _counts_requests(unit) else self.tokens

    def take(self, tokens: float, now: float) -> None:
        for (unit, _), window in self.windows.items():
            window.take(1.0 if _counts_requests(unit) else tokens, now)


class Draw:
    """A request under way at a route that has a quota."""

    def __init__(self, quotas: Sequence[_Quota], tokens: float, clock: Callable[[], float]) -> None:
        self._quotas = quotas
        self._tokens = tokens
        self._clock = clock
        for quota in quotas:
            quota.requests += 1
            quota.tokens += tokens

    def settle(self, *, answered: bool) -> None:
        """Once: it is over, or its answer has come, which costs something."""
        quotas, self._quotas = self._quotas, ()
        for quota in quotas:
            quota.requests -= 1
            quota.tokens -= self._tokens
            if answered:
                quota.take(self._tokens, self._clock())


class QuotaBook:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._quotas: dict[_Key, _Quota] = {}
        self._heard: dict[_Key, tuple[float, Headers]] = {}
        """The last headers of each, which nobody has read yet."""
        self._changed: set[_Key] = set()

    def heard(self, route: Route, headers: Headers) -> None:
        """An answer has come with these headers."""
        self._heard[_key(route)] = self._clock(), tuple(headers)  # the list is used again if the stream breaks

    def refused(self, route: Route, error: RateLimited) -> None:
        """The route has refused a request for its rate, or because something has run out."""
        now = self._clock()
        key = _key(route)
        self._digest(key)
        readings, common = (read(given, now, refused=True) for given in (error.headers, error.limits))
        if error.refill_s and all(reading.remaining for reading in (*readings, *common)):
            readings.append(Reading(REFUSED, "", 0, now + error.refill_s, None, False))
        self._learn(key, readings, now)
        self._learn((key[0], ""), common, now)

    def draw(self, route: Route, envelope: Envelope) -> Draw | None:
        """Count a request that is about to be sent; whoever gets one settles it.  None where there is no quota."""
        quotas = self._of(route, 1)
        if not quotas:
            return None
        self._changed.add(_key(route))
        return Draw(quotas, likely(envelope) if any(map(_counts_tokens, quotas)) else 0.0, self._clock)

    def until(self, route: Route, envelope: Envelope | None = None) -> float | None:
        """When a request may be sent there, in seconds since 1970; None: now, as far as is known.

        envelope: the request; None is the smallest there may be.
        """
        quotas = self._of(route)
        if not quotas:
            return None
        now = self._clock()
        tokens = likely(envelope) if envelope is not None and any(map(_counts_tokens, quotas)) else 1.0
        return max((at for quota in quotas if (at := quota.until(tokens, now)) is not None), default=None)

    def in_words(self, at: float) -> str:
        """A moment: its hour in UTC, and the day where that is not today."""
        then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(self._clock(), UTC)
        return then.strftime("%H:%MZ" if then.date() == today.date() else "%Y-%m-%dT%H:%MZ")

    def wait_s(self, at: float) -> float:
        """How long it is until then."""
        return max(0.0, at - self._clock())

    def standings(self, account: str) -> list[Standing]:
        """How an account's limits stand now, as far as is known."""
        self.digest()
        now = self._clock()
        return [
            _standing(key, at, window, window.left(now) - quota.under_way(at[0]), now)
            for key, quota in self._quotas.items()
            if key[0] == account
            for at, window in quota.windows.items()
            if now < window.resets_at or window.most is not None
        ]

    def least(self) -> dict[tuple[str, str], float]:
        """By account and unit, what is left of the model that has least."""
        self.digest()
        now = self._clock()
        found: dict[tuple[str, str], float] = {}
        for (account, _), quota in self._quotas.items():
            if "#" in account:
                continue  # users' own accounts: there may be any number of them
            for (unit, span), window in quota.windows.items():
                left = window.left(now)
                if unit != REFUSED and left < math.inf:
                    at = account, f"{unit}_{span}" if span else unit
                    found[at] = min(left, found.get(at, left))
        return found

    def digest(self) -> None:
        """Read all headers that were put aside."""
        for key in list(self._heard):
            self._digest(key)

    async def write_to(self, rows: Rows) -> None:
        """Keep what becomes known, until cancelled; the last of it before it returns."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await self._write(rows)
        finally:
            await self._write(rows)

    def recall(self, standings: Iterable[Standing]) -> None:
        """Take over what another process has learned."""
        now = self._clock()
        for kept in standings:
            if kept.resets_at > now and (quota := self._quota((kept.account, kept.model))) is not None:
                window = _Window(kept.most, kept.remaining, kept.resets_at, kept.evenly, kept.updated_at, kept=True)
                quota.windows.setdefault((kept.unit, kept.span), window)

    def _digest(self, key: _Key) -> None:
        if (heard := self._heard.pop(key, None)) is not None and (readings := read(heard[1], heard[0])):
            self._learn(key, readings, heard[0])

    def _learn(self, key: _Key, readings: Sequence[Reading], now: float) -> None:
        if not readings or (quota := self._quota(key)) is None:
            return
        for r in readings:
            old = quota.windows.get((r.unit, r.span))
            kept = old is not None and old.kept
            quota.windows[r.unit, r.span] = _Window(r.most, r.remaining, r.resets_at, r.evenly, now, kept)
        quota.look(now)
        self._changed.add(key)

    def _of(self, route: Route, passing: int = 0) -> Sequence[_Quota]:
        """What is known of a free route that may matter; of others nobody decides anything.

        passing: so many requests are about to be sent.
        """
        if route.price != "free":
            return ()
        key, known = _key(route), self._quotas
        own, common = known.get(key), known.get((key[0], ""))
        if common is None and own is not None and own.unseen:
            own.unseen -= passing
            return ()
        self._digest(key)
        return [quota for quota in (known.get(key), common) if quota is not None]

    def _quota(self, key: _Key) -> _Quota | None:
        """None when too much is known already."""
        found = self._quotas.get(key)
        if found is None:
            if len(self._quotas) >= KNOWN_MAX:
                now = self._clock()
                live = {k: q for k, q in self._quotas.items() if any(w.resets_at > now for w in q.windows.values())}
                self._quotas = live
                if len(live) >= KNOWN_MAX:
                    return None
            found = self._quotas[key] = _Quota()
        return found

    async def _write(self, rows: Rows) -> None:
        self.digest()
        changed, self._changed = self._changed, set()
        standings = []
        for key in changed:
            quota = self._quotas.get(key)
            for at, window in quota.windows.items() if quota is not None else ():
                if window.kept or window.resets_at - window.seen > BRIEF_S:
                    window.kept = True
                    standings.append(_standing(key, at, window, window.remaining, window.seen))
        if not standings:
            return
        try:
            await rows.put(standings)
        except Exception as e:
            self._changed |= changed
            logger().error("quotas_write_failed", error=type(e).__name__, rows=len(standings))


def _key(route: Route) -> _Key:
    name = route.backend.name
    return name if route.account is None else f"{name}#{route.account}", route.model


def _counts_tokens(quota: _Quota) -> bool:
    return any(not _counts_requests(unit) for unit, _ in quota.windows)


def _counts_requests(unit: str) -> bool:
    return unit in ("requests", REFUSED)


def _standing(key: _Key, at: tuple[str, str], window: _Window, left: float, updated_at: float) -> Standing:
    return Standing(
        account=key[0],
        model=key[1],
        unit=at[0],
        span=at[1],
        most=window.most,
        remaining=max(0, int(left)),
        resets_at=window.resets_at,
        evenly=window.evenly,
        updated_at=updated_at,
    )
