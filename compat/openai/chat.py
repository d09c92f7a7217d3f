"""OpenAI's chat completions: requests.  Source: https://platform.openai.com/docs/api-reference/chat/create

`peek` serves the relay lane and keeps every byte; `parse_request` and `render_request` are inverse and
serve the translated lane.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.request import Envelope, Sampling, Schema, TextRequest, Tool
from compat.openai.envelope import envelope
from compat.openai.part import parse_message, render_message

_KINDS: dict[str, tuple[str, ...]] = {
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
    "parallel_tool_calls": ("boolean",),
    "response_format": ("object",),
    "user": ("string",),
    "metadata": ("object",),
}


class _PeekedMessage(Struct):
    role: str
    content: str | list[Raw] | None = None


_peek_messages = msgspec.json.Decoder(list[_PeekedMessage])


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs, and refuse what no provider could take.

    Raises InvalidRequest.
    """
    fields = read_fields(body)
    check_kinds(fields, _KINDS)
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


class _WireTool(Struct):
    function: _WireFunction
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
    parallel_tool_calls: bool | None = None
    response_format: _WireFormat | None = None
    reasoning_effort: str | None = None
    n: int | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


_MODELLED = frozenset(ChatRequest.__struct_encode_fields__)
_read_request = msgspec.json.Decoder(ChatRequest)


def parse_request(envelope: Envelope) -> TextRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = read(envelope.body, _read_request)
    stop = body.stop
    format_ = body.response_format
    return TextRequest(
        model=envelope.model,
        messages=tuple(parse_message(m, f"messages[{i}]") for i, m in enumerate(body.messages)),
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
        tools=tuple(
            Tool(
                name=t.function.name,
                parameters=t.function.parameters or {},
                description=t.function.description,
                strict=t.function.strict,
                extra={"cache_control": t.cache_control} if t.cache_control else {},
            )
            for t in body.tools or ()
        ),
        tool_choice=_parse_tool_choice(body.tool_choice),
        parallel_tools=body.parallel_tool_calls,
        schema=_parse_format(format_),
        effort=body.reasoning_effort,
        choices=body.n or 1,
        user=body.user,
        extra={name: msgspec.json.decode(raw) for name, raw in envelope.fields.items() if name not in _MODELLED},
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
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def envelope_of(request: TextRequest, *, stream: bool, max_tokens_field: str = "max_tokens") -> Envelope:
    """A rendered request as if it had come in, for a backend that relays this dialect."""
    body = render_request(request, stream=stream, max_tokens_field=max_tokens_field)
    return Envelope(dialect="chat", model=request.model, stream=stream, fields=read_fields(body), body=body)


def _parse_tool_choice(choice: str | dict[str, Any] | None) -> str | None:
    if isinstance(choice, dict):
        function = choice.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise missing("tool_choice.function.name")
        return f"={function['name']}"
    return choice


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
