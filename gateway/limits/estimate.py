"""How many tokens a request may take, before anybody has counted them.

Twice: what is likely, for limits, where a guess too high keeps people waiting for nothing; and the most, for
budgets, where a guess too low would be spent.
"""

import math
import re
import weakref
from itertools import islice
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
"""Answers to one prompt, and prompts of one request."""
STRUCTURE_MAX = 10_000
"""Objects, lists and commas of a body that is looked at part by part; what has more is only searched."""

_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_PICTURES: frozenset[Dialect] = frozenset({"images", "image_edits"})
_SAID = ("messages", "input")
_INLINE = frozenset({"url", "image_url", "file_data", "data"})
_shown = re.compile(rb'"type"\s*:\s*"(?:image_url|input_image|image)"').findall
# Possessive: one pass over the body, whatever it holds.
_string = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL).finditer
_first = re.compile(rb"\[\s*+(.)", re.DOTALL).match
# And literal to begin with, which is looked for several times as fast as anything else.
_urls = re.compile(
    rb'"data:(?:(?<=(?:url|ata)":"data:)|(?<=(?:url|ata)": "data:))'
    rb'(?P<picture>image\\?/)?+[^",]{0,200}+,[A-Za-z0-9+/\\]*+={0,2}+"'
).finditer
_bare = re.compile(rb'"data"\s*+:\s*+"(?P<picture>iVBOR|/9j/|R0lGOD|UklGR.{7}RUJQ)?+[A-Za-z0-9+/\\]*+={0,2}+"').finditer
"""Base64 under the names that it has in requests; pictures by how their files begin: PNG, JPEG, GIF, WebP."""


class _Parameters(Struct):
    max_tokens: Raw = Raw(b"null")


class _Pictures(Struct):
    images: list[str] = []


_read_parameters = msgspec.json.Decoder(_Parameters).decode
_read_pictures = msgspec.json.Decoder(_Pictures).decode
_read_documents = msgspec.json.Decoder(list[Raw]).decode
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
    text += _repeated(envelope)
    return text / BYTES_PER_TOKEN + pictures + _answer(envelope, ANSWER_TOKENS, DRAWN_TOKENS)


def most(envelope: Envelope) -> tuple[int, int]:
    """The most tokens that a request has, and that it lets its answer have."""
    content = _content(envelope)
    asked = len(envelope.body) - content.inline_bytes + content.files_bytes * 3 // 4
    asked += PICTURE_MOST * content.pictures + TEMPLATE_TOKENS
    if envelope.dialect == "responses" and _refers(envelope):
        asked = max(asked, KEPT_MOST)
    return asked + _repeated(envelope), _answer(envelope, ANSWER_MOST, DRAWN_MOST)


def _repeated(envelope: Envelope) -> int:
    """Bytes that are read more often than they are sent: a query, with each document that it ranks."""
    if envelope.dialect != "rerank":
        return 0
    return len(bytes(envelope.fields["query"])) * len(_read_documents(envelope.fields["documents"]))


def _answer(envelope: Envelope, unsaid: int, drawn: int) -> int:
    fields = envelope.fields
    if envelope.dialect in ("embeddings", "rerank", "3d"):
        return 0
    if envelope.dialect == "native" and bytes(envelope.fields.get("modality", b"")) in (b'"embedding"', b'"3d"'):
        return 0
    choices = 1
    if "n" in fields or "best_of" in fields:
        choices = max(1, _number(fields.get("n")) or 1, _number(fields.get("best_of")) or 1)
    choices = min(choices, CHOICES_MAX)
    if envelope.dialect in _PICTURES:
        return drawn * choices
    if envelope.dialect == "completions":
        choices *= _prompts(fields["prompt"])
    bound: int | None = None
    for name in _BOUNDS:
        if name in fields and (found := _number(fields[name])) is not None and (bound is None or found > bound):
            bound = found
    if envelope.dialect == "native" and "parameters" in fields:
        bound = _number(_read_parameters(fields["parameters"]).max_tokens)
    return min((unsaid if bound is None else bound) * choices, BOUND_MAX * CHOICES_MAX)


def _prompts(prompt: Raw) -> int:
    """How many answers a completion's prompt asks for: it may be a list of texts, or of texts as token ids."""
    text = bytes(prompt)
    first = _first(text)
    if first is None or first[1] not in b'"[':
        return 1
    if first[1] == b"[":
        return min(text.count(b"[") - 1, CHOICES_MAX)
    return sum(1 for _ in islice(_string(text), CHOICES_MAX))


def _number(raw: Raw | None) -> int | None:
    """A number above 0; None for anything else."""
    if raw is None:
        return None
    text = bytes(raw)
    if text.isdigit():
        # Cut: numbers without end are neither to be read nor to be added to a float.
        return min(int(text[:12]), BOUND_MAX) or None
    if text.startswith(b"-"):
        return None
    try:
        found = _read_number(text)
    except msgspec.DecodeError:
        return BOUND_MAX if text[:1].isdigit() else None  # out of a float's range
    if found is None:
        return None
    return int(min(found, BOUND_MAX)) or None if math.isfinite(found) else BOUND_MAX


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
    if b"base64" not in body and b"input_audio" not in body and not lists:
        return _Content(len(_shown(body))) if b"image" in body else _NOTHING
    # Megabytes to look through, and more than one asks.
    key = id(envelope)
    if (known := _known.get(key)) is None:
        gone = weakref.ref(envelope, lambda _: _known.pop(key))
        known = _known[key] = gone, _looked(envelope)
    return known[1]


def _looked(envelope: Envelope) -> _Content:
    body, found = envelope.body, _Content()
    if envelope.dialect == "3d":
        return _Content(1, _length(envelope.fields["image"])) if "image" in envelope.fields else found
    said = [envelope.fields[name] for name in _SAID if name in envelope.fields]
    try:
        if envelope.dialect == "native":
            for url in _read_pictures(envelope.fields["input"]).images:
                found.pictures += 1
                if url.startswith("data:"):
                    _inline(url, True, found)
        if all(body.count(mark) <= STRUCTURE_MAX for mark in (b"{", b"[", b",")):
            for value in said:
                _look(msgspec.json.decode(value), found)
            return found
    except (msgspec.DecodeError, RecursionError):
        # A number that is out of range, say: a provider may refuse it, or not; here it is all text.
        return _Content(len(_shown(body)))
    found.pictures += len(_shown(body))
    for value in said:
        for search in (_urls, _bare):
            for match in search(memoryview(value)):
                size = match.end() - match.start()
                found.inline_bytes += size
                if match["picture"] is None:
                    found.files_bytes += size
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
            if name == "input_audio" and isinstance(part, dict) and isinstance(data := part.get("data"), str):
                _inline(data, False, found)
            elif isinstance(part, (dict, list)):
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
_known: dict[int, tuple[weakref.ref[Envelope], _Content]] = {}
"""By the id of an envelope, as long as there is one."""
