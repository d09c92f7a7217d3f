"""Requests and tokens a minute, and requests at once: counted in this process.

Each minute's worth refills evenly.  A request is entered in all of its accounts or in none; its tokens are reserved
by an estimate and settled when its usage is known, so that many at once cannot pass a limit that each respects.
"""

import math
from collections.abc import Sequence
from copy import copy

from msgspec import Struct

from compat.canonical.error import LimitReached
from gateway.limits.binding import Account

KNOWN_MAX = 10_000
"""Accounts that are remembered; beyond, those that lose nothing by it are forgotten first."""
AT_ONCE_WAIT_S = 1.0
"""When to ask again for a place among the requests under way: nobody knows when one ends."""
OWED_MAX = 10
"""Minutes' worth of tokens: nobody is locked out for longer by what one answer is said to have used."""
_NEARLY = 1e-9


class Level(Struct, frozen=True, gc=False):
    """What is left of a minute's worth."""

    size: int
    left: float


class Refused(Exception):
    """A limit was reached; `error` tells the client which limit of whom, and when it is over."""

    def __init__(
        self,
        account: Account,
        unit: str,
        wait_s: float,
        needed: float,
        requests: Level | None = None,
        tokens: Level | None = None,
    ) -> None:
        limit, whose = account.limit, account.whose
        if unit == "concurrent":
            said = f"may have {limit.concurrent} requests under way at once. Try again when one of them has ended."
        elif unit == "requests":
            said = f"may make {limit.requests_per_minute} requests a minute. Try again in {duration(wait_s)}."
        else:
            said = (
                f"may use {limit.tokens_per_minute} tokens a minute, and this request needs about {needed:.0f}. "
                f"Try again in {duration(wait_s)}."
            )
        super().__init__(f"{whose} {said}")
        self.error = LimitReached(str(self), retry_after_s=wait_s)
        self.error.type = "tokens" if unit == "tokens" else "requests"
        self.levels = requests, tokens
        """What is left of requests and tokens where the fewest are."""


class Bucket:
    """Refills evenly over a minute; its time is given."""

    __slots__ = ("_at", "_rate", "left", "size")

    def __init__(self, per_minute: int, now: float) -> None:
        self.size = per_minute
        self.left = float(per_minute)
        self._rate = per_minute / 60
        self._at = now

    def fill(self, now: float) -> float:
        """Let it refill; what is there then."""
        left = self.left + (now - self._at) * self._rate
        self._at = now
        self.left = left = left if left < self.size else float(self.size)
        return left

    def wait_s(self, missing: float) -> float:
        return missing / self._rate

    def resized(self, per_minute: int, now: float) -> "Bucket":
        """One of another size from which as much has been taken; only what is owed already stays owed."""
        used = self.size - self.fill(now)
        new = Bucket(per_minute, now)
        new.left = max(per_minute - used, min(self.left, 0.0))
        return new


class State:
    """An account as it stands."""

    __slots__ = ("account", "concurrent", "requests", "tokens", "under_way")

    def __init__(self, account: Account, now: float) -> None:
        limit = account.limit
        self.account = account
        self.under_way = 0
        self.concurrent = limit.concurrent
        self.requests = _bucket(None, limit.requests_per_minute, now)
        self.tokens = _bucket(None, limit.tokens_per_minute, now)

    def adapt(self, account: Account, now: float) -> None:
        """Go on under another limit."""
        limit = account.limit
        self.account, self.concurrent = account, limit.concurrent
        self.requests = _bucket(self.requests, limit.requests_per_minute, now)
        self.tokens = _bucket(self.tokens, limit.tokens_per_minute, now)

    def tokens_only(self) -> "State":
        """The account as it binds a part of a request that is in already: the same tokens, and nothing else."""
        view = copy(self)
        view.requests = view.concurrent = None
        view.under_way = 0
        return view

    def lacks(self, now: float) -> float:
        """The share of its minute that is used; 0 when forgetting it changes nothing."""
        shares = [1 - b.fill(now) / b.size for b in (self.requests, self.tokens) if b is not None]
        return max(shares, default=0.0)


class Entry(Struct, gc=False):
    """A request that was let in: where, and what was reserved for it."""

    states: Sequence[State]
    reserved: float
    """Tokens; of an account that is smaller, all of it."""
    requests: Level | None = None
    """Of the account that has the fewest left."""
    tokens: Level | None = None


class Counters:
    """Counts in this process."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def states(self, accounts: Sequence[Account], now: float) -> tuple[State, ...]:
        """How these accounts stand.  What is given out stays theirs only while they are remembered."""
        found = []
        for account in accounts:
            state = self._states.get(account.id)
            if state is None:
                state = self._states[account.id] = State(account, now)
            elif state.account.limit != account.limit:
                state.adapt(account, now)
            found.append(state)
        return tuple(found)

    def crowded(self) -> bool:
        return len(self._states) >= KNOWN_MAX

    def forget(self, now: float) -> None:
        """Make room: those under way stay, and of the others those that have used most of theirs."""
        busy = {id_: state for id_, state in self._states.items() if state.under_way}
        idle = [(state.lacks(now), id_, state) for id_, state in self._states.items() if not state.under_way]
        idle.sort(key=lambda one: one[0], reverse=True)
        kept = [one for one in idle[: KNOWN_MAX // 2] if one[0] > 0]
        self._states = busy | {id_: state for _, id_, state in kept}

    def enter(self, states: Sequence[State], tokens: float, now: float) -> Entry:
        """Let a request in and reserve what it may use.  Raises LimitReached, reserving nothing."""
        longest = 0.0
        for state in states:
            requests, bucket = state.requests, state.tokens
            if requests is not None and (missing := 1.0 - requests.fill(now)) > _NEARLY:
                wait_s = requests.wait_s(missing)
                if wait_s > longest:
                    longest, lacking, unit = wait_s, state, "requests"
            if bucket is not None:
                needed = tokens if tokens < bucket.size else bucket.size
                if (missing := needed - bucket.fill(now)) > _NEARLY:
                    wait_s = bucket.wait_s(missing)
                    if wait_s > longest:
                        longest, lacking, unit = wait_s, state, "tokens"
            if state.concurrent is not None and state.under_way >= state.concurrent and longest < AT_ONCE_WAIT_S:
                longest, lacking, unit = AT_ONCE_WAIT_S, state, "concurrent"
        if longest:
            raise Refused(lacking.account, unit, longest, tokens, *levels(states, now))
        entry = Entry(states, tokens)
        tightest_requests = tightest_tokens = None
        for state in states:
            requests, bucket = state.requests, state.tokens
            if requests is not None:
                requests.left -= 1.0
                if tightest_requests is None or requests.left < tightest_requests.left:
                    tightest_requests = requests
            if bucket is not None:
                needed = tokens if tokens < bucket.size else bucket.size
                bucket.left -= needed
                if tightest_tokens is None or bucket.left < tightest_tokens.left:
                    tightest_tokens = bucket
            state.under_way += 1
        if tightest_requests is not None:
            entry.requests = Level(tightest_requests.size, tightest_requests.left)
        if tightest_tokens is not None:
            entry.tokens = Level(tightest_tokens.size, tightest_tokens.left)
        return entry

    def leave(self, entry: Entry, used: float | None, now: float) -> None:
        """Settle a request that is over.  used: its tokens; None keeps what was reserved spent.

        Nobody comes to owe more than OWED_MAX, whatever a provider says.
        """
        reserved = entry.reserved
        for state in entry.states:
            state.under_way -= 1
            bucket = state.tokens
            if bucket is not None and used is not None:
                back = reserved if reserved < bucket.size else bucket.size
                left = bucket.fill(now)
                after = left + back - used
                if after < -OWED_MAX * bucket.size:
                    after = min(left, -OWED_MAX * bucket.size)
                bucket.left = after

    def undo(self, entry: Entry, now: float) -> None:
        """As if a request had never been let in."""
        self.leave(entry, 0.0, now)
        for state in entry.states:
            if state.requests is not None:
                state.requests.left += 1.0


def levels(states: Sequence[State], now: float) -> tuple[Level | None, Level | None]:
    """What is left where the fewest requests are, and the fewest tokens."""
    requests = [Level(s.requests.size, s.requests.fill(now)) for s in states if s.requests is not None]
    tokens = [Level(s.tokens.size, s.tokens.fill(now)) for s in states if s.tokens is not None]
    return tightest(requests), tightest(tokens)


def tightest(found: Sequence[Level]) -> Level | None:
    return min(found, key=lambda level: level.left, default=None)


def duration(seconds: float) -> str:
    """In OpenAI's way: 120ms, 1s, 6m0s; rounded up."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms > 0 else "0ms"
    whole = -(-ms // 1000)
    return f"{whole}s" if whole < 60 else f"{whole // 60}m{whole % 60}s"


def _bucket(old: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    if old is None:
        return Bucket(per_minute, now)
    return old if old.size == per_minute else old.resized(per_minute, now)
