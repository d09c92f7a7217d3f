"""What Hugging Face's inference providers answer: vectors, pictures and errors, each in several shapes.

Sources: https://huggingface.co/docs/inference-providers/tasks/feature-extraction and …/text-to-image, and
`get_response` of each module in `huggingface_hub.inference._providers`.
"""

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.error import BadResponse
from compat.canonical.event import Usage
from compat.magic import mime_of
from compat.openai import error as openai
from compat.openai.error import Verdict
from compat.openai.usage import parse_usage

Vector = tuple[float, ...]

LOADING = "model_loading"
"""Our code for the verdict that a model is being loaded, which Hugging Face tells by `estimated_time`."""


class _Item(Struct):
    embedding: list[float]
    index: int | None = None


class _Embeddings(Struct):
    data: list[_Item]
    usage: Raw = Raw()


_decode = msgspec.json.Decoder().decode
_read_embeddings = msgspec.json.Decoder(_Embeddings).decode


def parse_error(body: bytes) -> Verdict:
    """Read whatever came with a status of 400 or more; never raises."""
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict()
    if not isinstance(value, dict):
        return Verdict()
    said = value.get("error")
    if isinstance(said, list):
        value = {**value, "error": "; ".join(one for one in said if isinstance(one, str))}
    wait = value.get("estimated_time")
    if isinstance(wait, (int, float)) and not isinstance(wait, bool):
        return Verdict(code=LOADING, retry_after_s=float(wait))
    return openai.parse_error(msgspec.json.encode(value))


def error_in(body: bytes) -> Verdict | None:
    """The error inside an answer of status 200, if it is one."""
    if not body.startswith(b"{") or b'"error"' not in body[:512]:
        return None
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return openai.verdict(value["error"]) if value.get("error") else None


def vectors_of(body: bytes, count: int) -> tuple[list[Vector], Usage | None]:
    """The vectors of so many texts, one each, and usage where it is said.  Raises BadResponse.

    A model without a pooling layer answers with a vector for each token; those are averaged, which is
    the default of sentence-transformers.
    """
    try:
        if body.lstrip()[:1] == b"{":
            answer = _read_embeddings(body)
            rows = [one.embedding for one in sorted(answer.data, key=_index)]
            vectors, usage = [tuple(row) for row in rows], parse_usage(answer.usage)
        else:
            nested = msgspec.json.decode(body, type=list[Any])
            # One text may be answered without the list around it.
            texts = nested if len(nested) == count and _rank(nested) > 1 else [nested]
            vectors, usage = [_pooled(one) for one in texts], None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as e:
        raise BadResponse("The provider's answer is not one of vectors.") from e
    if len(vectors) != count or len({len(vector) for vector in vectors}) != 1:
        raise BadResponse("The provider's answer does not have one vector for each input.")
    return vectors, usage


def picture_of(body: bytes) -> bytes | str:
    """A picture, or the URL where it is.  Raises BadResponse."""
    if mime_of(body) is not None:
        return body
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadResponse("The provider's answer is not a picture.") from e
    found = _found(value)
    if isinstance(found, str) and found.startswith(("https://", "http://")):
        return found
    if isinstance(found, str):
        try:
            return base64.b64decode(found.partition(",")[2] if found.startswith("data:") else found, validate=True)
        except (binascii.Error, ValueError) as e:
            raise BadResponse("The provider's picture is not base64.") from e
    raise BadResponse("The provider's answer has no picture.")


def _index(item: _Item) -> int:
    return item.index or 0


def _rank(value: Any) -> int:
    return 1 + _rank(value[0]) if isinstance(value, list) and value else 0


def _pooled(value: Any) -> Vector:
    while _rank(value) > 2 and len(value) == 1:
        value = value[0]
    if _rank(value) == 1:
        return tuple(float(number) for number in value)
    if _rank(value) == 2:
        return tuple(sum(column) / len(value) for column in zip(*value, strict=True))
    raise ValueError("neither a vector nor a list of vectors")


def _found(value: Any) -> Any:
    """OpenAI's `data`, fal's `images`, Replicate's `output`: a row, a URL or base64."""
    if not isinstance(value, dict):
        return None
    for name in ("data", "images", "output", "image"):
        row = value.get(name)
        row = row[0] if isinstance(row, list) and row else row
        if isinstance(row, dict):
            row = row.get("b64_json") or row.get("url")
        if isinstance(row, str):
            return row
    return None
