"""A request without what only the dialect it was written in understands."""

from collections.abc import Container
from typing import Any

from msgspec.structs import replace

from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Opaque, Part, Reasoning, Text, ToolResult
from compat.canonical.request import Dialect, TextRequest, Tool

HINTS = ("cache_control", "citations")
"""Of a part that is read for what it says, the fields that ask for more."""


_ALIKE: dict[tuple[Dialect, Dialect], dict[str, str]] = {
    ("responses", "chat"): {"include": "logprobs", "top_logprobs": "top_logprobs"}
}
"""From one dialect to another, the fields beyond the model that both have, by either's name."""


def plain(request: TextRequest, dialect: Dialect) -> tuple[TextRequest, tuple[str, ...]]:
    """The request as `dialect` can say it, and the client's names for what that leaves out.

    Raises InvalidRequest for what the model was to read and would not.
    """
    if request.dialect == dialect:
        return request, ()
    alike = _ALIKE.get((request.dialect, dialect), {})
    lost: dict[str, None] = dict.fromkeys(name for name in telling(request.extra) if name not in alike)
    tools = []
    gone = set()
    for tool in request.tools:
        if isinstance(tool, Opaque):
            lost[f"tools.{tool.type}"] = None
            gone.add(f"={tool.body.get('name')}")
        else:
            tools.append(_bare(_whole(tool), lost))
    choice = request.tool_choice
    if choice is not None and (not tools or choice in gone):
        # A choice among tools that are not there is refused.
        if choice not in ("auto", "none"):
            lost["tool_choice"] = None
        choice = None
    messages = []
    for message in request.messages:
        lost |= dict.fromkeys(telling(message.extra))
        parts = _parts(message, lost)
        if parts or not message.parts:  # one of which nothing is left is none
            messages.append(replace(message, parts=parts, extra={}))
    stripped = replace(
        request,
        messages=tuple(messages),
        tools=tuple(tools),
        tool_choice=choice,
        parallel_tools=request.parallel_tools if tools else None,
        extra={alike[name]: request.extra[name] for name in telling(request.extra) if name in alike},
        dialect=dialect,
    )
    return stripped, tuple(lost)


def without(request: TextRequest, fields: Container[str]) -> tuple[TextRequest, tuple[str, ...]]:
    """The request without those of `top_k` and a turn's `reasoning_content` that are among the fields, and
    the client's names for what that leaves out."""
    lost: dict[str, None] = {}
    if "top_k" in fields and request.sampling.top_k is not None:
        lost["top_k"] = None
        request = replace(request, sampling=replace(request.sampling, top_k=None))
    thought = any(isinstance(part, Reasoning) for message in request.messages for part in message.parts)
    if "reasoning_content" in fields and thought:
        lost["reasoning_content"] = None
        messages = [
            replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))
            for message in request.messages
        ]
        request = replace(request, messages=tuple(message for message in messages if message.parts))
    return request, tuple(lost)


def telling(extra: dict[str, Any]) -> list[str]:
    """The names of fields that ask for something: null, false and empty ones do not."""
    return [name for name, value in extra.items() if value is not None and value is not False and value not in ("", [])]


def _whole(tool: Tool) -> Tool:
    """The tool with a schema that says of an object what is in it: OpenAI refuses one that does not."""
    parameters = tool.parameters
    if parameters.get("type") != "object" or "properties" in parameters:
        return tool
    return replace(tool, parameters=parameters | {"properties": {}})


def _parts(message: Message, lost: dict[str, None]) -> tuple[Part, ...]:
    kept: list[Part] = []
    for part in message.parts:
        if isinstance(part, Opaque) and message.role == "assistant":
            lost[part.type] = None
        elif isinstance(part, Reasoning):
            if part.redacted is None:
                kept.append(part)
            else:
                lost["redacted_thinking"] = None
        elif isinstance(part, ToolResult):
            inner = tuple(said for one in part.parts for said in _readable(one, lost))
            if part.failed:
                lost["is_error"] = None
            kept.append(_bare(replace(part, parts=inner), lost))
        elif isinstance(part, (Text, Media, Opaque)):
            kept += _readable(part, lost)
        else:
            kept.append(_bare(part, lost))
    return tuple(kept)


def _readable(part: Text | Media | Opaque, lost: dict[str, None]) -> tuple[Text | Media, ...]:
    """What of a part any model can be given: the words of a document, where it has words."""
    if isinstance(part, Opaque):
        if not part.said:
            raise _unreadable(part.type)
        lost |= dict.fromkeys(name for name in HINTS if part.body.get(name))
        return tuple(said for one in part.said for said in _readable(one, lost))
    if isinstance(part, Text):
        return (_bare(part, lost),)
    context = part.extra.get("context")
    about = [context] if isinstance(context, str) and context else []
    kept = {name: value for name, value in part.extra.items() if name != "context"}
    if part.data is not None and part.mime.startswith("text/"):
        named = [part.name] if part.name else []
        words = "\n\n".join([*named, *about, part.data.decode("utf-8", "replace")])
        return (_bare(Text(text=words, extra=kept), lost),)
    if part.url is not None and not part.mime.startswith("image/"):
        raise _unreadable(f"{part.mime} by URL")
    name = "document.pdf" if part.name is None and part.mime == "application/pdf" else part.name  # OpenAI wants one
    media: Media = _bare(replace(part, extra=kept, name=name), lost)
    return (*(Text(text=words) for words in about), media)


def _bare(thing: Any, lost: dict[str, None]) -> Any:
    if not thing.extra:
        return thing
    lost |= dict.fromkeys(telling(thing.extra))
    return replace(thing, extra={})


def _unreadable(kind: str) -> InvalidRequest:
    return InvalidRequest(
        f"Content of type '{kind}' cannot be carried over to this model's provider.",
        param="messages",
        code="invalid_value",
    )
