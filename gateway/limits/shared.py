"""The same counting for several processes: in Valkey, by one script a request, on the server's clock.

All accounts of a request are read and written by one script, so they must be on one server: a cluster, which spreads
keys over several, is not supported.  Requests under way are leases that run out unless they are renewed, so those of
a process that was killed are free again soon.  Commands that come while others are under way go together in the next
round trip.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from gateway.limits.binding import Account
from gateway.limits.counters import OWED_MAX, Level, Refused, tightest
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from valkey.asyncio import Valkey

PREFIX = "pluggably:limits:"
CONNECT_S, ANSWER_S = 0.5, 1.0
"""How long a server may take that is there; one that takes longer is left alone until it answers again."""
PROBE_S = 1.0
LEASE_S, RENEW_S = 45, 15
"""How long a request under way is counted without word from its process, and how often that gives it."""
ROUND_MAX = 200
"""Commands in one round trip."""

_LEFT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function left(key, unit, size)
  local kept = redis.call('HMGET', key, unit, unit .. '_at', unit .. '_size')
  if not kept[1] then return size end
  local was = tonumber(kept[3])
  local filled = math.min(was, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * was / 60)
  if was == size then return filled end
  return math.max(size - (was - filled), math.min(filled, 0))
end
local function put(key, unit, size, amount)
  local text = string.format('%.17g', amount)
  redis.call('HSET', key, unit, text, unit .. '_at', string.format('%.17g', now), unit .. '_size', size)
  local lasts = math.ceil((size - amount) * 60 / size) + 60
  if redis.call('TTL', key) < lasts then redis.call('EXPIRE', key, lasts) end
end
"""
# Per account the keys of its sums and its leases, and its three limits, 0 for none.
# Answers 1, or 0 with account, unit and wait; then what is left in each account of requests and tokens.
_ENTER = f"""{_LEFT}
local only_look, tokens, lease, lasts = ARGV[1] == 'look', tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local accounts = #KEYS / 2
local requests, rests, longest, lacking, unit = {{}}, {{}}, 0, 0, ''
for i = 1, accounts do
  local sums, leases = KEYS[2 * i - 1], KEYS[2 * i]
  local rpm, tpm, most = tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4])
  if rpm > 0 then
    requests[i] = left(sums, 'requests', rpm)
    local wait = (1 - requests[i]) * 60 / rpm
    if wait > 1e-9 and wait > longest then longest, lacking, unit = wait, i, 'requests' end
  end
  if tpm > 0 then
    rests[i] = left(sums, 'tokens', tpm)
    local wait = (math.min(tokens, tpm) - rests[i]) * 60 / tpm
    if wait > 1e-9 and wait > longest then longest, lacking, unit = wait, i, 'tokens' end
  end
  if most > 0 then
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    if redis.call('ZCARD', leases) >= most and longest < 1 then longest, lacking, unit = 1, i, 'concurrent' end
  end
end
local answer
if longest > 0 then
  answer = {{'0', tostring(lacking - 1), unit, string.format('%.17g', longest)}}
else
  answer = {{'1', '', '', ''}}
end
for i = 1, accounts do
  local sums, leases = KEYS[2 * i - 1], KEYS[2 * i]
  local rpm, tpm, most = tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4])
  if longest == 0 and not only_look then
    if rpm > 0 then
      requests[i] = requests[i] - 1
      put(sums, 'requests', rpm, requests[i])
    end
    if tpm > 0 then
      rests[i] = rests[i] - math.min(tokens, tpm)
      put(sums, 'tokens', tpm, rests[i])
    end
    if most > 0 then
      redis.call('ZADD', leases, now + lasts, lease)
      redis.call('EXPIRE', leases, lasts + 60)
    end
  end
  answer[#answer + 1] = requests[i] and string.format('%.17g', requests[i]) or ''
  answer[#answer + 1] = rests[i] and string.format('%.17g', rests[i]) or ''
  answer[#answer + 1] = only_look and most > 0 and tostring(redis.call('ZCARD', leases)) or ''
end
return answer
"""
# Per account its two keys, the sizes of its sums (0: as they are), and what is given back of them.  Below 0 it is
# owed, and never more than OWED_MAX.
_LEAVE = f"""{_LEFT}
for i = 1, #KEYS / 2 do
  local sums = KEYS[2 * i - 1]
  redis.call('ZREM', KEYS[2 * i], ARGV[1])
  for n, unit in ipairs({{'requests', 'tokens'}}) do
    local size, back = tonumber(ARGV[4 * i - 4 + 2 * n]), tonumber(ARGV[4 * i - 3 + 2 * n])
    if size > 0 and back ~= 0 then
      local rest = left(sums, unit, size)
      put(sums, unit, size, math.max(math.min(size, rest + back), math.min(rest, -{OWED_MAX} * size)))
    end
  end
end
return 1
"""
_RENEW = f"""{_LEFT}
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', now + tonumber(ARGV[1]), ARGV[i + 1])
  redis.call('EXPIRE', KEYS[i], tonumber(ARGV[1]) + 60)
end
return 1
"""
_Keys = list[str]
_Arguments = list[str | int | float]


class Away(Exception):
    """Nobody counts there now."""


class Held(Struct):
    """A request that was let in: where, and what was reserved for it."""

    accounts: Sequence[Account]
    lease: str
    tokens: float
    requests_level: Level | None
    tokens_level: Level | None


class _Command(Struct):
    script: str
    keys: _Keys
    arguments: _Arguments
    answer: "asyncio.Future[list[bytes]]"
    unheard: Callable[[list[bytes]], None] | None = None
    """Takes an answer that nobody waits for any more."""


class Shared:
    """Counts on a server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.up = True
        """False while the server does not answer."""
        self._client: Valkey | None = None
        self._commands: list[_Command] = []
        self._draining: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._leases: dict[str, _Keys] = {}
        self._name = os.urandom(8).hex()
        self._number = 0

    async def enter(self, accounts: Sequence[Account], tokens: float) -> Held:
        """Let a request in and reserve what it may use.  Raises LimitReached, reserving nothing, or Away."""
        self._number += 1
        lease = f"{self._name}:{self._number}"

        def unheard(answer: list[bytes]) -> None:
            if answer[0] == b"1":
                self._give_back(Held(accounts, lease, tokens, None, None), 0.0, undo=True)

        command = self._command(_ENTER, _keys(accounts), ["enter", tokens, lease, LEASE_S, *_limits(accounts)])
        command.unheard = unheard
        try:
            answer = await command.answer
        except asyncio.CancelledError:
            if not command.answer.cancelled() and command.answer.exception() is None:
                unheard(command.answer.result())
            raise
        requests, rests = _levels(accounts, answer)
        if answer[0] == b"0":
            lacking, unit, wait_s = accounts[int(answer[1])], answer[2].decode(), float(answer[3])
            raise Refused(lacking, unit, wait_s, tokens, tightest(requests), tightest(rests))
        if leased := [_key(account) + ":leases" for account in accounts if account.limit.concurrent]:
            self._leases[lease] = leased
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        return Held(accounts, lease, tokens, tightest(requests), tightest(rests))

    def leave(self, held: Held, used: float | None) -> None:
        """Settle a request that is over.  used: its tokens; None keeps what was reserved spent."""
        self._give_back(held, used, undo=False)

    def undo(self, held: Held) -> None:
        """As if a request had never been let in."""
        self._give_back(held, 0.0, undo=True)

    async def look(self, accounts: Sequence[Account]) -> list[tuple[float, float, float]]:
        """Of each account the requests and tokens that are left, and the requests under way.  Raises Away."""
        arguments: _Arguments = ["look", 0, "", LEASE_S, *_limits(accounts)]
        answer = await self._command(_ENTER, _keys(accounts), arguments).answer
        parts = [float(part or 0) for part in answer[4:]]
        return [(parts[n], parts[n + 1], parts[n + 2]) for n in range(0, len(parts), 3)]

    async def aclose(self) -> None:
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=2 * ANSWER_S)
        for task in (self._draining, self._probing, self._renewing):
            if task is not None:
                task.cancel()
        if self._client is not None:
            await self._client.aclose()

    def _give_back(self, held: Held, used: float | None, *, undo: bool) -> None:
        self._leases.pop(held.lease, None)
        back: _Arguments = []
        for account in held.accounts:
            limit = account.limit
            tokens = 0.0
            if limit.tokens_per_minute and used is not None:
                tokens = min(held.tokens, limit.tokens_per_minute) - used
            back += [limit.requests_per_minute or 0, int(undo), limit.tokens_per_minute or 0, tokens]
        if self.up:
            command = self._command(_LEAVE, _keys(held.accounts), [held.lease, *back])
            command.answer.add_done_callback(_heard)

    def _command(self, script: str, keys: _Keys, arguments: _Arguments) -> _Command:
        command = _Command(script, keys, arguments, asyncio.get_running_loop().create_future())
        self._commands.append(command)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return command

    async def _drain(self) -> None:
        try:
            while self._commands:
                first, self._commands = self._commands[:ROUND_MAX], self._commands[ROUND_MAX:]
                commands = [command for command in first if not command.answer.cancelled()]
                if not commands:
                    continue
                try:
                    if not self.up:
                        raise Away
                    answers = await self._sent(commands)
                except Exception as e:  # whatever it is, those who wait are told
                    self._lose(e)
                    answers = [Away()] * len(commands)
                for command, answer in zip(commands, answers, strict=True):
                    if isinstance(answer, Exception) and not isinstance(answer, Away):
                        self._lose(answer)
                        answer = Away()
                    if command.answer.done():
                        if command.unheard is not None and not isinstance(answer, Away):
                            command.unheard(answer)
                    elif isinstance(answer, Away):
                        command.answer.set_exception(answer)
                    else:
                        command.answer.set_result(answer)
        finally:
            self._draining = None

    async def _sent(self, commands: Sequence[_Command]) -> list[Any]:
        """Their answers or errors, of one round trip."""
        client = await self._connected()
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            arguments = cast("list[str]", command.arguments)
            pipeline.evalsha(_SHA[command.script], len(command.keys), *command.keys, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        from valkey.exceptions import NoScriptError

        if any(isinstance(answer, NoScriptError) for answer in answers):
            # The server was started anew: it knows nothing, and did nothing.
            await self._teach(client)
            again = [command for command, a in zip(commands, answers, strict=True) if isinstance(a, NoScriptError)]
            late = iter(await self._sent(again))
            answers = [next(late) if isinstance(answer, NoScriptError) else answer for answer in answers]
        return answers

    async def _connected(self) -> "Valkey":
        if self._client is None:
            from valkey.asyncio import Valkey

            client = Valkey.from_url(self.url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S)
            await self._teach(client)
            self._client = client
        return self._client

    async def _teach(self, client: "Valkey") -> None:
        for script in _SHA:
            await client.script_load(script)

    def _lose(self, error: Exception) -> None:
        if self.up and not isinstance(error, Away):
            self.up = False
            logger().warning("limits_store_lost", error=type(error).__name__, counting="in this process")
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while not self.up:
            await asyncio.sleep(PROBE_S)
            with suppress(Exception):  # as above
                await self._teach(await self._connected())
                self.up = True
        logger().warning("limits_store_back")

    async def _renew(self) -> None:
        while self._leases:
            await asyncio.sleep(RENEW_S)
            renewed = [(key, lease) for lease, keys in self._leases.items() for key in keys]
            for start in range(0, len(renewed), ROUND_MAX):
                part = renewed[start : start + ROUND_MAX]
                if self.up and part:
                    arguments: _Arguments = [LEASE_S, *(lease for _, lease in part)]
                    self._command(_RENEW, [key for key, _ in part], arguments).answer.add_done_callback(_heard)
        self._renewing = None


_SHA: Mapping[str, str] = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (_ENTER, _LEAVE, _RENEW)
}


def _heard(answer: "asyncio.Future[list[bytes]]") -> None:
    if not answer.cancelled():
        answer.exception()  # that it is away is known


def _key(account: Account) -> str:
    return PREFIX + account.id


def _keys(accounts: Sequence[Account]) -> _Keys:
    return [key for account in accounts for key in (_key(account), _key(account) + ":leases")]


def _limits(accounts: Sequence[Account]) -> _Arguments:
    return [
        number or 0
        for account in accounts
        for number in (account.limit.requests_per_minute, account.limit.tokens_per_minute, account.limit.concurrent)
    ]


def _levels(accounts: Sequence[Account], answer: Sequence[bytes]) -> tuple[list[Level], list[Level]]:
    requests, tokens = [], []
    for n, account in enumerate(accounts):
        limit, left = account.limit, answer[4 + 3 * n : 7 + 3 * n]
        if limit.requests_per_minute:
            requests.append(Level(limit.requests_per_minute, float(left[0])))
        if limit.tokens_per_minute:
            tokens.append(Level(limit.tokens_per_minute, float(left[1])))
    return requests, tokens
