"""Giving keys out and changing them: what the HTTP resource and the command line have in common."""

import re
import time
from collections.abc import Awaitable, Collection, Mapping
from typing import Any, Literal

from msgspec import Struct

from compat.canonical.error import Conflict, NotFound
from gateway.auth.issued import IssuedKeys, Minted, mint
from gateway.auth.keyform import KeyChanges, NewKey, checked, plain
from gateway.db.audit import Act
from gateway.db.keys import KeyRow, KeyRows
from gateway.visit import new_id

_id = re.compile(r"key_[0-9a-f]{32}").fullmatch


class By(Struct, frozen=True, kw_only=True):
    """Who changes something."""

    actor: str
    key_id: str | None = None
    """The key that they came with."""
    request_id: str | None = None
    own: Literal["gateway", "cli"] | None = None
    """Not a user who came in by the front door, whatever users are called."""

    def signed(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """An act's detail, and how its author came to it."""
        by = {"by": self.own, "by_key": self.key_id}
        return {**detail, **{name: value for name, value in by.items() if value is not None}}

    def act(self, action: str, target: str, tenant: str, detail: Mapping[str, Any] = {}) -> Act:
        """What they have done, as it is written down."""
        return Act(
            actor=self.actor,
            action=action,
            target=target,
            tenant=tenant,
            request_id=self.request_id,
            detail=self.signed(detail),
        )


SYSTEM = By(actor="system", own="gateway")
"""The gateway itself."""


class Registrar:
    """Every change is checked, written down with its author, and in force here when it returns."""

    def __init__(self, rows: KeyRows, pepper: bytes, issued: IssuedKeys | None = None) -> None:
        self.rows = rows
        self._pepper = pepper
        self._issued = issued
        """Who must know at once; None where no gateway runs."""

    async def create(self, form: NewKey, backends: Collection[str], by: By) -> tuple[KeyRow, str]:
        """A new key, and its text.  Raises InvalidRequest."""
        row, made, act = self._made(form, backends, by)
        await self.rows.add(row, made.mac, act)
        return row, made.text

    async def first_admin(self) -> tuple[KeyRow, str] | None:
        """A key that may do everything, unless there is an active one."""
        row, made, act = self._made(NewKey(name="admin", scopes=("admin",)), (), SYSTEM)
        return (row, made.text) if await self.rows.add_first_admin(row, made.mac, act) else None

    async def get(self, id_: str) -> KeyRow:
        """Raises NotFound."""
        row = await self.rows.get(id_) if _id(id_) else None
        if row is None:
            raise NotFound(f"There is no key of the id '{id_[:100]}'; GET /v1/keys lists them all.")
        return row

    async def change(self, id_: str, form: KeyChanges, backends: Collection[str], by: By) -> KeyRow:
        """Raises InvalidRequest, NotFound, or Conflict when it is revoked."""
        row = await self.get(id_)
        fields = checked(form, backends)
        if not fields:
            return row
        return await self._changed(row, self.rows.change(id_, fields, _act("update", row, by, plain(fields))))

    async def rotate(self, id_: str, overlap_s: int, by: By) -> tuple[KeyRow, str]:
        """Another text for a key; the old one is taken for so long.  Raises NotFound, or Conflict when it has ended."""
        row, now, made = await self.get(id_), time.time(), mint(self._pepper)
        if row.revoked_at is None and not row.active(now):
            raise Conflict(f"The key '{id_}' has expired; give it a later 'expires_at' first.")
        act = _act("rotate", row, by, {"overlap_s": overlap_s, "prefix": made.prefix})
        until = now + overlap_s if overlap_s else None
        return await self._changed(row, self.rows.rotate(id_, made.prefix, made.mac, until, act)), made.text

    async def revoke(self, id_: str, by: By) -> KeyRow:
        """End a key for good; one that is revoked stays so.  Raises NotFound."""
        row = await self.get(id_)
        if row.revoked_at is None:
            try:
                await self.rows.revoke(id_, _act("revoke", row, by, {"name": row.name}))
            finally:
                self._forget(id_)
            row = await self.get(id_)
        return row

    def _made(self, form: NewKey, backends: Collection[str], by: By) -> tuple[KeyRow, Minted, Act]:
        fields, made = checked(form, backends), mint(self._pepper)
        row = KeyRow(id=new_id("key"), prefix=made.prefix, created_at=time.time(), created_by=by.actor[:64], **fields)
        told = {name: value for name, value in plain(fields).items() if value is not None}
        return row, made, _act("create", row, by, told | {"prefix": made.prefix})

    async def _changed(self, row: KeyRow, change: Awaitable[KeyRow | None]) -> KeyRow:
        try:
            changed = await change
        finally:
            # Whatever became of it: the next request asks.
            self._forget(row.id)
        if changed is None:
            raise Conflict(f"The key '{row.id}' is revoked, which is for good; create another.")
        return changed

    def _forget(self, id_: str) -> None:
        if self._issued is not None:
            self._issued.forget(id_)


def _act(verb: str, row: KeyRow, by: By, detail: Mapping[str, Any]) -> Act:
    return by.act(f"key.{verb}", row.id, row.tenant, detail)
