"""A Messages request's body for the translated lane, each field held to the type the provider would hold it to.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from compat.anthropic.part import Content
from compat.body import missing, read
from compat.canonical.error import InvalidRequest
from compat.canonical.request import Envelope

_THINKING = ("enabled", "disabled", "adaptive", "between_tools")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_INTERLEAVED = "interleaved-thinking"
_Share = Annotated[float, Meta(ge=0, le=1)]


class WireMessage(Struct):
    role: str
    content: Content


class Choice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    type: str
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None
    display: str | None = None


class Format(Struct):
    type: str
    schema: dict[str, Any] | None = None


class Config(Struct):
    effort: str | None = None
    format: Format | None = None


class Metadata(Struct):
    user_id: str | None = None


class WireTool(Struct):
    """One of the client's own; `type` says otherwise of the provider's."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _Kind(Struct):
    type: str | None = None


class MessagesRequest(Struct):
    messages: list[WireMessage]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    model: str | None = None
    system: Content | None = None
    temperature: _Share | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    tools: list[Raw] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: Config | None = None
    output_format: Format | None = None
    """Where `output_config.format` was before."""
    metadata: Metadata | None = None
    thread: dict[str, Any] | None = None
    stream: bool | None = None


FIELDS = frozenset(MessagesRequest.__struct_encode_fields__)
_read_body = msgspec.json.Decoder(MessagesRequest)
_read_tool = msgspec.json.Decoder(WireTool)
_read_kind = msgspec.json.Decoder(_Kind)


def read_body(envelope: Envelope) -> MessagesRequest:
    """Read a request.  Raises InvalidRequest, which names the field."""
    body = read(envelope.body, _read_body)
    if any(not stop.strip() for stop in body.stop_sequences or ()):
        raise wrong("stop_sequences", "each stop sequence must contain non-whitespace")
    if (thinking := body.thinking) is not None:
        _one_of(thinking.type, _THINKING, "thinking.type")
        if thinking.type == "enabled" and thinking.budget_tokens is None:
            raise missing("thinking.budget_tokens")
        between = _INTERLEAVED in envelope.headers.get("anthropic-beta", "")  # the budget is of all turns then
        if body.max_tokens is not None and (thinking.budget_tokens or 0) >= body.max_tokens and not between:
            raise wrong("max_tokens", "`max_tokens` must be greater than `thinking.budget_tokens`")
    if body.output_config is not None and body.output_config.effort is not None:
        _one_of(body.output_config.effort, _EFFORTS, "output_config.effort")
    format_, at = body.output_format, "output_format"
    if body.output_config is not None and body.output_config.format is not None:
        format_, at = body.output_config.format, "output_config.format"
    if format_ is not None:
        _one_of(format_.type, ("json_schema",), f"{at}.type")
        if format_.schema is None:
            raise missing(f"{at}.schema")
    return body


def read_tool(raw: Raw, at: str) -> WireTool | str:
    """Read a tool that stands at `at`, or only its type, if it is the provider's own.  Raises InvalidRequest."""
    kind = read(bytes(raw), _read_kind, at).type
    return read(bytes(raw), _read_tool, at) if kind in (None, "custom") else kind


def wrong(at: str, words: str) -> InvalidRequest:
    """The refusal of what a field says."""
    return InvalidRequest(words, param=at, code="invalid_value")


def _one_of(value: str, known: tuple[str, ...], at: str) -> None:
    if value not in known:
        *others, last = (f"'{word}'" for word in known)
        raise wrong(at, f"Input should be {', '.join(others)}{' or ' if others else ''}{last}")
