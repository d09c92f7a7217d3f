"""OpenAI's Responses API: requests.  Source: https://platform.openai.com/docs/api-reference/responses/create

`peek` serves the relay lane and keeps every byte; `parse_request` serves the translated lane, and
`render_settings` says in the answer what was asked, as OpenAI does.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, decode_raw, kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Message, Text
from compat.canonical.request import Envelope, Sampling, Schema, TextRequest, Tool
from compat.openai.envelope import envelope
from compat.openai.limits import EFFORTS, RESPONSES, VERBOSITIES, check_metadata, check_numbers, check_word
from compat.openai.responses_item import Item, is_sealed_here, normalized, parse_items
from compat.openai.responses_tool import grammars, is_hosted, lost_choice, parse_tools, render_tools

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "input": ("string", "array"),
    "instructions": ("string",),
    "previous_response_id": ("string",),
    "conversation": ("string", "object"),
    "prompt": ("object",),
    "stream": ("boolean",),
    "stream_options": ("object",),
    "store": ("boolean",),
    "background": ("boolean",),
    "include": ("array",),
    "metadata": ("object",),
    "max_output_tokens": ("number",),
    "max_tool_calls": ("number",),
    "temperature": ("number",),
    "top_p": ("number",),
    "top_logprobs": ("number",),
    "tools": ("array",),
    "tool_choice": ("string", "object"),
    "parallel_tool_calls": ("boolean",),
    "text": ("object",),
    "reasoning": ("object",),
    "truncation": ("string",),
    "user": ("string",),
}
"""What the fields that are looked at may be in JSON, besides null."""
TRUNCATIONS = ("auto", "disabled")
SUMMARIES = ("auto", "concise", "detailed")
_STARTS = ("input", "previous_response_id", "prompt", "conversation")
"""One of these says what to answer."""
_LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    _LOGPROBS,
)

_write = msgspec.json.Encoder().encode


class _Format(Struct):
    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Texting(Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Thinking(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesRequest(Struct):
    """What is read of a request when it has to be translated."""

    input: str | list[dict[str, Any]] | None = None
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    background: bool | None = None
    include: list[str] | None = None
    metadata: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _Texting | None = None
    reasoning: _Thinking | None = None
    truncation: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


_MODELLED = frozenset(ResponsesRequest.__struct_encode_fields__)
_read_request = msgspec.json.Decoder(ResponsesRequest)
_read_input = msgspec.json.Decoder(str | list[dict[str, Any]] | None)
_read_id = msgspec.json.Decoder(str | None)
_read_conversation = msgspec.json.Decoder(str | dict[str, Any] | None)


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    if all(_absent(fields.get(name)) for name in _STARTS):
        raise missing("input")
    # Usage is always in the last event here: nothing is to be asked for, or hidden.
    return msgspec.structs.replace(envelope("responses", fields, body), wants_usage=True)


def read_request(asked: Envelope) -> ResponsesRequest:
    """Every field that the gateway knows.  Raises InvalidRequest."""
    return read(asked.body, _read_request)


def previous_of(asked: Envelope) -> str | None:
    """The response that a request goes on from."""
    raw = asked.fields.get("previous_response_id")
    return (_read_id.decode(raw) or None) if raw is not None else None


def conversation_of(asked: Envelope) -> str | None:
    """The conversation that a request is a turn of.  Raises InvalidRequest."""
    raw = asked.fields.get("conversation")
    given = None if raw is None else _read_conversation.decode(raw)
    if given is None:
        return None
    at, id_ = ("conversation.id", given.get("id")) if isinstance(given, dict) else ("conversation", given)
    if id_ is None:
        raise missing(at)
    if not isinstance(id_, str):
        raise InvalidRequest(f"Invalid type for '{at}': expected a string.", param=at, code="invalid_type")
    if not id_:
        raise InvalidRequest(f"Invalid value for '{at}': it is empty.", param=at, code="invalid_value")
    if previous_of(asked) is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Give only one of them.",
            param="conversation",
            code="mutually_exclusive_parameters",
        )
    return id_


def truncation_of(asked: Envelope) -> str | None:
    """What is to be done about too long an input, in the client's word; None where it said nothing that is known."""
    raw = asked.fields.get("truncation")
    word = None if raw is None else _read_id.decode(raw)
    return word if word in TRUNCATIONS else None


def instructed(asked: Envelope, instructions: str) -> Envelope:
    """The request with these instructions, unless it has its own."""
    if not _absent(asked.fields.get("instructions")):
        return asked
    fields = asked.fields | {"instructions": Raw(_write(instructions))}
    return msgspec.structs.replace(asked, fields=fields, body=_write(fields))


def with_input(asked: Envelope, items: list[Item]) -> Envelope:
    """The request with these items as its input."""
    fields = asked.fields | {"input": Raw(_write(items))}
    return msgspec.structs.replace(asked, fields=fields, body=_write(fields))


def given_items(asked: Envelope, known: dict[str, Item]) -> list[Item]:
    """What is new in a request, as it was given but for the items it refers to.  Raises InvalidRequest."""
    raw = asked.fields.get("input")
    return resolved(read(bytes(raw), _read_input, "input") if raw is not None else None, known)


def references_of(asked: Envelope) -> list[str]:
    """The ids of the items that a request means without repeating them."""
    raw = asked.fields.get("input")
    if raw is None or kind_of(raw) != "array" or b'"id"' not in bytes(raw):
        return []
    items = read(bytes(raw), _read_input, "input")
    return [str(item["id"]) for item in items if _is_reference(item)] if isinstance(items, list) else []


def resolved(given: str | list[Item] | None, known: dict[str, Item]) -> list[Item]:
    """An `input` as a list, with the items it refers to in their places; a reference to any other stays."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [known.get(item["id"], item) if _is_reference(item) else item for item in given or ()]


def expanded(asked: Envelope, history: list[Item] | None, known: dict[str, Item], *, relayed: bool) -> Envelope:
    """The request with what it refers to written out.

    history: what came before, which makes it the first of its conversation; None leaves that be.
    relayed: for a provider that speaks this dialect itself, to which our ids and seals mean nothing.
    """
    own = given_items(asked, known)
    before = history or []
    if relayed:
        before = [_foreign(item) for item in before if not is_sealed_here(item)]
        own = [_foreign(item) if item.get("id") in known else item for item in own if not _seals(item, known)]
    fields = dict(asked.fields)
    if history is not None:
        for name in ("previous_response_id", "conversation"):
            fields.pop(name, None)
    fields["input"] = Raw(_write([*before, *own]))
    return msgspec.structs.replace(asked, fields=fields, body=_write(fields))


def parse_request(asked: Envelope, *, past: bool = False) -> TextRequest:
    """Read a request whole, what came before already written out in it.  Raises InvalidRequest.

    past: what cannot be carried over is left out; what is new in it has been read before.
    """
    body = read_request(asked)
    _check(asked, body)
    for name in ("conversation", "prompt", "background"):
        # Without the first two the model would be asked something else; the third promises what would not happen.
        if getattr(body, name) not in (None, False):
            raise InvalidRequest(
                f"'{name}' is not supported by this model's provider.", param=name, code="unsupported_parameter"
            )
    messages = parse_items(normalized(body.input, lambda prefix: prefix), past=past)
    if not messages:
        raise InvalidRequest("Invalid 'input': the array is empty.", param="input", code="empty_array")
    if body.instructions:
        messages = (Message(role="system", parts=(Text(text=body.instructions),)), *messages)
    tools, choice = parse_tools(body.tools or [], body.tool_choice)
    callable_ = any(isinstance(tool, Tool) for tool in tools)
    stop = body.stop
    return TextRequest(
        model=asked.model,
        messages=messages,
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            max_tokens=body.max_output_tokens,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
            seed=body.seed,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
        ),
        tools=tools,
        # Where there is nothing to choose from, providers refuse a choice.
        tool_choice=choice if callable_ else None,
        parallel_tools=body.parallel_tool_calls if callable_ else None,
        schema=_parse_format(body.text.format if body.text else None),
        effort=body.reasoning.effort if body.reasoning else None,
        user=body.user,
        extra=_unheard(body, asked),
        dialect="responses",
    )


def render_settings(body: ResponsesRequest) -> dict[str, Any]:
    """What an answer says of its request; where nothing was asked, OpenAI's defaults."""
    format_ = body.text.format if body.text else None
    # The published schema lets these be left out, but not be null.
    named = {
        "prompt_cache_key": body.prompt_cache_key,
        "safety_identifier": body.safety_identifier,
        "user": body.user,
    }
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning else None,
            "summary": _summary_asked(body),
        },
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"} if format_ is None else _render_format(format_), "verbosity": "medium"},
        "tool_choice": "auto" if body.tool_choice is None or is_hosted(body.tool_choice) else body.tool_choice,
        "tools": render_tools(body.tools or []),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "metadata": body.metadata or {},
        **{name: value for name, value in named.items() if value is not None},
    }


def customs(body: ResponsesRequest) -> frozenset[str]:
    """The names of the custom tools, whose calls are no function's."""
    return frozenset(str(tool.get("name")) for tool in body.tools or () if tool.get("type") == "custom")


def summarizes(body: ResponsesRequest) -> bool:
    """Whether reasoning is wanted as a summary; otherwise it comes as the text that it is."""
    return _summary_asked(body) is not None


def _absent(raw: Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _is_reference(item: Item) -> bool:
    return "id" in item and (item.get("type") == "item_reference" or ("type" not in item and "role" not in item))


def _foreign(item: Item) -> Item:
    return {name: value for name, value in item.items() if name not in ("id", "status")}


def _seals(item: Item, known: dict[str, Item]) -> bool:
    return item.get("id") in known and is_sealed_here(item)


def _summary_asked(body: ResponsesRequest) -> str | None:
    return (body.reasoning.summary or body.reasoning.generate_summary) if body.reasoning else None


def _check(asked: Envelope, body: ResponsesRequest) -> None:
    check_numbers(asked.fields, RESPONSES)
    check_word("truncation", body.truncation, TRUNCATIONS)
    check_metadata(body.metadata)
    for n, name in enumerate(body.include or ()):
        check_word(f"include[{n}]", name, _INCLUDABLE)
    if body.reasoning is not None:
        check_word("reasoning.effort", body.reasoning.effort, EFFORTS)
        check_word("reasoning.summary", _summary_asked(body), SUMMARIES)
    if body.text is not None:
        check_word("text.verbosity", body.text.verbosity, VERBOSITIES)


def _parse_format(format_: _Format | None) -> Schema | None:
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return Schema(name="json_object", schema=None)
    if format_.type != "json_schema":
        raise InvalidRequest(
            f"Invalid value for 'text.format.type': '{format_.type}'.", param="text.format.type", code="invalid_value"
        )
    if format_.schema is None:
        raise missing("text.format.schema")
    return Schema(name=format_.name or "answer", schema=format_.schema, strict=format_.strict)


def _render_format(format_: _Format) -> dict[str, Any]:
    if format_.type != "json_schema":
        return {"type": format_.type}
    out = {
        "type": "json_schema",
        "name": format_.name or "answer",
        "schema": format_.schema or {},
        "strict": format_.strict,
    }
    return out if format_.description is None else out | {"description": format_.description}


def _unheard(body: ResponsesRequest, asked: Envelope) -> dict[str, Any]:
    """What the request asks for beyond the internal model: a backend names these, or refuses."""
    unheard = {name: decode_raw(raw) for name, raw in asked.fields.items() if name not in _MODELLED}
    unheard |= {
        "include": _LOGPROBS in (body.include or ()),
        "top_logprobs": body.top_logprobs or None,
        "truncation": body.truncation if body.truncation != "disabled" else None,
        "service_tier": body.service_tier if body.service_tier not in ("auto", "default") else None,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "text.verbosity": body.text.verbosity if body.text else None,
        "text.format.description": body.text.format.description if body.text and body.text.format else None,
        "tool_choice": lost_choice(body.tools or [], body.tool_choice),
        "tools.format": grammars(body.tools or []),
    }
    return {name: value for name, value in unheard.items() if value not in (None, False, [])}
