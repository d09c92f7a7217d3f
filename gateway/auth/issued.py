"""Issued keys: what one is made of, and what one is good for.

A key is `sk-gw-PREFIX_SECRET`: 48 random bits that may be shown and name its row, then 256 that may not.
Kept is an HMAC of the whole under the gateway's pepper.  What the database said is believed for a minute,
which is how long another process may take to notice a change; here a change takes effect at once.
"""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from typing import Protocol, TypeVar

from msgspec import Struct

from compat.canonical.error import Overloaded
from compat.canonical.principal import Principal
from gateway.auth.principal import Grant, expanded
from gateway.db.keys import Candidate, KeyRow
from gateway.telemetry.logging import logger

KNOWN_S = 60.0
"""How long the database's word is believed."""
UNKNOWN_S = 3.0
"""The same of its word that there is no such key."""
KNOWN_MAX = 10_000
LOOKUP_S = 5.0
"""How long a lookup may take before nobody can tell."""
USED_S = 60.0
"""How often a key's last use is written down."""
FLUSH_S = 2.0
"""How long uses are collected, to be written together."""

LOOKUPS = 4
"""At once: strangers who try keys must not take every connection."""

T = TypeVar("T")

_shape = re.compile(r"sk-gw-([0-9a-f]{12})_[0-9a-f]{64}").fullmatch


class Minted(Struct, frozen=True):
    """A new key.  Its text is shown once and kept nowhere."""

    text: str
    prefix: str
    mac: str


def mint(pepper: bytes) -> Minted:
    prefix = secrets.token_hex(6)
    text = f"sk-gw-{prefix}_{secrets.token_hex(32)}"
    return Minted(text, prefix, _mac(text, pepper).hex())


class Rows(Protocol):
    async def candidates(self, prefix: str) -> list[Candidate]: ...
    async def used(self, at: Mapping[str, float]) -> None: ...


class _Known(Struct, frozen=True):
    grant: Grant
    until: float
    """On the loop's clock."""


class IssuedKeys:
    def __init__(self, rows: Rows, pepper: bytes) -> None:
        self._rows = rows
        self._pepper = pepper
        self._known: dict[bytes, _Known] = {}
        """By the key's MAC, oldest first; so are the next two."""
        self._unknown: dict[bytes, float] = {}
        """Until when, on the loop's clock."""
        self._asking: dict[bytes, asyncio.Task[Grant | None]] = {}
        self._changes = 0
        """Counted, so that what was read before a change is not kept after it."""
        self._places = asyncio.Semaphore(LOOKUPS)
        self._answers = True
        """The database did, when it was asked last."""
        self._used: dict[str, float] = {}
        self._fresh = asyncio.Event()

    async def grant(self, key: str) -> Grant | None:
        """What a key is good for; None when it is unknown, wrong, expired or revoked: nobody is told which.

        Raises Overloaded when the database cannot say, and has not said within the last minute.
        """
        shape = _shape(key)
        if shape is None:
            return None
        mac = _mac(key, self._pepper)
        now = asyncio.get_running_loop().time()
        known = self._known.get(mac)
        if known is not None and now < known.until:
            return known.grant
        if now < self._unknown.get(mac, now):
            return None
        asking = self._asking.get(mac)
        if asking is None:
            # A task of its own: many may wait for it, and none who leaves takes it from the others.
            asking = self._asking[mac] = asyncio.create_task(self._ask(shape[1], mac))
            asking.add_done_callback(lambda done: self._asked(mac, done))
        await asyncio.wait({asking})
        if asking.cancelled() or asking.exception() is not None:
            raise Overloaded(
                "API keys cannot be checked right now; try again.", code="auth_unavailable", retry_after_s=1.0
            )
        return asking.result()

    def forget(self, id_: str) -> None:
        """A key was changed, rotated or revoked: the next request with it asks the database."""
        self._changes += 1
        self._known = {mac: known for mac, known in self._known.items() if known.grant.key_id != id_}
        self._unknown.clear()
        self._asking.clear()

    async def write(self) -> None:
        """Write down when keys were used, until cancelled; what is left then is written before it returns."""
        try:
            while True:
                await self._fresh.wait()
                await asyncio.sleep(FLUSH_S)
                await self._flush()
        finally:
            await self._flush()

    async def _ask(self, prefix: str, mac: bytes) -> Grant | None:
        began, changes = asyncio.get_running_loop().time(), self._changes
        async with asyncio.timeout(LOOKUP_S), self._places:
            candidates = await self._rows.candidates(prefix)
        now = time.time()
        found: Candidate | None = None
        # Compared in the same way whether there is such a prefix or not.
        for candidate in candidates or [_NOBODY]:
            if hmac.compare_digest(candidate.mac, mac.hex()):
                found = candidate
        until = began + KNOWN_S
        if found is not None and found.expires_at is not None:
            until = min(until, began + found.expires_at - now)
        if found is None or not found.row.active(now) or until <= began:
            if changes == self._changes:
                _keep(self._unknown, mac, began + UNKNOWN_S)
            return None
        grant = _grant(found.row)
        if changes == self._changes:
            _keep(self._known, mac, _Known(grant, until))
        self._note_use(found.row, now)
        return grant

    def _asked(self, mac: bytes, done: asyncio.Task[Grant | None]) -> None:
        if self._asking.get(mac) is done:
            del self._asking[mac]
        if done.cancelled():
            return
        failed = done.exception()
        # Once for each outage: requests come by the thousand.
        if failed is not None and self._answers:
            logger().error("keys_unavailable", error=type(failed).__name__)
        elif failed is None and not self._answers:
            logger().info("keys_available")
        self._answers = failed is None

    def _note_use(self, row: KeyRow, now: float) -> None:
        last = max(row.last_used_at or 0.0, self._used.get(row.id, 0.0))
        if now - last >= USED_S - 1 and len(self._used) < KNOWN_MAX:
            self._used[row.id] = now
            self._fresh.set()

    async def _flush(self) -> None:
        used, self._used = self._used, {}
        self._fresh.clear()
        if not used:
            return
        try:
            await self._rows.used(used)
        except Exception as e:
            logger().error("key_use_write_failed", error=type(e).__name__, keys=len(used))
            self._used = used | self._used


def _keep(cache: dict[bytes, T], mac: bytes, value: T) -> None:
    cache.pop(mac, None)
    if len(cache) >= KNOWN_MAX:
        del cache[next(iter(cache))]
    cache[mac] = value


def _grant(row: KeyRow) -> Grant:
    return Grant(
        principal=Principal(id=row.owner, tenant=row.tenant, scopes=expanded(row.scopes)),
        key_id=row.id,
        models=row.models,
        backends=None if row.backends is None else frozenset(row.backends),
        limit=row.limits,
    )


def _mac(key: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, key.encode(), "sha256")


_NOBODY = Candidate(
    KeyRow(id="", tenant="", owner="", name="", prefix="", scopes=(), created_at=0.0, created_by=""),
    secrets.token_hex(32),
    None,
)
