"""Anthropic's requests as the relay lane sees them: peeked at, and sent on as they are.

Refused is only what no provider could take; what a field may say is the provider's to judge.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

import msgspec
from msgspec import Raw, Struct

from compat.body import kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.request import Envelope

_KINDS = {
    "model": ("string", "a valid string"),
    "messages": ("array", "a valid list"),
    "max_tokens": ("number", "a valid integer"),
    "stream": ("boolean", "a valid boolean"),
    "temperature": ("number", "a valid number"),
    "top_p": ("number", "a valid number"),
    "top_k": ("number", "a valid integer"),
    "stop_sequences": ("array", "a valid list"),
    "tools": ("array", "a valid list"),
    "tool_choice": ("object", "an object"),
    "thinking": ("object", "an object"),
    "metadata": ("object", "an object"),
    "output_config": ("object", "an object"),
}
ROLES = frozenset({"user", "assistant", "system"})


class _Said(Struct):
    role: str
    content: str | list[Raw]


_read_messages = msgspec.json.Decoder(list[_Said])
_read_text = msgspec.json.Decoder(str)
_write = msgspec.json.Encoder().encode


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    envelope = peek_count(body)
    if _absent(envelope.fields.get("max_tokens")):
        raise missing("max_tokens")
    return envelope


def peek_count(body: bytes) -> Envelope:
    """`peek`, for a request to count tokens, which limits none.  Raises InvalidRequest."""
    fields = read_fields(body)
    for name, raw in fields.items():
        if name in _KINDS and kind_of(raw) not in (_KINDS[name][0], "null"):
            raise InvalidRequest(f"{name}: Input should be {_KINDS[name][1]}", param=name, code="invalid_type")
    if "system" in fields and kind_of(fields["system"]) not in ("string", "array", "null"):
        raise InvalidRequest("system: Input should be a valid list", param="system", code="invalid_type")
    messages = fields.get("messages")
    if messages is None or _absent(messages):
        raise missing("messages")
    said = read(bytes(messages), _read_messages, "messages")
    if not said:
        raise InvalidRequest("messages: at least one message is required", param="messages", code="empty_array")
    for message in said:
        if message.role not in ROLES:
            raise InvalidRequest(
                f'messages: Unexpected role "{message.role[:40]}". Allowed roles are "user", "assistant" and "system".',
                param="messages",
                code="invalid_value",
            )
    model, stream = fields.get("model"), fields.get("stream")
    return Envelope(
        dialect="messages",
        model="" if model is None or _absent(model) else _read_text.decode(model),
        stream=stream is not None and bytes(stream) == b"true",
        fields=fields,
        body=body,
    )


def upstream_body(envelope: Envelope, model: str) -> bytes:
    """The body that goes to a provider: the client's, under the provider's model name."""
    if model == envelope.model:
        return envelope.body
    return _write(envelope.fields | {"model": Raw(_write(model))})


def _absent(raw: Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"
