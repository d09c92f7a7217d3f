"""The card of a key: what may be shown of it."""

import time
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict

from gateway.db.keys import KeyRow
from gateway.settings import Key, Limit

Status = Literal["active", "expired", "revoked"]


class Rotated(Struct, frozen=True):
    """The key before the last rotation, while it is still taken."""

    prefix: str
    expires_at: datetime


class ApiKey(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["api_key"] = "api_key"
    source: Literal["issued", "config"] = "issued"
    """config: it stands in the configuration file, where it is changed."""
    name: str
    prefix: str | None
    """The part of it that may be shown: the key begins with `sk-gw-` and this."""
    tenant: str
    owner: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    backends: tuple[str, ...] | None
    tags: dict[str, str] = {}
    limits: Limit | None
    status: Status = "active"
    created_at: datetime | None = None
    created_by: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""
    rotated: Rotated | None = None


class NewApiKey(ApiKey, frozen=True, kw_only=True):
    """A key at the only time when it is shown."""

    key: str


def card(row: KeyRow) -> ApiKey:
    now = time.time()
    ended: Status = "revoked" if row.revoked_at is not None else "expired"
    status: Status = "active" if row.active(now) else ended
    old, until = row.old_prefix, row.old_expires_at
    overlaps = status == "active" and until is not None and now < until
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        tenant=row.tenant,
        owner=row.owner,
        scopes=row.scopes,
        models=row.models,
        backends=row.backends,
        tags=row.tags,
        limits=row.limits,
        status=status,
        created_at=moment(row.created_at),
        created_by=row.created_by,
        expires_at=_moment(row.expires_at),
        revoked_at=_moment(row.revoked_at),
        last_used_at=_moment(row.last_used_at),
        rotated=Rotated(old, moment(until)) if overlaps and old and until else None,
    )


def new_card(row: KeyRow, text: str) -> NewApiKey:
    """text: of the key, shown this once."""
    return NewApiKey(**asdict(card(row)), key=text)


def configured(key: Key, limits: Limit | None) -> ApiKey:
    """limits: the configuration's for this key by its name."""
    return ApiKey(
        id=key.name,
        source="config",
        name=key.name,
        prefix=None,
        tenant=key.tenant,
        owner=key.name,
        scopes=key.scopes,
        models=key.models,
        backends=key.backends,
        limits=limits,
    )


def moment(at: float) -> datetime:
    """As times are written: whole seconds, UTC."""
    return datetime.fromtimestamp(int(at), UTC)


def _moment(at: float | None) -> datetime | None:
    return None if at is None else moment(at)
