"""OpenAI's embeddings, both directions.  Source: https://platform.openai.com/docs/api-reference/embeddings

The SDK asks for base64 (little-endian float32) unless told otherwise, and many backends answer with
numbers all the same: the client gets the form it asked for, whatever came back.
"""

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, decode_raw, is_empty, kind_of, missing, read, read_fields
from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.event import Result
from compat.canonical.request import EmbeddingRequest, Envelope
from compat.openai.envelope import envelope
from compat.openai.error import verdict
from compat.openai.limits import EMBEDDINGS, check_numbers
from compat.openai.tap import WholeTap
from compat.openai.usage import parse_usage

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "input": ("string", "array"),
    "encoding_format": ("string",),
    "dimensions": ("number",),
    "user": ("string",),
}
"""What the fields that are looked at may be in JSON, besides null."""
ENCODINGS = ("float", "base64")
INPUTS_MAX = 2048
"""Inputs in one request, OpenAI's own limit."""
_write = msgspec.json.Encoder().encode


class EmbeddingsRequest(Struct):
    """What is read of a request when it has to be translated."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


class _Answer(Struct):
    data: list[dict[str, Raw]] | None = None
    usage: Raw = Raw()
    error: Raw = Raw()
    model: str | None = None


class _Vector(Struct):
    index: int
    embedding: str


class _Packed(Struct):
    data: list[_Vector]


_MODELLED = frozenset(EmbeddingsRequest.__struct_encode_fields__)
_read_request = msgspec.json.Decoder(EmbeddingsRequest)
_read_packed = msgspec.json.Decoder(_Packed).decode
_read_answer = msgspec.json.Decoder(_Answer).decode
_read_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_read_vector = msgspec.json.Decoder(list[float]).decode
_read_text = msgspec.json.Decoder(str).decode


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    given = fields.get("input")
    if given is None or kind_of(given) == "null":
        raise missing("input")
    # What stands in it is for the provider to judge: some take pictures here.
    if kind_of(given) == "array" and is_empty(given):
        raise InvalidRequest("Invalid 'input': the array is empty.", param="input", code="empty_array")
    return msgspec.structs.replace(envelope("embeddings", fields, body), stream=False, wants_usage=True)


def parse_request(asked: Envelope) -> EmbeddingRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = read(asked.body, _read_request)
    check_numbers(asked.fields, EMBEDDINGS)
    if body.encoding_format not in (*ENCODINGS, None):
        raise InvalidRequest(
            "Invalid value for 'encoding_format': it is 'float' or 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    given = body.input
    inputs: tuple[str | tuple[int, ...], ...]
    if isinstance(given, str):
        inputs = (_input(given, "input"),)
    elif all(isinstance(one, int) for one in given):
        inputs = (_input([one for one in given if isinstance(one, int)], "input"),)
    elif len(given) > INPUTS_MAX:
        raise InvalidRequest(
            f"Invalid 'input': at most {INPUTS_MAX} inputs.", param="input", code="array_above_max_length"
        )
    else:
        inputs = tuple(_input(one, f"input[{n}]") for n, one in enumerate(given))
    return EmbeddingRequest(
        model=asked.model,
        inputs=inputs,
        dimensions=body.dimensions,
        user=body.user,
        extra={name: decode_raw(raw) for name, raw in asked.fields.items() if name not in _MODELLED},
    )


def render_result(result: Result, asked: Envelope) -> bytes:
    """Write vectors as the body of an embeddings answer, in the encoding asked for."""
    base64_ = _wants_base64(asked)
    data = [
        {"object": "embedding", "index": n, "embedding": _pack(vector) if base64_ else vector}
        for n, vector in enumerate(result.vectors)
    ]
    tokens = result.usage.input_tokens or 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _write({"object": "list", "data": data, "model": result.started.model, "usage": usage})


def envelope_of(inputs: Sequence[str | tuple[int, ...]], model: str) -> Envelope:
    """The request that asks a server for the vectors of these texts, in the shorter form."""
    fields = {"model": model, "input": inputs, "encoding_format": "base64"}
    return Envelope(
        dialect="embeddings",
        model=model,
        stream=False,
        fields={name: Raw(_write(value)) for name, value in fields.items()},
        body=_write(fields),
    )


def parse_answer(body: bytes) -> list[tuple[float, ...]]:
    """The vectors in an answer to `envelope_of` that `EmbeddingsTap` has taken.  Raises BadResponse."""
    try:
        vectors = {one.index: tuple(_unpack(one.embedding)) for one in _read_packed(body).data}
    except (msgspec.DecodeError, ValueError) as e:
        raise BadResponse("The vectors in an answer could not be read.") from e
    return [vector for _, vector in sorted(vectors.items())]


class EmbeddingsTap(WholeTap):
    """Watches an embeddings answer and gives its vectors the form asked for."""

    def __init__(self, asked: Envelope) -> None:
        super().__init__()
        self._wants_base64 = _wants_base64(asked)

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer and return what the client gets; None when it is none."""
        try:
            answer = _read_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if bytes(answer.error) not in (b"", b"null"):
            self.failure = verdict(msgspec.json.decode(answer.error))
            return body
        if answer.data is None:
            return None
        self.usage, self.model = parse_usage(answer.usage), answer.model
        wrong = b"[" if self._wants_base64 else b'"'
        if any(bytes(one.get("embedding", Raw())).startswith(wrong) for one in answer.data):
            try:
                body = self._reencoded(body, answer.data)
            except (msgspec.DecodeError, ValueError):
                return None
        self.began = self.finished = True
        return body

    def _reencoded(self, body: bytes, data: list[dict[str, Raw]]) -> bytes:
        for one in data:
            raw = bytes(one.get("embedding", Raw()))
            if self._wants_base64 and raw.startswith(b"["):
                one["embedding"] = Raw(_write(_pack(_read_vector(raw))))
            elif not self._wants_base64 and raw.startswith(b'"'):
                one["embedding"] = Raw(_write(_unpack(_read_text(raw))))
        fields: dict[str, Any] = dict(_read_fields(body))
        fields["data"] = data
        return _write(fields)


def _wants_base64(asked: Envelope) -> bool:
    format_ = asked.fields.get("encoding_format")
    return format_ is not None and bytes(format_) == b'"base64"'


def _input(one: str | int | list[int], at: str) -> str | tuple[int, ...]:
    if isinstance(one, int):
        raise InvalidRequest(f"Invalid type for '{at}': texts and tokens are mixed.", param=at, code="invalid_type")
    if not one:
        kind = "string" if isinstance(one, str) else "array"
        raise InvalidRequest(f"Invalid '{at}': empty {kind}.", param=at, code=f"empty_{kind}")
    if isinstance(one, str):
        return one
    if min(one) < 0:
        raise InvalidRequest(f"Invalid '{at}': a token is below 0.", param=at, code="integer_below_min_value")
    return tuple(one)


def _pack(vector: tuple[float, ...] | list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _unpack(text: str) -> list[float]:
    numbers = array("f", base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
