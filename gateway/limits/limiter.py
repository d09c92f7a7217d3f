"""Lets requests in, within every limit and budget that binds them, and settles what they used."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from compat.canonical.error import BudgetReached, Forbidden
from compat.canonical.request import Envelope
from gateway.auth.principal import Grant
from gateway.limits import estimate
from gateway.limits.binding import Account, bindings, nothing
from gateway.limits.budgets import Budgets, Reservation, lines
from gateway.limits.counters import KNOWN_MAX, Counters, Entry, Refused, State
from gateway.limits.shared import Away, Held, Shared
from gateway.limits.standing import Standing
from gateway.routing.router import Plan
from gateway.settings import Limit, Limits
from gateway.telemetry.charge import spent
from gateway.telemetry.prices import Prices
from gateway.visit import Visit

_Key = tuple[str | None, str, str, Limit | None, str, str]


class Bound(Struct, frozen=True):
    """What binds the requests of one caller for one model."""

    counted: tuple[Account, ...]
    """Those of them that limit requests or tokens, and how they stand."""
    states: tuple[State, ...]
    counts_tokens: bool
    paying: tuple[Account, ...]
    """Those of them that have a budget."""


class Pass(Struct, gc=False):
    """A request that was let in."""

    plan: Plan
    """Its routes, without those that nobody knows the price of, where there is a budget."""
    spends: bool
    standing: Standing = Standing(None, None, False)
    entry: Entry | None = None
    held: Held | None = None
    store: Shared | None = None
    """Where it is held."""
    reservation: Reservation | None = None

    @property
    def reserved(self) -> float:
        """Tokens."""
        if self.entry is not None:
            return self.entry.reserved
        return self.held.tokens if self.held is not None else 0.0


class Limiter:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.idle = nothing(limits)
        """The configuration limits nobody; a grant still may."""
        self.budgets = Budgets()
        self._counters = Counters()
        self._bounds: dict[_Key, Bound] = {}
        self._shared = _shared(limits)
        self._left: list[Shared] = []
        """Servers that an earlier configuration counted on; requests under way still settle there."""

    def adopt(self, limits: Limits) -> None:
        """From now on by these limits.  What has been counted goes on being counted."""
        if limits == self._limits:
            return
        self._limits, self.idle = limits, nothing(limits)
        self._bounds.clear()
        old = self._shared
        if limits.store != (old.url if old is not None else "memory"):
            self._shared = _shared(limits)
            if old is not None:
                self._left.append(old)

    async def enter(
        self,
        grant: Grant,
        plan: Plan,
        envelope: Envelope,
        prices: Prices,
        *,
        spends: bool = True,
        part: bool = False,
    ) -> Pass:
        """Let a request in and reserve what it may use, everywhere or nowhere.

        spends: it is to be answered; else it is only counted.
        part: of a request that is in already; it is not counted as another, but has tokens and a price.
        Raises LimitReached, and Forbidden when there is a budget and nobody knows what the model costs.
        """
        bound = self._bound(grant, plan)
        if part:
            bound = _as_part(bound)
        anthropic = envelope.dialect == "messages"
        need = 0
        if bound.paying and spends:
            plan, need = _priced(plan, envelope, prices)
        tokens = estimate.likely(envelope) if spends and bound.counts_tokens else 0.0
        given = Pass(plan, spends)
        try:
            store = self._shared
            if store is None or not store.up or not await _enter(store, given, bound, tokens, anthropic=anthropic):
                now = asyncio.get_running_loop().time()
                entry = given.entry = self._counters.enter(bound.states, tokens, now)
                given.standing = Standing(entry.requests, entry.tokens, anthropic)
            if need:
                try:
                    given.reservation = await self.budgets.reserve(lines(bound.paying, time.time()), need)
                except BaseException:
                    self._undo(given)
                    given.standing = given.standing.undone(given.reserved)
                    raise
        except Refused as e:
            e.error.headers = _texts(Standing(*e.levels, anthropic))
            raise e.error from None
        except BudgetReached as e:
            e.headers = _texts(given.standing)
            raise
        return given

    def leave(self, given: Pass, visit: Visit, *, whole: bool) -> None:
        """Settle a request that is over; where somebody worked whose usage is not known, what was reserved stays spent.

        whole: all of its answer was sent, so that what its usage does not say is nothing.
        """
        usage, answered = visit.usage, visit.answered
        used: float | None = None
        if not given.spends or (answered is None and not visit.lost):
            used = 0.0
        elif usage is not None and (usage.output_tokens is not None or (whole and usage.input_tokens is not None)):
            used = float(max((usage.input_tokens or 0) + (usage.output_tokens or 0), 0))
        if used is not None and answered is not None and answered.account is not None:
            # What a user's own provider says of its usage is theirs to choose.
            used = min(used, given.reserved)
        if given.entry is not None:
            self._counters.leave(given.entry, used, asyncio.get_running_loop().time())
        elif given.held is not None and given.store is not None:
            given.store.leave(given.held, used)
        if given.reservation is not None:
            costs = spent(visit)
            amount = given.reservation.amount
            self.budgets.settle(given.reservation, max((amount if cost is None else cost for cost in costs), default=0))

    async def standings(self, accounts: Sequence[Account]) -> list[tuple[float, float, float]]:
        """Of each account the requests and tokens that are left, and the requests under way."""
        if self._shared is not None and self._shared.up:
            try:
                return await self._shared.look(accounts)
            except Away:
                pass
        now = asyncio.get_running_loop().time()
        return [
            (
                state.requests.fill(now) if state.requests is not None else 0.0,
                state.tokens.fill(now) if state.tokens is not None else 0.0,
                float(state.under_way),
            )
            for state in self._counters.states(accounts, now)
        ]

    def accounts(self, grant: Grant, plan: Plan | None) -> tuple[Account, ...]:
        """Everything that binds a caller, or their requests for a model."""
        if plan is None:
            return bindings(self._limits, grant)
        return bindings(self._limits, grant, plan.requested, plan.routes[0].name)

    async def aclose(self) -> None:
        """Write down what is not written yet, and let go of the server."""
        await self.budgets.aclose()
        for store in (*self._left, self._shared):
            if store is not None:
                await store.aclose()

    def _undo(self, given: Pass) -> None:
        if given.entry is not None:
            self._counters.undo(given.entry, asyncio.get_running_loop().time())
        elif given.held is not None and given.store is not None:
            given.store.undo(given.held)

    def _bound(self, grant: Grant, plan: Plan) -> Bound:
        principal = grant.principal
        # Names that clients may make up count only where there are limits by model.
        requested, route = (plan.requested, plan.routes[0].name) if self._limits.models else ("", "")
        key = (grant.key_id, principal.id, principal.tenant, grant.limit, requested, route)
        found = self._bounds.get(key)
        if found is None:
            found = self._bounds[key] = self._bind(grant, requested, route)
        return found

    def _bind(self, grant: Grant, requested: str, route: str) -> Bound:
        now = asyncio.get_running_loop().time()
        if self._counters.crowded():
            self._counters.forget(now)
            self._bounds.clear()
        elif len(self._bounds) >= KNOWN_MAX:
            self._bounds.clear()
        accounts = bindings(self._limits, grant, requested, route)
        counted = tuple(account for account in accounts if account.counted)
        return Bound(
            counted=counted,
            states=self._counters.states(counted, now),
            counts_tokens=any(account.limit.tokens_per_minute is not None for account in counted),
            paying=tuple(a for a in accounts if a.budget("day") is not None or a.budget("month") is not None),
        )


def _as_part(bound: Bound) -> Bound:
    """What of it binds a part of a request that is in already."""
    limited = [n for n, account in enumerate(bound.counted) if account.limit.tokens_per_minute is not None]
    counted = [bound.counted[n] for n in limited]
    replace = msgspec.structs.replace
    return Bound(
        counted=tuple(
            replace(account, limit=replace(account.limit, requests_per_minute=None, concurrent=None))
            for account in counted
        ),
        states=tuple(bound.states[n].tokens_only() for n in limited),
        counts_tokens=bound.counts_tokens,
        paying=bound.paying,
    )


async def _enter(store: Shared, given: Pass, bound: Bound, tokens: float, *, anthropic: bool) -> bool:
    """Whether it could be asked; then the request is in.  Raises LimitReached."""
    if not bound.counted:
        return True
    try:
        held = given.held = await store.enter(bound.counted, tokens)
    except Away:
        return False
    given.store = store
    given.standing = Standing(held.requests_level, held.tokens_level, anthropic)
    return True


def _priced(plan: Plan, envelope: Envelope, prices: Prices) -> tuple[Plan, int]:
    """The plan with the routes whose price is known, and what the dearest costs at most.  Raises Forbidden."""
    asked, answer = estimate.most(envelope)
    routes, need = [], 0
    for route in plan.routes:
        if route.account is not None:
            routes.append(route)  # a user's own key: it is their money
            continue
        tariff = prices.of(route.backend.name, route.model)
        window = route.context_length
        cost = None if tariff is None else tariff.most(asked if window is None else min(asked, window), answer)
        if cost is None:
            continue
        routes.append(route)
        need = max(need, cost)
    if not routes:
        raise Forbidden(
            f"There is a budget, and nobody knows what the model '{plan.requested[:200]}' costs. An operator can say "
            f"it in the configuration, under prices.{plan.routes[0].name[:200]}.",
            param="model",
            code="price_unknown",
        )
    return plan if len(routes) == len(plan.routes) else msgspec.structs.replace(plan, routes=tuple(routes)), need


def _texts(standing: Standing) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in standing.over(())]


def _shared(limits: Limits) -> Shared | None:
    return None if limits.store == "memory" else Shared(limits.store)
