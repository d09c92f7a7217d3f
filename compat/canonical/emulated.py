"""Tools for models that know none: a request with tools becomes one whose answer is JSON that spells the calls.

The engine holds the answer to a schema, so this works with any model; and so it does for a call that a model
knowing tools is made to make, which engines do not enforce.  `compat.canonical.spelled` reads the answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Opaque, Part, Text, ToolCall, ToolResult, Value
from compat.canonical.request import Schema, TextRequest, Tool

CALLS_MAX = 16
"""In one answer, where there may be several: a small model finds no end otherwise."""

_OWN = ("grammar", "json_schema")
"""Fields that hold the answer to another form than ours."""
_UNSAYABLE = ("logprobs", "top_logprobs", "tools.format")
"""Of tokens that spell JSON, nobody wants to know; nor can a grammar be nested in a schema."""
_NAMING = frozenset(
    {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "enum", "const", "required", "minProperties"}
    | {"patternProperties", "propertyNames", "dependentSchemas", "dependentRequired", "unevaluatedProperties"}
)
"""Keywords of a schema that may ask for arguments without `properties`."""
_write = msgspec.json.Encoder().encode


class Spelling(Value, frozen=True):
    """How an answer says what it does."""

    reply: Literal["none", "text", "json"] = "none"
    """What it may be instead of a call: nothing, text, or JSON of the schema that was asked for."""


def forces(request: TextRequest) -> bool:
    """Whether the answer has to be a call."""
    choice = request.tool_choice or ""
    return bool(request.tools) and (choice == "required" or choice.startswith("="))


def recalls(request: TextRequest) -> bool:
    """Whether calls or their results are among what was said."""
    return any(isinstance(part, (ToolCall, ToolResult)) for message in request.messages for part in message.parts)


def emulated(
    request: TextRequest, *, keeps_calls: bool = False
) -> tuple[TextRequest, Spelling | None, tuple[str, ...]]:
    """The request without tools, how its answer is spelled, and the client's names for what that leaves out.

    keeps_calls: earlier calls and their results stay as they are, for a model that knows tools.

    No spelling: the answer is an ordinary one, since no tool may be called.  Raises InvalidRequest.
    """
    messages = request.messages if keeps_calls else tuple(_told(request.messages))
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    bare = replace(request, messages=messages, tools=(), tool_choice=None, parallel_tools=None)
    if not tools or request.tool_choice == "none":
        return bare, None, ()
    if own := next((name for name in _OWN if request.extra.get(name)), None):
        raise InvalidRequest(f"'{own}' cannot go with tools: it would forbid the calls.", param=own)
    lost = [name for name in _UNSAYABLE if request.extra.get(name)]
    if request.sampling.stop:
        lost.append("stop")  # it would cut the JSON
    if (choice := request.tool_choice or "auto").startswith("="):
        tools = [tool for tool in tools if tool.name == choice[1:]]
    spelling = Spelling(reply="none" if forces(request) else "text" if request.schema is None else "json")
    several = request.parallel_tools is True and not choice.startswith("=")
    schema = _schema(tools, several=several, reply=_reply(spelling, request.schema))
    told = replace(
        bare,
        messages=_instructed(messages, _instruction(tools, spelling, several=several)),
        sampling=replace(request.sampling, stop=()),
        schema=Schema(name="answer", schema=schema, strict=True),
        extra={name: value for name, value in request.extra.items() if name not in _UNSAYABLE},
    )
    return told, spelling, tuple(lost)


# --- The schema ---------------------------------------------------------------------------------------


def _schema(tools: Sequence[Tool], *, several: bool, reply: dict[str, Any] | None) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    calls = [_object(name={"const": tool.name}, arguments=_arguments(tool, definitions)) for tool in tools]
    if several:
        call = calls[0] if len(calls) == 1 else {"anyOf": calls}
        calls = [_object(calls={"type": "array", "items": call, "minItems": 1, "maxItems": CALLS_MAX})]
    if reply is not None:
        calls.append(_object(reply=_moved(reply, "reply", definitions)))
    whole = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return whole | {"$defs": definitions} if definitions else whole


def _object(**properties: Any) -> dict[str, Any]:
    """An object of exactly these properties, in this order."""
    fixed = {"type": "object", "properties": properties, "required": list(properties)}
    return fixed | {"additionalProperties": False}


def _arguments(tool: Tool, definitions: dict[str, Any]) -> dict[str, Any]:
    # What a tool does not name it does not expect; a small model would go on inventing it.
    said = tool.parameters.keys()
    closed = {"additionalProperties": False} if "properties" in said or not said & _NAMING else {}
    return _moved({"type": "object"} | closed | tool.parameters, f"tool_{len(definitions)}", definitions)


def _moved(schema: dict[str, Any], name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema to stand inside another.  One that refers to parts of itself is put where it can be referred to."""
    if b'"$ref"' not in _write(schema):
        return schema
    definitions[name] = _rebased(schema, f"#/$defs/{name}")
    return {"$ref": f"#/$defs/{name}"}


def _rebased(value: Any, root: str) -> Any:
    if isinstance(value, list):
        return [_rebased(one, root) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: root + inner[1:]
        if key == "$ref" and isinstance(inner, str) and inner.startswith("#")
        else _rebased(inner, root)
        for key, inner in value.items()
    }


def _reply(spelling: Spelling, asked: Schema | None) -> dict[str, Any] | None:
    if spelling.reply == "none":
        return None
    if asked is None:
        return {"type": "string"}
    return {"type": "object"} if asked.schema is None else asked.schema


# --- What the model is told ---------------------------------------------------------------------------


def _instruction(tools: Sequence[Tool], spelling: Spelling, *, several: bool) -> str:
    listed = "\n".join(
        _write(
            {"name": tool.name}
            | ({} if tool.description is None else {"description": tool.description})
            | {"parameters": tool.parameters}
        ).decode()
        for tool in tools
    )
    words = f"You can call these functions, given with the JSON Schema of their arguments:\n{listed}\n\n"
    # How answers begin, and no more: a small model copies what stands for something else.
    words += f"Answer with JSON and nothing else. To call {'some' if several else 'one'}, begin with "
    words += '{"calls": [{"name": ' if several else '{"name": '
    words += 'and the name of the function, and go on with "arguments": and its arguments.'
    if spelling.reply == "none":
        return words
    reply = "what you say to the user" if spelling.reply == "text" else "your answer to the user, in JSON"
    return (
        f"{words} If no function helps, or you have its result already, begin with "
        + '{"reply": '
        + (f"and go on with {reply}.")
    )


def _instructed(messages: Sequence[Message], words: str) -> tuple[Message, ...]:
    """The messages under an instruction, which follows what the system's message says."""
    if messages and messages[0].role in ("system", "developer"):
        first = messages[0]
        return (replace(first, parts=_joined((*first.parts, Text(text=words)), "\n\n")), *messages[1:])
    return (Message(role="system", parts=(Text(text=words),)), *messages)


def _told(messages: Iterable[Message]) -> list[Message]:
    """What was said, with calls and results in words.  Results are the user's turn: many templates know no other."""
    names: dict[str, str] = {}
    out: list[Message] = []
    reports = False
    for message in messages:
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        results = any(isinstance(part, ToolResult) for part in message.parts)
        names |= {call.id: call.name for call in calls}
        if calls:
            rest = tuple(part for part in message.parts if not isinstance(part, ToolCall))
            message = replace(message, parts=_joined((*rest, Text(text=_spelled(calls)))))
        elif results:
            parts = tuple(said for part in message.parts for said in _reported(part, names))
            message = Message(role="user", parts=_joined(parts))
        if (results or reports) and out and out[-1].role == message.role == "user":
            out[-1] = replace(out[-1], parts=_joined((*out[-1].parts, *message.parts)))
        else:
            out.append(message)
        reports = results or (reports and message.role == "user")
    return out


def _reported(part: Part, names: dict[str, str]) -> Iterable[Part]:
    if not isinstance(part, ToolResult):
        return (part,)
    what = "Error from" if part.failed else "Result of"
    said: tuple[Text | Media | Opaque, ...] = part.parts
    return (Text(text=f"{what} {names.get(part.id, 'the function')}:"), *said)


def _spelled(calls: Sequence[ToolCall]) -> str:
    spelled = [{"name": call.name, "arguments": _value(call.arguments)} for call in calls]
    return _write(spelled[0] if len(spelled) == 1 else {"calls": spelled}).decode()


def _value(arguments: str) -> Raw | str:
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return arguments
    return Raw(arguments.encode())


def _joined(parts: Sequence[Part], by: str = "\n") -> tuple[Part, ...]:
    """Texts that follow each other as one: not every template takes a list of them."""
    out: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and out and isinstance(last := out[-1], Text):
            out[-1] = replace(last, text=f"{last.text}{by}{part.text}")
        else:
            out.append(part)
    return tuple(out)
