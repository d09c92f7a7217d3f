"""A desk where requests of keys are let in, one after the other."""

import asyncio

from compat.canonical.error import LimitReached
from compat.canonical.principal import Principal
from compat.canonical.request import Envelope
from gateway.auth.principal import Grant
from gateway.limits.binding import bindings
from gateway.limits.counters import Counters, Entry, Refused, State
from gateway.limits.estimate import likely
from gateway.settings import Limit, Limits


def grant(key: str | None = "k", user: str | None = None, tenant: str = "acme", limit: Limit | None = None) -> Grant:
    return Grant(principal=Principal(id=user or key or "me", tenant=tenant), key_id=key, limit=limit)


class Desk:
    """Counts by a configuration in this process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()

    def states(self, key: str = "k") -> tuple[State, ...]:
        now = asyncio.get_running_loop().time()
        if self.counters.crowded():
            self.counters.forget(now)
        return self.counters.states(bindings(self.limits, grant(key)), now)

    def enter(self, envelope: Envelope, key: str = "k") -> Entry:
        return self.counters.enter(self.states(key), likely(envelope), asyncio.get_running_loop().time())

    def tokens_left(self) -> float:
        tokens = self.states()[0].tokens
        assert tokens is not None
        return tokens.fill(asyncio.get_running_loop().time())

    def try_in(self, envelope: Envelope, key: str = "k") -> Entry | LimitReached:
        try:
            return self.enter(envelope, key)
        except Refused as e:
            return e.error

    def leave(self, entry: Entry, used: float | None) -> None:
        self.counters.leave(entry, used, asyncio.get_running_loop().time())


def desk(
    requests_per_minute: int | None = None, tokens_per_minute: int | None = None, concurrent: int | None = None
) -> Desk:
    limit = Limit(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent)
    return Desk(Limits(default=limit))
