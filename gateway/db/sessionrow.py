"""A session and its turns as rows, both directions."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, RowMapping

from gateway.sessions.said import folded
from gateway.sessions.session import Session, Summary

_JSON = ("parameters", "metadata", "state", "summary")
"""Columns that hold JSON."""


class Stub(Struct, frozen=True):
    """A turn, as far as the shape of its session's tree goes."""

    id: str
    previous_id: str | None
    created_at: float
    backend: str
    model: str
    messages: int


def stub_of(row: Row[Any]) -> Stub:
    return Stub(row.id, row.previous_id, row.created_at, row.backend, row.model, row.messages or 0)


def columns(session: Session) -> dict[str, Any]:
    own = {"tenant_id": session.tenant, "owner_id": session.owner}
    return fields_of({n: v for n, v in msgspec.structs.asdict(session).items() if n not in ("tenant", "owner")}) | own


def fields_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Some fields of a session as their columns."""
    values = {name: _json(value) if name in _JSON else value for name, value in fields.items()}
    if "titled" in values:
        values["titled"] = 1 if values["titled"] else 0
    if "title" in values:
        values["words"] = None if values["title"] is None else folded(values["title"])
    return values


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def session_of(row: Row[Any] | RowMapping) -> Session:
    found = row._mapping if isinstance(row, Row) else row
    values = {name: found[name] for name in Session.__struct_fields__ if name not in ("tenant", "owner")}
    for name in _JSON:
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name], type=Summary if name == "summary" else dict)
    return Session(
        **values | {"titled": bool(values["titled"]), "tenant": found["tenant_id"], "owner": found["owner_id"]}
    )
