"""Anthropic's error body, both directions.

Source: https://platform.claude.com/docs/en/api/errors
"""

import re
from typing import Any

import msgspec

from compat.canonical.error import GatewayError, QuotaExhausted, Rejected
from compat.openai.error import MESSAGE_MAX, Verdict
from compat.sse import frame

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TOO_LONG = ("prompt is too long", "input length and `max_tokens` exceed context limit")
"""How Anthropic says that a prompt does not fit: in words only, with no code to tell it from other bad requests."""
_KNOWN = frozenset(_TYPES.values()) | {"invalid_request_error", "api_error"}
_WORDS = {"missing_required_parameter": "Field required", "unknown_parameter": "Extra inputs are not permitted"}
"""What Anthropic says of a field, where the gateway has one way of saying it for all dialects."""
_KINDS = {
    "int": "a valid integer",
    "float": "a valid number",
    "str": "a valid string",
    "bool": "a valid boolean",
    "array": "a valid list",
    "object": "an object",
}
_BOUNDS = {">=": "greater than or equal to", "<=": "less than or equal to"}
_expected = re.compile(r"Invalid (?:type|value) for '[^']*': [Ee]xpected `([^`]+)`(?: (>=|<=) (-?\d+(?:\.\d+)?))?")


def render_error(error: GatewayError) -> bytes:
    """The body of an error answer; a message about a field begins with its path, dots between."""
    said: dict[str, Any] = {"type": _type(error), "message": _message(error)}
    if isinstance(error, Rejected) and error.details is not None:
        said["details"] = error.details
    return msgspec.json.encode({"type": "error", "error": said, "request_id": error.request_id})


def render_error_frame(error: GatewayError) -> bytes:
    """The error as the last event of a stream that has begun; no message_stop follows."""
    return frame(render_error(error), "error")


def parse_error(body: bytes) -> Verdict:
    """Read whatever a provider sent with a status of 400 or more; never raises."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict()
    return verdict(value.get("error", value)) if isinstance(value, dict) else Verdict()


def verdict(error: Any) -> Verdict:
    """Read the value of an `error` key, whatever shape it has."""
    if isinstance(error, str):
        return Verdict(message=error[:MESSAGE_MAX])
    if not isinstance(error, dict):
        return Verdict()
    details = error.get("details") if isinstance(error.get("details"), dict) else None
    code = details.get("error_code") if details is not None else None
    message, type_ = error.get("message"), error.get("type")
    if code is None and isinstance(message, str) and message.startswith(_TOO_LONG):
        code = "context_length_exceeded"
    return Verdict(
        message=message[:MESSAGE_MAX] if isinstance(message, str) else "",
        type=type_[:MESSAGE_MAX] if isinstance(type_, str) else None,
        code=code[:MESSAGE_MAX] if isinstance(code, str) else None,
        details=details,
    )


def _type(error: GatewayError) -> str:
    if isinstance(error, Rejected) and error.type in _KNOWN and error.type != Rejected.type:  # which says nothing
        return error.type
    if isinstance(error, QuotaExhausted):
        return "billing_error"
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def _message(error: GatewayError) -> str:
    # A provider's verdict is passed on in its own words; others name the field apart.
    if error.param is None or error.status != 400 or isinstance(error, Rejected):
        return error.message
    path = error.param.replace("[", ".").replace("]", "")
    if error.message.startswith(f"{path}:"):
        return error.message
    return f"{path}: {_WORDS.get(error.code or '') or _kinds(error.message) or error.message}"


def _kinds(message: str) -> str | None:
    """What a field should be, where the message says so in the decoder's words."""
    found = _expected.match(message)
    if found is None:
        return None
    kinds, sign, bound = found.groups()
    if sign:
        return f"Input should be {_BOUNDS[sign]} {float(bound):g}"
    return "Input should be " + " or ".join(_KINDS[kind] for kind in kinds.split(" | ") if kind in _KINDS)
