"""Reading a client's JSON body: to its top-level fields, or to a type, with errors that name the field.

One invariant: whatever the bytes are, the outcome is a value or an InvalidRequest.
"""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from compat.canonical.error import InvalidRequest

DEPTH_MAX = 64
"""How deep arrays and objects may nest.  Real requests stay below 20; decoders recurse."""

CONTAINERS_MAX, NAMES_MAX, VALUES_MAX = 200_000, 200_000, 500_000
"""How many arrays and objects a body may hold, names in all objects, and further values beside the first in each: a
decoder stops everybody else for as long as it takes, also in a thread of its own.
"""

FIELDS_MAX = 1000
"""Of the body itself: each unknown one may be looked at on its own."""

COUNTED_BYTES = 256 * 1024
"""Less has no room for too many names and values."""

LARGE_BYTES = 1024 * 1024
"""From here on whoever serves others meanwhile reads a body in a thread."""

STEP_BYTES = 256 * 1024
"""Strings are left out in steps, so that in a thread of its own the walk lets other threads go on."""

DIGITS_MAX = 20
"""Of a number that a client spells, leading zeros included."""

CREDENTIAL_FIELDS = frozenset({"api_base", "base_url", "api_key", "api_version", "extra_headers", "extra_body"})
"""Fields by which other gateways let a client choose where the operator's key is sent."""

T = TypeVar("T")

_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_brackets = bytes.maketrans(b"[]{}", b"()()")
_no_brackets = bytes(set(range(256)) - set(b"[]{}"))
_path = re.compile(r" - at `\$\.?([^`]*)`$")
_missing = re.compile(r"Object missing required field `([^`]+)`")
_unknown = re.compile(r"Object contains unknown field `([^`]+)`")

_TIMES = ("Invalid RFC3339 encoded datetime", "Expected `datetime` with a timezone component")

_KINDS = {ord('"'): "string", ord("{"): "object", ord("["): "array", ord("t"): "boolean", ord("f"): "boolean"}
_KINDS |= {ord("n"): "null"} | dict.fromkeys(b"-0123456789", "number")


def read_fields(body: bytes, *, credentials: bool = False) -> dict[str, Raw]:
    """The body's top-level fields, values untouched.  Raises InvalidRequest.

    credentials: it may hold CREDENTIAL_FIELDS.
    """
    _check_text(body)
    try:
        fields = _fields(body)
    except msgspec.ValidationError as e:
        raise InvalidRequest("The request body must be a JSON object.") from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidRequest("We could not parse the JSON body of your request.") from e
    if len(fields) > FIELDS_MAX:
        raise InvalidRequest(f"The JSON body has more than {FIELDS_MAX} fields.")
    if not credentials and not CREDENTIAL_FIELDS.isdisjoint(fields):
        raise credential(next(name for name in fields if name in CREDENTIAL_FIELDS))
    return fields


def credential(name: str) -> InvalidRequest:
    """The refusal of one of CREDENTIAL_FIELDS."""
    return InvalidRequest(
        f"Unrecognized request argument supplied: {name}. Where requests go is configured at the gateway.",
        param=name,
        code="unknown_parameter",
    )


def read(body: bytes, decoder: msgspec.json.Decoder[T], at: str = "") -> T:
    """Decode a body, or one field of it that stands at the path `at`.  Raises InvalidRequest."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as e:
        raise _explained(str(e), at) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidRequest("We could not parse the JSON body of your request.", param=at or None) from e


def read_whole(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """`read`, for a body that `read_fields` has not checked yet."""
    _check_text(body)
    return read(body, decoder)


def check_kinds(fields: dict[str, Raw], kinds: dict[str, tuple[str, ...]]) -> None:
    """Hold the JSON kind of each field that `kinds` names against it; null is always allowed."""
    for name, raw in fields.items():
        expected = kinds.get(name)
        if expected is not None:
            kind = kind_of(raw)
            if kind not in expected and kind != "null":
                raise InvalidRequest(
                    f"Invalid type for '{name}': expected {' or '.join(expected)}, but got {kind} instead.",
                    param=name,
                    code="invalid_type",
                )


def is_empty(array: Raw) -> bool:
    """Whether there is nothing in it; megabytes are not decoded for this.  Raises InvalidRequest."""
    return memoryview(array)[1:65].tobytes().strip(b" \t\r\n") in (b"", b"]") and not decode_raw(array)


def kind_of(raw: Raw) -> str:
    """The JSON kind of a value: string, object, array, boolean, null or number."""
    return _KINDS[memoryview(raw)[0]]


def whole_number(text: str | bytes, most: int) -> int | None:
    """The number that digits spell; None if it is none, or more than `most`."""
    # Python itself refuses to read thousands of digits, as an error of ours.
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        return None
    number = int(text)
    return number if number <= most else None


def missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _check_text(body: bytes) -> None:
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as e:
            raise InvalidRequest("The request body is not valid UTF-8.") from e
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX or (
        len(body) >= COUNTED_BYTES and (body.count(b":") > NAMES_MAX or body.count(b",") > VALUES_MAX)
    ):
        _check_shape(body)


def _check_shape(body: bytes) -> None:
    names = values = brackets = 0
    rest: list[bytes] = []
    for outside in _outside_strings(body):
        rest.append(outside.translate(_brackets, _no_brackets))
        brackets += len(rest[-1])
        if brackets > 2 * CONTAINERS_MAX:
            raise InvalidRequest(f"The JSON body has more than {CONTAINERS_MAX} arrays and objects.")
        names += outside.count(b":")
        if names > NAMES_MAX:
            raise InvalidRequest(f"The JSON body has more than {NAMES_MAX} names in its objects.")
        values += outside.count(b",")
        if values > VALUES_MAX:
            raise InvalidRequest(f"The JSON body has more than {VALUES_MAX} values.")
    if _too_deep(b"".join(rest)):
        raise InvalidRequest(f"The JSON body nests deeper than {DEPTH_MAX} levels.")


def _outside_strings(body: bytes) -> Iterator[bytes]:
    """What is not in strings, as far as the body is JSON."""
    at, inside = 0, False
    while at < len(body):
        piece = body[at : at + STEP_BYTES]
        at += len(piece)
        if at < len(body) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece, at = piece[:-1], at - 1  # an escape is not cut
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0


def _too_deep(rest: bytes) -> bool:
    # Brackets alone: peel the innermost pairs, all in C, no recursion.
    for _ in range(DEPTH_MAX):
        if not rest:
            return False
        peeled = rest.replace(b"()", b"")
        if len(peeled) == len(rest):
            # Unbalanced, so not JSON: the decoder will say so, unless what is left could overrun it.
            return len(rest) > DEPTH_MAX
        rest = peeled
    return bool(rest)


def _explained(message: str, at: str) -> InvalidRequest:
    found = _path.search(message)
    inner = found[1] if found else ""
    what = message[: found.start()] if found else message
    path = at + ("." if at and inner and not inner.startswith("[") else "") + inner
    if field := _missing.match(what):
        return missing(f"{path}.{field[1]}" if path else field[1])
    if field := _unknown.match(what):
        name = f"{path}.{field[1]}" if path else field[1]
        return InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if what.startswith("Expected `") and ", got `" in what:
        return InvalidRequest(
            f"Invalid type for '{path}': {what[0].lower()}{what[1:]}."
            if path
            else "The request body must be a JSON object.",
            param=path or None,
            code="invalid_type" if path else None,
        )
    if what in _TIMES:
        what += ", like 2026-11-22T08:00:00Z"
    return InvalidRequest(
        f"Invalid value for '{path}': {what}." if path else what, param=path or None, code="invalid_value"
    )


def decode_raw(raw: Raw | bytes) -> Any:
    """Decode a value of a body that has been checked already.  Raises InvalidRequest."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidRequest("We could not parse the JSON body of your request.") from e
