"""Whether there is room for another artifact: what keys, users and tenants may take, and what all may."""

import time
from typing import TYPE_CHECKING

from compat import amount
from compat.canonical.error import InsufficientStorage, LimitReached
from gateway.auth.principal import Grant
from gateway.limits.binding import Account, bindings
from gateway.settings import Limits

if TYPE_CHECKING:
    from gateway.db.artifacts import ArtifactRows

FRESH_S = 2.0
"""How long what all take together is not counted again."""


async def check(limits: Limits, grant: Grant, rows: "ArtifactRows") -> None:
    """Raises LimitReached where somebody's artifacts take all they may."""
    for account in bindings(limits, grant):
        most = account.limit.artifact_bytes
        if most is not None and (used := await _used(account, grant, rows)) >= most:
            raise _full(account, used, most)


class Filled:
    """How full the store is, counted now and again."""

    def __init__(self, rows: "ArtifactRows") -> None:
        self._rows = rows
        self._counted: tuple[float, int] | None = None

    def add(self, size_bytes: int) -> None:
        """Something was put since it was counted."""
        if self._counted is not None:
            self._counted = self._counted[0], self._counted[1] + size_bytes

    async def check(self, most: str | int | None) -> None:
        """Raises InsufficientStorage where all artifacts together take what they may."""
        if most is None:
            return
        now = time.monotonic()
        if self._counted is None or now - self._counted[0] >= FRESH_S:
            self._counted = now, await self._rows.stored_bytes()
        if self._counted[1] >= amount.parse(most):
            raise InsufficientStorage(
                "All artifacts together take what they may (artifacts.max_bytes). Delete some by DELETE "
                "/v1/artifacts/{id}, or have the limit raised."
            )


async def _used(account: Account, grant: Grant, rows: "ArtifactRows") -> int:
    tenant, user = grant.principal.tenant, grant.principal.id
    match account.kind:
        case "key":
            return await rows.used(tenant, key_id=grant.key_id)
        case "user":
            # What a user does with keys counts for these, and for the user's own limit, but not for the token's.
            return await rows.used(tenant, owner=user, keyless=account.id.startswith("token:"))
        case _:
            return await rows.used(tenant)


def _full(account: Account, used: int, most: int) -> LimitReached:
    error = LimitReached(
        f"{account.whose} has artifacts of {used} bytes, and may have {most}. Delete some by DELETE "
        "/v1/artifacts/{id}, or have the limit (artifact_bytes) raised.",
        code="artifact_quota_exceeded",
    )
    error.type = "insufficient_quota"
    error.final = True  # another try changes nothing
    return error
