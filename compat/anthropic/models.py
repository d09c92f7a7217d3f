"""Anthropic's list of models.  Source: https://platform.claude.com/docs/en/api/models/list"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from compat.body import whole_number
from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.model import Model

LIMIT, LIMIT_MAX = 20, 1000
"""Models on a page: unless the client says, and at most."""
_ABILITIES = {"image_input": "vision", "structured_outputs": "json_schema"}
"""What the catalogue calls otherwise."""


def render_model(model: Model, id_: str) -> dict[str, Any]:
    """Describe a model under the name a client asks for it by; what is unknown is null."""
    return {
        "type": "model",
        "id": id_,
        "display_name": model.name if id_ == model.id else id_,
        # A date is required; the start of time is how this dialect says that it is unknown.
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_length,
        "max_tokens": None,
        "capabilities": None,
        "lifecycle": "active",
        "line": None,
        "deprecated_at": None,
        "retires_at": None,
    }


def render_page(
    models: Sequence[dict[str, Any]], *, limit: str | None, after_id: str | None, before_id: str | None
) -> dict[str, Any]:
    """One page of a list, as a client's query asks for it.  Raises InvalidRequest."""
    size = LIMIT if limit is None else whole_number(limit, LIMIT_MAX)
    if not size:
        raise InvalidRequest(f"Input should be an integer from 1 to {LIMIT_MAX}", param="limit", code="invalid_value")
    if after_id is not None and before_id is not None:
        raise InvalidRequest("Only one of after_id and before_id can be given", param="after_id", code="invalid_value")
    ids = [model["id"] for model in models]
    begin, end = 0, len(ids)
    for name, id_ in (("after_id", after_id), ("before_id", before_id)):
        if id_ is not None and id_ not in ids:
            raise InvalidRequest("There is no model of that id", param=name, code="invalid_value")
    if after_id is not None:
        begin = ids.index(after_id) + 1
    if before_id is not None:
        end = ids.index(before_id)
        page, more = models[max(begin, end - size) : end], end - size > begin
    else:
        page, more = models[begin : begin + size], begin + size < end
    return {
        "data": list(page),
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def parse_models(body: bytes, backend: str) -> list[Model]:
    """Read a provider's list.  Raises BadResponse."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadResponse("The provider's list of models could not be read.") from e
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise BadResponse("The provider's list of models could not be read.")
    return [
        Model(
            name=row["id"],
            backend=backend,
            created=_seconds(row.get("created_at")),
            owned_by="anthropic",
            context_length=length if isinstance(length := row.get("max_input_tokens"), int) else None,
            capabilities=_abilities(row.get("capabilities")),
        )
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    ]


def _abilities(given: Any) -> tuple[str, ...]:
    """The names of what it supports, in our words: each capability is an object with `supported`."""
    if not isinstance(given, dict):
        return ()
    names: list[str] = [n for n, value in given.items() if isinstance(value, dict) and value.get("supported") is True]
    return tuple(_ABILITIES.get(name, name) for name in names)


def _seconds(written: Any) -> int:
    try:
        return max(int(datetime.fromisoformat(written).timestamp()), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
