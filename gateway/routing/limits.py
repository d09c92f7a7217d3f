"""What a key may use: requests and tokens a minute, and requests at once.

Tokens are reserved by an estimate when a request begins, and settled when its usage is known, so that
many at once cannot pass a limit that each alone respects.
"""

import asyncio

from msgspec import Struct

from compat.canonical.error import LimitReached
from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from gateway.settings import Limit, Limits

BYTES_PER_TOKEN = 4
ANSWER_TOKENS = 256
"""Reserved for an answer whose length the request does not bound."""
KNOWN_MAX = 10_000
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
"""Fields that bound an answer's length."""


class _Bucket:
    """Refills evenly over a minute; its time is given."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.size = float(per_minute)
        self._left = self.size
        self._at = now

    def left(self, now: float) -> float:
        self._left = min(self.size, self._left + (now - self._at) * self.size / 60)
        self._at = now
        return self._left

    def wait_s(self, amount: float, now: float) -> float:
        """Until so much is there; 0 if it is."""
        missing = min(amount, self.size) - self.left(now)
        return missing * 60 / self.size if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self._left -= amount


class _Account(Struct):
    requests: _Bucket | None
    tokens: _Bucket | None
    under_way: int = 0


class Pass(Struct):
    """A request that was let in."""

    account: _Account
    reserved: float


class Limiter:
    """Counts in this process."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.default
        self._accounts: dict[str, _Account] = {}

    @property
    def idle(self) -> bool:
        """Nothing is limited."""
        return self._limit == Limit()

    def adopt(self, limits: Limits) -> None:
        """From now on by these limits; if they are others, counting begins anew."""
        if limits.default != self._limit:
            self._limit = limits.default
            self._accounts.clear()

    def enter(self, key: str, envelope: Envelope) -> Pass:
        """Let a request in and reserve what it may use.  Raises LimitReached, reserving nothing."""
        now = asyncio.get_running_loop().time()
        account = self._accounts.get(key) or self._open(key, now)
        if self._limit.concurrent is not None and account.under_way >= self._limit.concurrent:
            raise LimitReached(
                f"This key may have {self._limit.concurrent} requests under way at once.", retry_after_s=1.0
            )
        if account.requests is not None and (wait_s := account.requests.wait_s(1, now)):
            raise LimitReached(
                f"This key may make {self._limit.requests_per_minute} requests a minute.", retry_after_s=wait_s
            )
        reserved = 0.0
        if account.tokens is not None:
            reserved = min(_estimate(envelope), account.tokens.size)
            if wait_s := account.tokens.wait_s(reserved, now):
                error = LimitReached(
                    f"This key may use {self._limit.tokens_per_minute} tokens a minute.", retry_after_s=wait_s
                )
                error.type = "tokens"
                raise error
            account.tokens.take(reserved)
        if account.requests is not None:
            account.requests.take(1)
        account.under_way += 1
        return Pass(account=account, reserved=reserved)

    def leave(self, given: Pass, usage: Usage | None, *, answered: bool) -> None:
        """Settle a request that is over.

        answered: a backend worked on it; where its usage is not known, what was reserved stays spent.
        """
        given.account.under_way -= 1
        if given.account.tokens is None:
            return
        if usage is not None:
            used = float((usage.input_tokens or 0) + (usage.output_tokens or 0))
        else:
            used = given.reserved if answered else 0.0
        given.account.tokens.take(used - given.reserved)

    def _open(self, key: str, now: float) -> _Account:
        if len(self._accounts) >= KNOWN_MAX:
            self._accounts = {k: a for k, a in self._accounts.items() if a.under_way}
        limit = self._limit
        account = self._accounts[key] = _Account(
            requests=_Bucket(limit.requests_per_minute, now) if limit.requests_per_minute else None,
            tokens=_Bucket(limit.tokens_per_minute, now) if limit.tokens_per_minute else None,
        )
        return account


def _estimate(envelope: Envelope) -> float:
    named = (bytes(envelope.fields.get(name, b"")) for name in _BOUNDS)
    # Cut: numbers without end are neither to be read nor to be added to a float.
    asked = next((int(number[:12]) for number in named if number.isdigit()), ANSWER_TOKENS)
    return len(envelope.body) / BYTES_PER_TOKEN + asked
