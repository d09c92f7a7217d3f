"""What may be spent a day and a month: reserved before a request, settled after it, exact across processes.

The database holds the sums.  While one transaction is under way, requests that come queue up and go together in the
next one, so that its price is shared; what is settled rides along, or goes by itself shortly after.
Invariant: what is reserved is given back at most once, and whoever is refused reserves nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec import Struct

from compat.canonical.error import BudgetReached, Overloaded
from gateway.limits.binding import NANO, Account
from gateway.telemetry.logging import logger

SETTLE_S = 0.1
"""How long what is over may wait for company."""
RETRY_S = 1.0
"""After a transaction failed with nobody waiting for it."""
BATCH_MAX = 500
"""Requests in one transaction."""
RESERVE_S = 10.0
"""How long the database may take before a request is refused."""
CLOSE_S = 5.0
"""How long the last settling may take."""
KEPT_DAYS = 400
"""How long what was spent is kept, for whoever looks into the database: 13 months."""
PERIODS = ("day", "month")


class Scope(Struct, frozen=True, order=True):
    """A row: an account, in one period."""

    account: str
    period: str
    """YYYY-MM-DD or YYYY-MM, in UTC."""
    tenant: str
    owner: str


class Line(Struct, frozen=True):
    """One budget of a request."""

    scope: Scope
    most: int
    """What may be spent, in nano-USD."""
    account: Account


class Ask(Struct, frozen=True):
    """What a request wants reserved in all of its budgets, or in none."""

    lines: tuple[Line, ...]
    need: int


class Lack(Struct, frozen=True):
    """Why a request was refused."""

    line: Line
    spent: int


class Unsettled(Exception):
    """A transaction failed; `unsure` says that it may have been done all the same."""

    def __init__(self, *, unsure: bool) -> None:
        super().__init__()
        self.unsure = unsure


class Rows(Protocol):
    async def apply(self, changes: Mapping[Scope, int], asks: Sequence[Ask]) -> list[Lack | None]:
        """Make the changes, then grant what still fits, in order; one transaction.  Raises Unsettled."""
        ...

    async def spent(self, scopes: Sequence[Scope]) -> dict[Scope, int]: ...

    async def aclose(self) -> None: ...


class Reservation(Struct, frozen=True):
    scopes: tuple[Scope, ...]
    amount: int


class _Waiting(Struct, frozen=True):
    ask: Ask
    granted: "asyncio.Future[Lack | None]"


class Budgets:
    """Everybody's."""

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._queue: deque[_Waiting] = deque()
        self._owed: dict[Scope, int] = {}
        """What has been spent or given back, and is not written yet."""
        self._draining: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, rows: Rows) -> None:
        """From now on they can be asked."""
        self._rows = rows

    async def reserve(self, lines: tuple[Line, ...], need: int) -> Reservation:
        """Reserve in all of these budgets.  Raises BudgetReached, or Overloaded when nobody can tell now."""
        for line in lines:
            if need > line.most:
                raise _never(line, need)
        waiting = _Waiting(Ask(lines, need), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._drain()
        reservation = Reservation(tuple(line.scope for line in lines), need)
        try:
            async with asyncio.timeout(RESERVE_S):
                lack = await waiting.granted
        except TimeoutError as e:
            self._take_back(waiting.granted, reservation)
            raise _unknown() from e
        except asyncio.CancelledError:
            self._take_back(waiting.granted, reservation)
            raise
        if lack is not None:
            raise _refusal(lack, need)
        return reservation

    def _take_back(self, granted: "asyncio.Future[Lack | None]", reservation: Reservation) -> None:
        """Who asked does not wait any more; what comes later is given back when it comes."""
        if granted.done() and not granted.cancelled() and granted.exception() is None and granted.result() is None:
            self.settle(reservation, 0)

    def settle(self, reservation: Reservation, cost: int) -> None:
        """Say what a request did cost; the rest of what was reserved is free again."""
        if change := cost - reservation.amount:
            for scope in reservation.scopes:
                self._owed[scope] = self._owed.get(scope, 0) + change
            self._settle_within(SETTLE_S)

    async def spent(self, scopes: Sequence[Scope]) -> dict[Scope, int]:
        """What is spent and reserved.  Raises Overloaded when nobody can tell now."""
        if self._rows is None:
            raise _unknown()
        try:
            async with asyncio.timeout(RESERVE_S):
                found = await self._rows.spent(scopes)
        except TimeoutError as e:
            raise _unknown() from e
        return {scope: found.get(scope, 0) + self._owed.get(scope, 0) for scope in scopes}

    async def aclose(self) -> None:
        """Write what is not written yet."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CLOSE_S
        while (self._owed or self._queue or self._draining) and loop.time() < end:
            self._drain()
            if self._draining is not None:
                await asyncio.wait([self._draining], timeout=end - loop.time())
            if self._owed:
                await asyncio.sleep(0.1)  # it failed, or somebody was just over
        if self._draining is not None:
            self._draining.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._owed:
            logger().error("budgets_unsettled", scopes=len(self._owed))
        if self._rows is not None:
            await self._rows.aclose()

    def _settle_within(self, seconds: float) -> None:
        if self._timer is None and self._draining is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._drain)

    def _drain(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._draining is None:
            self._draining = asyncio.create_task(self._transact())
            self._draining.add_done_callback(self._drained)

    def _drained(self, task: "asyncio.Task[None]") -> None:
        self._draining = None
        failed = not task.cancelled() and task.exception() is not None
        if self._queue:
            self._drain()
        elif self._owed:
            self._settle_within(RETRY_S if failed else SETTLE_S)

    async def _transact(self) -> None:
        """Write until nobody waits any more."""
        while True:
            batch: list[_Waiting] = []
            while self._queue and len(batch) < BATCH_MAX:
                waiting = self._queue.popleft()
                if not waiting.granted.cancelled():
                    batch.append(waiting)
            changes, self._owed = self._owed, {}
            if not batch and not changes:
                return
            try:
                if self._rows is None:
                    raise Unsettled(unsure=False)
                lacks = await self._rows.apply(changes, [waiting.ask for waiting in batch])
            except BaseException as e:
                # What may have been written is not written again: twice given back would be spent twice.
                if not isinstance(e, Unsettled) or not e.unsure:
                    for scope, change in changes.items():
                        self._owed[scope] = self._owed.get(scope, 0) + change
                for waiting in batch:
                    if not waiting.granted.done():
                        waiting.granted.set_exception(_unknown())
                logger().error("budgets_unwritten", error=type(e.__cause__ or e).__name__, requests=len(batch))
                if not isinstance(e, Unsettled):
                    raise
                if not self._queue:
                    raise
                continue
            for waiting, lack in zip(batch, lacks, strict=True):
                if not waiting.granted.done():
                    waiting.granted.set_result(lack)
                elif lack is None:  # who asked has left meanwhile
                    for line in waiting.ask.lines:
                        self._owed[line.scope] = self._owed.get(line.scope, 0) - waiting.ask.need
            if not self._queue:
                return


def lines(accounts: Sequence[Account], now: float) -> tuple[Line, ...]:
    """The budgets of these accounts in the periods of this moment."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    found = []
    for account in accounts:
        for kind in PERIODS:
            if (most := account.budget(kind)) is not None:
                period = day if kind == "day" else day[:7]
                found.append(Line(Scope(account.id, period, account.tenant, account.owner), most, account))
    return tuple(found)


def begins_anew(period: str) -> datetime:
    """When the period after this one begins."""
    if len(period) == len("YYYY-MM-DD"):
        return datetime.strptime(period, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    first = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    return (first + timedelta(days=31)).replace(day=1)


def dollars(nano: int) -> str:
    """For people: at least cents."""
    text = f"{nano / NANO:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"${whole}.{part:0<2}"


def _refusal(lack: Lack, need: int) -> BudgetReached:
    line, account = lack.line, lack.line.account
    anew = begins_anew(line.scope.period)
    left = max(0, line.most - lack.spent)
    return BudgetReached(
        f"{account.whose} may spend {dollars(line.most)} {_every(line)}, of which {dollars(left)} is left, and this "
        f"request may cost up to {dollars(need)}. The budget begins anew at {anew:%Y-%m-%dT%H:%M:%SZ}.",
        retry_after_s=max(1.0, anew.timestamp() - time.time()),
    )


def _never(line: Line, need: int) -> BudgetReached:
    error = BudgetReached(
        f"{line.account.whose} may spend {dollars(line.most)} {_every(line)}, and this request may cost up to "
        f"{dollars(need)}, more than all of it: it needs a lower limit of output tokens, or a bigger budget."
    )
    error.final = True
    return error


def _every(line: Line) -> str:
    return "a day" if len(line.scope.period) == len("YYYY-MM-DD") else "a month"


def _unknown() -> Overloaded:
    return Overloaded("The budget of this request cannot be looked up now.", retry_after_s=1.0)
