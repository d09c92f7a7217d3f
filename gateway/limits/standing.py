"""The headers that tell a client how it stands: OpenAI's, or Anthropic's on its own paths."""

import time
from collections.abc import Sequence

from msgspec import Struct

from gateway.limits.counters import Level, duration

Header = tuple[bytes, bytes]
LATEST = 253_402_300_799.0
"""The last second of the year 9999."""


class Standing(Struct, frozen=True, gc=False):
    """What is left of the tightest limits of a request; None where nothing is limited."""

    requests: Level | None
    tokens: Level | None
    anthropic: bool

    def undone(self, tokens: float) -> "Standing":
        """As if a request that reserved so many tokens had never been let in."""
        return Standing(_more(self.requests, 1.0), _more(self.tokens, tokens), self.anthropic)

    def over(self, headers: Sequence[Header]) -> list[Header]:
        """These headers, with ours in the place of a provider's: its limits are not the client's."""
        kept = [one for one in headers if b"ratelimit-" not in one[0] or not self._replaces(one[0])]
        if self.requests is not None:
            _write(kept, b"requests", self.requests, self.anthropic)
        if self.tokens is not None:
            _write(kept, b"tokens", self.tokens, self.anthropic)
        return kept

    def _replaces(self, name: bytes) -> bool:
        ours = (b"request", self.requests), (b"token", self.tokens)
        return any(level is not None and unit in name for unit, level in ours)


def _more(level: Level | None, count: float) -> Level | None:
    return None if level is None else Level(level.size, min(level.left + min(count, level.size), level.size))


def moment(at: float) -> str:
    """A time as ISO 8601; what lies beyond the calendar is its end."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(at, LATEST)))


_NAMES = {
    (unit, False): (b"x-ratelimit-limit-" + unit, b"x-ratelimit-remaining-" + unit, b"x-ratelimit-reset-" + unit)
    for unit in (b"requests", b"tokens")
} | {
    (unit, True): tuple(b"anthropic-ratelimit-" + unit + word for word in (b"-limit", b"-remaining", b"-reset"))
    for unit in (b"requests", b"tokens")
}


def _write(headers: list[Header], unit: bytes, level: Level, anthropic: bool) -> None:
    limit, remaining, reset = _NAMES[unit, anthropic]
    left, full_in_s = int(level.left + 1e-6), (level.size - level.left) * 60 / level.size
    if anthropic:
        when = moment(time.time() + full_in_s + 0.999).encode()
    elif full_in_s <= 0.001:
        when = b"1ms"
    else:
        when = duration(full_in_s).encode()
    headers += ((limit, b"%d" % level.size), (remaining, b"%d" % left if left > 0 else b"0"), (reset, when))
