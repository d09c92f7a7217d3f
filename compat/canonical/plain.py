"""A request without what only the dialect it was written in understands."""

from typing import Any

from msgspec.structs import replace

from compat.canonical.error import InvalidRequest
from compat.canonical.message import Message, Opaque, Part, Reasoning, ToolResult
from compat.canonical.request import Dialect, TextRequest


def plain(request: TextRequest, dialect: Dialect) -> tuple[TextRequest, tuple[str, ...]]:
    """The request as `dialect` can say it, and the client's names for what that leaves out.

    Raises InvalidRequest for what the model was to read and would not.
    """
    if request.dialect == dialect:
        return request, ()
    lost: dict[str, None] = dict.fromkeys(telling(request.extra))
    tools = []
    for tool in request.tools:
        if isinstance(tool, Opaque):
            lost[f"tools.{tool.type}"] = None
        else:
            tools.append(_bare(tool, lost))
    messages = []
    for message in request.messages:
        lost |= dict.fromkeys(telling(message.extra))
        messages.append(replace(message, parts=_parts(message, lost), extra={}))
    stripped = replace(request, messages=tuple(messages), tools=tuple(tools), extra={}, dialect=dialect)
    return stripped, tuple(lost)


def telling(extra: dict[str, Any]) -> list[str]:
    """The names of fields that ask for something: null, false and empty ones do not."""
    return [name for name, value in extra.items() if value is not None and value is not False and value not in ("", [])]


def _parts(message: Message, lost: dict[str, None]) -> tuple[Part, ...]:
    kept: list[Part] = []
    for part in message.parts:
        if isinstance(part, Opaque):
            if message.role != "assistant":
                raise _unreadable(part)
            lost[part.type] = None
        elif isinstance(part, Reasoning):
            if part.redacted is None:
                kept.append(part)
            else:
                lost["redacted_thinking"] = None
        else:
            if isinstance(part, ToolResult):
                part = replace(part, parts=tuple(_readable(inner, lost) for inner in part.parts))
                if part.failed:
                    lost["is_error"] = None
            kept.append(_bare(part, lost))
    return tuple(kept)


def _readable(part: Any, lost: dict[str, None]) -> Any:
    if isinstance(part, Opaque):
        raise _unreadable(part)
    return _bare(part, lost)


def _bare(thing: Any, lost: dict[str, None]) -> Any:
    if not thing.extra:
        return thing
    lost |= dict.fromkeys(telling(thing.extra))
    return replace(thing, extra={})


def _unreadable(part: Opaque) -> InvalidRequest:
    return InvalidRequest(
        f"Content of type '{part.type}' cannot be carried over to this model's provider.",
        param="messages",
        code="invalid_value",
    )
