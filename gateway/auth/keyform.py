"""What may be asked for when a key is made or changed, with refusals that name the field and the cure."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins
from msgspec.structs import asdict

from compat.canonical.error import InvalidRequest
from gateway.auth.keycard import moment
from gateway.checks import is_tenant, nearest
from gateway.settings import SCOPES, Limit

SCOPES_GIVEN = ("inference", "models:read")
"""Unless it is said: clients list models first."""
DAY_S = 86_400
OVERLAP_S, OVERLAP_MAX_S = DAY_S, 30 * DAY_S
"""How long the old key is taken after a rotation: unless it is said, and at most."""
LIFE_MAX_S = 36_525 * DAY_S
NAME_MAX, OWNER_MAX, PATTERN_MAX, TAG_MAX, VALUE_MAX = 100, 64, 300, 64, 256
"""Characters."""
ENTRIES_MAX = 100
"""In a list, or of tags."""

Moment = Annotated[datetime, Meta(tz=True)]


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    scopes: tuple[str, ...] = SCOPES_GIVEN
    """Most clients list the models first."""
    tenant: str = "default"
    owner: str | None = None
    """The user it stands for; None is its name."""
    models: tuple[str, ...] | None = None
    """Names it may ask for, or BACKEND/MODEL, globs allowed; None is any."""
    backends: tuple[str, ...] | None = None
    """Backends it may be answered by; None is any."""
    tags: dict[str, str] = {}
    limits: Limit | None = None
    """None is the configuration's default for keys."""
    expires_at: Moment | None = None
    expires_in_s: Annotated[int, Meta(ge=1, le=LIFE_MAX_S)] | None = None
    """The same in seconds from now."""


class KeyChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays."""

    name: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    backends: tuple[str, ...] | UnsetType | None = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    limits: Limit | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    overlap_s: Annotated[int, Meta(ge=0, le=OVERLAP_MAX_S)] = OVERLAP_S
    """How long the old key is still taken."""


def checked(form: NewKey | KeyChanges, backends: Collection[str]) -> dict[str, Any]:
    """The fields of a KeyRow that a form sets.  Raises InvalidRequest.

    backends: those that there are.
    """
    fields = {name: value for name, value in asdict(form).items() if value is not UNSET}
    if isinstance(form, NewKey):
        if fields["owner"] is None:
            if OWNER_MAX < len(form.name) <= NAME_MAX:
                raise _wrong(
                    "owner", f"the name has more than {OWNER_MAX} characters and cannot stand for it: give one"
                )
            fields["owner"] = form.name
        within_s = fields.pop("expires_in_s")
        if within_s is not None and form.expires_at is not None:
            raise _wrong("expires_in_s", "expires_at says it already; give one of the two")
        if within_s is not None:
            fields["expires_at"] = time.time() + within_s
    return {name: _CHECKS[name](value, backends) if value is not None else None for name, value in fields.items()}


def rotation(overlap_s: int) -> Rotation:
    """Raises InvalidRequest."""
    if overlap_s > OVERLAP_MAX_S:
        raise _wrong("overlap_s", f"at most {OVERLAP_MAX_S}, which is 30 days")
    return Rotation(overlap_s=overlap_s)


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the audit log: values as JSON has them."""
    told = {name: asdict(value) if isinstance(value, Limit) else value for name, value in fields.items()}
    if fields.get("expires_at") is not None:
        told["expires_at"] = to_builtins(moment(fields["expires_at"]))
    return told


def _name(name: str, _: Collection[str]) -> str:
    return _text("name", name.strip(), NAME_MAX)


def _owner(owner: str, _: Collection[str]) -> str:
    return _text("owner", owner.strip(), OWNER_MAX)


def _tenant(tenant: str, _: Collection[str]) -> str:
    if not is_tenant(tenant):
        raise _wrong("tenant", "use up to 64 letters, digits, '.', '_', '@' and '-', the first a letter or digit")
    return tenant


def _scopes(scopes: Sequence[str], _: Collection[str]) -> tuple[str, ...]:
    for n, scope in enumerate(scopes):
        if scope not in SCOPES:
            raise _wrong(f"scopes[{n}]", f"there is no scope '{scope[:50]}'; valid are {', '.join(sorted(SCOPES))}")
    if not scopes:
        raise _wrong("scopes", f"a key needs at least one; valid are {', '.join(sorted(SCOPES))}")
    return tuple(dict.fromkeys(scopes))


def _models(models: Sequence[str], _: Collection[str]) -> tuple[str, ...]:
    _count("models", models)
    for n, model in enumerate(models):
        _text(f"models[{n}]", model, PATTERN_MAX)
    return tuple(dict.fromkeys(models))


def _backends(names: Sequence[str], backends: Collection[str]) -> tuple[str, ...]:
    _count("backends", names)
    for n, name in enumerate(names):
        if name not in backends:
            raise _wrong(f"backends[{n}]", f"there is no backend '{name[:50]}'{nearest(name[:50], sorted(backends))}")
    return tuple(dict.fromkeys(names))


def _tags(tags: Mapping[str, str], _: Collection[str]) -> Mapping[str, str]:
    if len(tags) > ENTRIES_MAX:
        raise _wrong("tags", f"at most {ENTRIES_MAX}")
    for name, value in tags.items():
        _text("tags", name, TAG_MAX)
        if value:
            _text(f"tags.{name}", value, VALUE_MAX)
    return tags


def _moment(at: datetime | float, _: Collection[str]) -> float:
    seconds = at.timestamp() if isinstance(at, datetime) else at
    if not time.time() < seconds < time.time() + LIFE_MAX_S + DAY_S:
        raise _wrong("expires_at", "it must be in the future, within a hundred years; to end a key, DELETE it")
    return seconds


_CHECKS: Mapping[str, Callable[[Any, Collection[str]], Any]] = {
    "name": _name,
    "owner": _owner,
    "tenant": _tenant,
    "scopes": _scopes,
    "models": _models,
    "backends": _backends,
    "tags": _tags,
    "limits": lambda limits, _: limits,  # its type says it all
    "expires_at": _moment,
}


def _count(field: str, entries: Sequence[str]) -> None:
    if not 0 < len(entries) <= ENTRIES_MAX:
        raise _wrong(field, f"name 1 to {ENTRIES_MAX}; null is any")


def _text(field: str, text: str, most: int) -> str:
    if not text.strip():
        raise _wrong(field, "it must not be empty")
    if len(text) > most:
        raise _wrong(field, f"at most {most} characters")
    if not text.isprintable():
        raise _wrong(field, "it holds a control character; leave that out")
    return text


def _wrong(field: str, cure: str) -> InvalidRequest:
    end = "" if cure.endswith("?") else "."
    return InvalidRequest(f"Invalid value for '{field}': {cure}{end}", param=field, code="invalid_value")
