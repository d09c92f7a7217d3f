"""Anthropic's list of models.  Source: https://platform.claude.com/docs/en/api/models/list"""

from datetime import datetime
from typing import Any

import msgspec

from compat.canonical.error import BadResponse
from compat.canonical.model import Model


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
    """The names of what it supports: each capability is an object with `supported`."""
    if not isinstance(given, dict):
        return ()
    return tuple(name for name, value in given.items() if isinstance(value, dict) and value.get("supported") is True)


def _seconds(written: Any) -> int:
    try:
        return max(int(datetime.fromisoformat(written).timestamp()), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
