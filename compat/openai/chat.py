"""OpenAI's chat completions: requests.  Source: https://platform.openai.com/docs/api-reference/chat/create

`peek` serves the relay lane and keeps every byte; `parse_request` and `render_request` are inverse and
serve the translated lane.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, decode_raw, kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.request import Envelope, Sampling, Schema, TextRequest, Tool
from compat.openai.custom import as_function, grammar_of
from compat.openai.envelope import check_stream_options, envelope
from compat.openai.legacy import modern_choice, modern_messages, modern_tools
from compat.openai.limits import CHAT, EFFORTS, VERBOSITIES, check_metadata, check_numbers, check_word, wrong_type
from compat.openai.part import parse_message, render_message

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "messages": ("array",),
    "stream": ("boolean",),
    "stream_options": ("object",),
    "temperature": ("number",),
    "top_p": ("number",),
    "n": ("number",),
    "max_tokens": ("number",),
    "max_completion_tokens": ("number",),
    "presence_penalty": ("number",),
    "frequency_penalty": ("number",),
    "seed": ("number",),
    "logprobs": ("boolean",),
    "top_logprobs": ("number",),
    "logit_bias": ("object",),
    "stop": ("string", "array"),
    "tools": ("array",),
    "tool_choice": ("string", "object"),
    "functions": ("array",),
    "function_call": ("string", "object"),
    "parallel_tool_calls": ("boolean",),
    "response_format": ("object",),
    "user": ("string",),
    "metadata": ("object",),
}
"""What the fields that are looked at may be in JSON, besides null."""


class _PeekedMessage(Struct):
    role: str
    content: str | list[Raw] | None = None


_peek_messages = msgspec.json.Decoder(list[_PeekedMessage])


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs, and refuse what no provider could take.

    Raises InvalidRequest.
    """
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    messages = fields.get("messages")
    if messages is None or kind_of(messages) == "null":
        raise missing("messages")
    if not read(bytes(messages), _peek_messages, "messages"):
        raise InvalidRequest("Invalid 'messages': the array is empty.", param="messages", code="empty_array")
    return envelope("chat", fields, body)


class _WireFunction(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _WireCustom(Struct):
    name: str
    description: str | None = None
    format: dict[str, Any] | None = None


class _WireTool(Struct):
    function: _WireFunction | None = None
    custom: _WireCustom | None = None
    type: str = "function"
    cache_control: dict[str, Any] | None = None
    """Anthropic's, which several gateways let OpenAI's clients say."""


class _WireSchema(Struct):
    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _WireFormat(Struct):
    type: str
    json_schema: _WireSchema | None = None


class ChatRequest(Struct):
    """What is read of a request when it has to be translated."""

    messages: list[dict[str, Any]]
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[_WireTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: _WireFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    metadata: dict[str, Any] | None = None
    n: int | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


_MODELLED = frozenset(ChatRequest.__struct_encode_fields__) - {"verbosity", "metadata"}
_QUIET: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "logit_bias": ({},),
    "top_logprobs": (0,),
}
"""What asks for nothing that does not happen anyway."""
_read_request = msgspec.json.Decoder(ChatRequest)
_read_tools = msgspec.json.Decoder(list[_WireTool])


def parse_request(envelope: Envelope) -> TextRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = read(envelope.body, _read_request)
    _check(envelope, body)
    stop = body.stop
    format_ = body.response_format
    wire_tools, wire_choice, messages = body.tools or [], body.tool_choice, body.messages
    if not wire_tools and body.functions:
        wire_tools = read(msgspec.json.encode(modern_tools(body.functions)), _read_tools, "functions")
        wire_choice = modern_choice(body.function_call)
    if any("function_call" in message or message.get("role") == "function" for message in messages):
        messages = modern_messages(messages)
    tools, choice = choose(_parse_tools(wire_tools), wire_choice)
    extra = {name: decode_raw(raw) for name, raw in envelope.fields.items() if name not in _MODELLED}
    extra = {name: value for name, value in extra.items() if value not in _QUIET.get(name, ())}
    if any(tool.custom is not None and grammar_of(tool.custom.format) for tool in wire_tools):
        extra["tools.format"] = True
    return TextRequest(
        model=envelope.model,
        messages=tuple(parse_message(m, f"messages[{i}]") for i, m in enumerate(messages)),
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            max_tokens=body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
            seed=body.seed,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
        ),
        tools=tools,
        tool_choice=choice,
        # Before tools, an answer made one call at most.
        parallel_tools=False if body.functions and not body.tools else body.parallel_tool_calls,
        schema=_parse_format(format_),
        effort=body.reasoning_effort,
        choices=body.n or 1,
        user=body.user,
        extra=extra,
    )


def render_request(request: TextRequest, *, stream: bool, max_tokens_field: str = "max_tokens") -> bytes:
    """Write a request for an OpenAI-compatible provider; a streamed one asks for usage."""
    s = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [m for message in request.messages for m in render_message(message)],
        "temperature": s.temperature,
        "top_p": s.top_p,
        "top_k": s.top_k,
        max_tokens_field: s.max_tokens,
        "stop": list(s.stop) or None,
        "seed": s.seed,
        "presence_penalty": s.presence_penalty,
        "frequency_penalty": s.frequency_penalty,
        "tools": [_render_tool(tool) for tool in request.tools if isinstance(tool, Tool)] or None,
        "tool_choice": _render_tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tools,
        "response_format": _render_format(request.schema),
        "reasoning_effort": request.effort,
        "n": request.choices if request.choices != 1 else None,
        "user": request.user,
    }
    body = {name: value for name, value in body.items() if value is not None} | request.extra
    if body.get("top_logprobs"):
        body["logprobs"] = True  # without it, providers refuse the other
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def with_state(request: TextRequest, names: Collection[str]) -> TextRequest:
    """A request with those tokens of its state that its provider takes as fields.  Raises InvalidRequest."""
    taken = {name: request.state[name] for name in names if request.state.get(name) is not None}
    for name, token in taken.items():
        if not isinstance(token, str):
            raise wrong_type(f"state.{name}", "a string")
    return msgspec.structs.replace(request, extra=request.extra | taken) if taken else request


def envelope_of(request: TextRequest, *, stream: bool, max_tokens_field: str = "max_tokens") -> Envelope:
    """A rendered request as if it had come in, for a backend that relays this dialect."""
    body = render_request(request, stream=stream, max_tokens_field=max_tokens_field)
    return Envelope(dialect="chat", model=request.model, stream=stream, fields=read_fields(body), body=body)


def choose(
    tools: tuple[Tool, ...], choice: str | dict[str, Any] | None, at: str = "tool_choice"
) -> tuple[tuple[Tool, ...], str | None]:
    """The tools that a `tool_choice` leaves, and the choice among them.  Raises InvalidRequest."""
    if not isinstance(choice, dict):
        check_word(at, choice, ("none", "auto", "required"))
        if choice == "required" and not tools:
            raise _no_tools(at)
        return tools, choice
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        allowed = allowed if isinstance(allowed, dict) else choice
        mode = allowed.get("mode", "auto")
        check_word(f"{at}.mode", mode if isinstance(mode, str) else "", ("auto", "required"))
        names = {_named(tool) for tool in allowed.get("tools") or () if isinstance(tool, dict)}
        return tuple(tool for tool in tools if tool.name in names), mode
    name = _named(choice)
    if name is None:
        raise missing(f"{at}.{'custom' if kind == 'custom' else 'function'}.name")
    if not tools:
        raise _no_tools(at)
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"Tool choice '{name[:100]}' not found in 'tools' parameter.", param=at)
    return tools, f"={name}"


def _named(tool: dict[str, Any]) -> str | None:
    """The name of a tool, or of one that is chosen: nested in chat, flat in Responses."""
    inner = tool.get("function", tool.get("custom", tool))
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _no_tools(at: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{at}': '{at}' is only allowed when 'tools' are specified.", param=at)


def _check(asked: Envelope, body: ChatRequest) -> None:
    check_numbers(asked.fields, CHAT)
    check_stream_options(asked)
    check_word("reasoning_effort", body.reasoning_effort, EFFORTS)
    check_word("verbosity", body.verbosity, VERBOSITIES)
    check_metadata(body.metadata)


def _parse_tools(wire: list[_WireTool]) -> tuple[Tool, ...]:
    tools = []
    for n, tool in enumerate(wire):
        check_word(f"tools[{n}].type", tool.type, ("function", "custom"))
        if tool.type == "custom":
            if tool.custom is None:
                raise missing(f"tools[{n}].custom")
            tools.append(as_function(tool.custom.name, tool.custom.description, tool.custom.format))
            continue
        function = tool.function
        if function is None:
            raise missing(f"tools[{n}].function")
        tools.append(
            Tool(
                name=function.name,
                parameters=function.parameters or {},
                description=function.description,
                strict=function.strict,
                extra={"cache_control": tool.cache_control} if tool.cache_control else {},
            )
        )
    return tuple(tools)


def _render_tool_choice(choice: str | None) -> str | dict[str, Any] | None:
    if choice is not None and choice.startswith("="):
        return {"type": "function", "function": {"name": choice[1:]}}
    return choice


def _parse_format(format_: _WireFormat | None) -> Schema | None:
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return Schema(name="json_object", schema=None)
    if format_.type != "json_schema":
        raise InvalidRequest(
            f"Invalid value for 'response_format.type': '{format_.type}'.",
            param="response_format.type",
            code="invalid_value",
        )
    if format_.json_schema is None:
        raise missing("response_format.json_schema")
    schema = format_.json_schema
    return Schema(name=schema.name, schema=schema.schema or {}, strict=schema.strict)


def _render_format(schema: Schema | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if schema.schema is None:
        return {"type": "json_object"}
    inner: dict[str, Any] = {"name": schema.name, "schema": schema.schema}
    if schema.strict is not None:
        inner["strict"] = schema.strict
    return {"type": "json_schema", "json_schema": inner}


def _render_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
