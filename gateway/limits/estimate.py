"""How many tokens a request may take, before anybody has counted them.

Twice: what is likely, for limits, where a guess too high keeps people waiting for nothing; and the most, for
budgets, where a guess too low would be spent.
"""

import math
import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.request import Dialect, Envelope

BYTES_PER_TOKEN = 4
"""Likely; at most there is a token for each."""
ANSWER_TOKENS = 256
"""Likely, of an answer whose length the request does not bound."""
ANSWER_MOST = 4096
"""Reserved of a budget for such an answer; longer ones can pass it."""
PICTURE_TOKENS, PICTURE_MOST = 1000, 8000
"""Of a picture in a request, wherever it is."""
DRAWN_TOKENS, DRAWN_MOST = 1000, 6500
"""Of a picture in an answer, where its provider counts in tokens."""
KEPT_MOST = 200_000
"""Of a conversation that is kept, and not in the request, where the model's own bound is unknown."""
TEMPLATE_TOKENS = 500
"""What providers put around a request, for tools above all."""
BOUND_MAX = 1_000_000_000
CHOICES_MAX = 1000

_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_PICTURES: frozenset[Dialect] = frozenset({"images", "image_edits"})
_SAID = ("messages", "input")
_INLINE = frozenset({"url", "image_url", "file_data", "data"})
_shown = re.compile(rb'"type"\s*:\s*"(?:image_url|input_image|image)"').findall


class _Parameters(Struct):
    max_tokens: float | None = None


_read_parameters = msgspec.json.Decoder(_Parameters).decode
_read_number = msgspec.json.Decoder(float | None).decode


class _Content(Struct):
    """What is in a request besides its text."""

    pictures: int = 0
    inline_bytes: int = 0
    """Of all that is in it as base64."""
    files_bytes: int = 0
    """The part of these that is no picture."""


def likely(envelope: Envelope) -> float:
    """The tokens of a request and its answer, as far as one can guess."""
    content = _content(envelope)
    text = len(envelope.body) - content.inline_bytes
    pictures = PICTURE_TOKENS * content.pictures + content.files_bytes / 16
    return text / BYTES_PER_TOKEN + pictures + _answer(envelope, ANSWER_TOKENS, DRAWN_TOKENS)


def most(envelope: Envelope) -> tuple[int, int]:
    """The most tokens that a request has, and that it lets its answer have."""
    content = _content(envelope)
    asked = len(envelope.body) - content.inline_bytes + content.files_bytes * 3 // 4
    asked += PICTURE_MOST * content.pictures + TEMPLATE_TOKENS
    if envelope.dialect == "responses" and _refers(envelope):
        asked = max(asked, KEPT_MOST)
    return asked, _answer(envelope, ANSWER_MOST, DRAWN_MOST)


def _answer(envelope: Envelope, unsaid: int, drawn: int) -> int:
    fields = envelope.fields
    if envelope.dialect == "embeddings":
        return 0
    choices = 1
    if "n" in fields or "best_of" in fields:
        choices = max(1, _number(fields.get("n")) or 1, _number(fields.get("best_of")) or 1)
    if envelope.dialect in _PICTURES:
        return drawn * min(choices, CHOICES_MAX)
    bound: int | None = None
    for name in _BOUNDS:
        if name in fields and (found := _number(fields[name])) is not None and (bound is None or found > bound):
            bound = found
    if envelope.dialect == "native" and "parameters" in fields:
        said = _read_parameters(fields["parameters"]).max_tokens
        bound = None if said is None else _bounded(said)
    return (unsaid if bound is None else bound) * min(choices, CHOICES_MAX)


def _number(raw: Raw | None) -> int | None:
    if raw is None:
        return None
    text = bytes(raw)
    if text.isdigit():
        # Cut: numbers without end are neither to be read nor to be added to a float.
        return min(int(text[:12]), BOUND_MAX)
    try:
        found = _read_number(text)
    except msgspec.DecodeError:
        return None
    return None if found is None else _bounded(found)


def _bounded(number: float) -> int:
    return int(min(max(number, 0), BOUND_MAX)) if math.isfinite(number) else BOUND_MAX


def _refers(envelope: Envelope) -> bool:
    """Whether it goes on with something that is kept elsewhere."""
    previous = bytes(envelope.fields.get("previous_response_id", b"null"))
    return previous != b"null" or b"item_reference" in envelope.body


def _content(envelope: Envelope) -> _Content:
    body = envelope.body
    if envelope.content_type:
        files = body.count(b"filename=")
        return _Content(files, len(body) - sum(map(_length, envelope.fields.values())))
    lists = envelope.dialect == "native" and b'"images"' in body
    if b"base64" not in body and not lists:
        return _Content(len(_shown(body))) if b"image" in body else _NOTHING
    found = _Content()
    for name in _SAID:
        if name in envelope.fields:
            _look(msgspec.json.decode(envelope.fields[name]), found)
    return found


def _look(value: Any, found: _Content) -> None:
    if isinstance(value, list):
        for part in value:
            _look(part, found)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind == "tool_use":  # which may say anything, as text
            return
        found.pictures += kind in ("image_url", "input_image", "image")
        if kind == "base64" and isinstance(data := value.get("data"), str):
            _inline(data, str(value.get("media_type")).startswith("image/"), found)
            return
        for name, part in value.items():
            if isinstance(part, (dict, list)):
                if name == "images" and isinstance(part, list):
                    found.pictures += len(part)
                    for one in part:
                        if isinstance(one, str) and one.startswith("data:"):
                            _inline(one, True, found)
                else:
                    _look(part, found)
            elif name in _INLINE and isinstance(part, str) and part.startswith("data:"):
                _inline(part, part.startswith("data:image/"), found)


def _inline(data: str, picture: bool, found: _Content) -> None:
    found.inline_bytes += len(data)
    if not picture:
        found.files_bytes += len(data)


def _length(raw: Raw) -> int:
    return memoryview(raw).nbytes


_NOTHING = _Content()
