"""What a GGUF file says of itself, read from its header alone.

Invariant: whatever the bytes are, and whoever cuts the file off meanwhile, the outcome is a `Header` or a ValueError,
after a bounded amount of work: counts and lengths are held against limits and the file's size before anything is
read, and what nobody asks for (the vocabulary) is stepped over.  Tensor data is never touched.  The file is read, not
mapped: a mapped one that becomes shorter ends the process that looks at it.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
import re
import stat
import struct
from functools import cache
from itertools import pairwise
from math import prod
from os import PathLike
from typing import Any, NoReturn

from compat.canonical.message import Value

KEYS_MAX = 65_536
TENSORS_MAX = 65_536
NAME_MAX_BYTES = 65_535
"""Of a key or a tensor's name, as the format prescribes."""
ARRAY_KEPT = 1024
"""Longer arrays are stepped over; per-layer settings are shorter."""
ARRAY_MAX = 1 << 26
TEXTS_MAX = 1 << 21
"""In all arrays of a file; the largest vocabularies are a million words and merges."""
TEXT_MAX_BYTES = 16 << 20
HEADER_MAX_BYTES = 64 << 20
READ_BYTES = 1 << 20
"""At a time."""
_AT_ONCE, _SHORT = 64, 47
"""How many texts are stepped over in one go where they are short, and what is: most tokens of a vocabulary."""
ELEMENTS_MAX = 1 << 50
"""Of all tensors; more is nonsense, and its sums would not fit any wire format."""
SAID_MAX = 200
"""Letters of a name or licence; a longer one is none."""
WHOLE_MAX = 1 << 31
"""A setting this large is none."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_READERS = {kind: struct.Struct("<" + code) for kind, code in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_u32, _u64 = _READERS[4], _READERS[10]

_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Tensor type → elements and bytes of one block."""
_LEAST = (8, 1)
"""The same for a type that is not known: no less than a bit for each element."""

_QUANTIZATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
}  # fmt: skip
"""`general.file_type` → the name people know."""

_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert"}
)
_RANK = 4
"""Of llama.cpp's ways to make one vector of many: the head of a reranker."""
_PROJECTOR = "mmproj"
_KEPT = frozenset({"general.alignment", "general.architecture", "general.file_type", "general.license"}) | {
    "general.name", "general.type", "clip.vision.projection_dim", "tokenizer.chat_template", "tokenizer.ggml.tokens",
}  # fmt: skip
_KEPT_OF_ALL = frozenset(
    {"context_length", "block_count", "embedding_length", "pooling_type"}
    | {f"attention.{name}" for name in ("head_count", "head_count_kv", "key_length", "value_length")}
)
"""Keys that every architecture has under its own name."""
_tools = re.compile(r"\btools\b|tool_call").search
_thinks = re.compile(r"enable_thinking|reasoning_content|<think(?:ing)?>|<\|channel").search


class Header(Value, frozen=True):
    """One model file.  None means that the file does not say."""

    architecture: str
    name: str | None
    parameters: int
    """How many numbers its tensors hold."""
    quantization: str | None
    context_length: int | None
    """In tokens, as trained."""
    size_bytes: int
    kv_bytes_per_token: int
    """What one token of context costs in memory, keys and values as 16-bit floats; an upper bound for
    models whose layers do not all keep the whole context.  0 when the file does not say."""
    layers: int
    width: int
    """Numbers that stand for one token inside it; for a projector, those of the model it belongs to."""
    vocabulary: int
    """Tokens it knows."""
    embeds: bool
    """It makes embeddings, not text."""
    ranks: bool
    """It says how well a text answers a question, and nothing else."""
    role: str
    """`model`, or what it adds to one: `mmproj` (a projector), `adapter`, …"""
    chat_template: bool
    tools: bool
    """The chat template mentions tools: without that, engines drop them silently."""
    thinks: bool
    """The chat template has a place for thoughts."""
    license: str | None
    truncated: bool
    """The file ends before its tensors do, as a broken download does."""
    unsure: bool
    """It has tensors of a type that is not known here, so that it may be truncated where it does not seem so."""


def read(path: str | PathLike[str]) -> Header:
    """Read a file's header.  Raises ValueError for what is not sound GGUF, OSError for what cannot be read.

    Messages name no path: they may reach a client.
    """
    # What is no regular file may wait for ever to be opened, or act on it.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("It is not a regular file.")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("It is not a regular file.")
        if status.st_size == 0:
            raise ValueError("The file is empty.")
        return _header(_Reader(file, status.st_size), status.st_size)
    finally:
        os.close(file)


class _Reader:
    """Walks through a header, a piece of the file in memory at a time.  Raises ValueError at its end."""

    def __init__(self, file: int, size: int) -> None:
        self._file = file
        self._end = min(size, HEADER_MAX_BYTES)
        self._data = b""
        self._begin = 0
        """Where the piece lies in the file."""
        self._texts = 0
        self.at = 0

    def number(self, reader: struct.Struct) -> Any:
        self._have(reader.size)
        (value,) = reader.unpack_from(self._data, self.at - self._begin)
        self.at += reader.size
        return value

    def count(self, what: str, limit: int) -> int:
        value: int = self.number(_u64)
        if value > limit:
            raise ValueError(f"The GGUF header claims {value} {what}; at most {limit} are read.")
        return value

    def text(self, limit: int = TEXT_MAX_BYTES) -> str:
        length: int = self.number(_u64)
        if length > limit:
            raise ValueError("The GGUF header has a text that is too long.")
        self._have(length)
        begin = self.at - self._begin
        self.at += length
        return self._data[begin : begin + length].decode("utf-8", "replace")

    def value(self, kind: int, *, inside: bool = False) -> Any:
        """A value of this kind; a long array, and one of texts, comes out as its length."""
        if kind in _READERS:
            return self.number(_READERS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or inside:
            raise ValueError(f"The GGUF header has a value of unknown type {kind}.")
        element, length = self._array()
        if element in _READERS and length <= ARRAY_KEPT:
            return [self.value(element, inside=True) for _ in range(length)]
        self._step_over(element, length)
        return length

    def skip(self, kind: int) -> None:
        """Step over a value of this kind."""
        element, length = self._array() if kind == _ARRAY else (kind, 1)
        self._step_over(element, length)

    def _array(self) -> tuple[int, int]:
        """What kind its elements are, and how many."""
        element: int = self.number(_u32)
        return element, self.count("array elements", ARRAY_MAX)

    def _step_over(self, element: int, length: int) -> None:
        if element in _READERS:
            self._step(_READERS[element].size * length)
        elif element == _STRING:
            self._step_over_texts(length)
        else:  # an array of arrays too: no engine reads one
            raise ValueError(f"The GGUF header has a value of unknown type {element}.")

    def _step(self, size: int) -> None:
        self.at += size
        if self.at > self._end:
            _cut()

    def _have(self, size: int) -> None:
        """Have so many bytes from here on in memory."""
        if self.at + size > self._end:
            _cut()
        if self.at + size > self._begin + len(self._data):
            wanted = min(max(size, READ_BYTES), self._end - self.at)
            self._data, self._begin = os.pread(self._file, wanted, self.at), self.at
            if len(self._data) < size:
                _cut()  # by somebody, just now

    def _step_over_texts(self, length: int) -> None:
        # A hundred thousand of them are usual: what is short goes by the many through one expression.
        self._texts += length
        if self._texts > TEXTS_MAX:
            raise ValueError(f"The GGUF header claims {self._texts} texts; at most {TEXTS_MAX} are read.")
        unpack, matched, left = _u64.unpack_from, _short_texts().match, length
        while left:
            self._have(_u64.size)
            data, at = self._data, self.at - self._begin
            last = len(data) - _u64.size
            while left and at <= last:
                if left >= _AT_ONCE and (many := matched(data, at)) is not None:
                    at = many.end()
                    left -= _AT_ONCE
                    continue
                for _ in range(min(left, _AT_ONCE)):
                    if at > last:
                        break
                    at += 8 + unpack(data, at)[0]
                    left -= 1
            self.at = self._begin + at
            if self.at > self._end:
                _cut()


@cache
def _short_texts() -> re.Pattern[bytes]:
    """Several texts of up to `_SHORT` bytes on end: each its length in eight bytes, and so many."""
    likely = sorted(range(_SHORT + 1), key=lambda size: abs(size - 7))
    kinds = b"|".join(re.escape(bytes([size])) + b"\\0{7}.{%d}" % size for size in likely)
    return re.compile(b"(?s:(?:%s){%d}+)" % (kinds, _AT_ONCE))


def _cut() -> NoReturn:
    raise ValueError("The GGUF header is cut off.")


def _header(reader: _Reader, size: int) -> Header:
    if reader.number(struct.Struct("<4s")) != b"GGUF":
        raise ValueError("The file is not GGUF.")
    version = reader.number(_u32)
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version} is not known.")
    tensors, keys = reader.count("tensors", TENSORS_MAX), reader.count("keys", KEYS_MAX)
    meta: dict[str, Any] = {}
    for _ in range(keys):
        key, kind = reader.text(NAME_MAX_BYTES), reader.number(_u32)
        if key in _KEPT or key.partition(".")[2] in _KEPT_OF_ALL:
            meta[key] = reader.value(kind)
        else:
            reader.skip(kind)
    parameters, tail, unsure = _tensors(reader, tensors)
    alignment = meta.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise ValueError("The GGUF header has an impossible alignment.")
    begin = -(-reader.at // alignment) * alignment

    architecture = _text(meta, "general.architecture") or "unknown"
    template = meta.get("tokenizer.chat_template")
    template = template if isinstance(template, str) and template else None
    file_type = meta.get("general.file_type")
    pooling = meta.get(f"{architecture}.pooling_type")
    role = _PROJECTOR if architecture == "clip" else _text(meta, "general.type") or "model"
    return Header(
        architecture=architecture,
        name=_text(meta, "general.name"),
        parameters=parameters,
        quantization=_QUANTIZATIONS.get(file_type) if isinstance(file_type, int) else None,
        context_length=_whole(meta.get(f"{architecture}.context_length")) or None,
        size_bytes=size,
        # Encoders read a text in one piece and keep nothing of it.
        kv_bytes_per_token=0 if architecture in _ENCODERS else _kv_bytes_per_token(meta, architecture),
        layers=_whole(meta.get(f"{architecture}.block_count")),
        width=_whole(
            meta.get("clip.vision.projection_dim" if role == _PROJECTOR else f"{architecture}.embedding_length")
        ),
        vocabulary=_length(meta.get("tokenizer.ggml.tokens")),
        embeds=pooling != _RANK and (architecture in _ENCODERS or pooling is not None),
        ranks=pooling == _RANK,
        role=role,
        chat_template=template is not None,
        tools=template is not None and _tools(template) is not None,
        thinks=template is not None and _thinks(template) is not None,
        license=_text(meta, "general.license"),
        truncated=size < begin + tail,
        unsure=unsure,
    )


def _tensors(reader: _Reader, count: int) -> tuple[int, int, bool]:
    """How many parameters the tensors hold, where the last of them ends after the header, and whether that is the
    least it can be."""
    parameters, unsure = 0, False
    places = []
    for _ in range(count):
        reader.text(NAME_MAX_BYTES)
        rank = reader.number(_u32)
        if rank > 8:
            raise ValueError(f"The GGUF header has a tensor of {rank} dimensions.")
        elements = prod(reader.number(_u64) for _ in range(rank))
        if parameters + elements > ELEMENTS_MAX:
            raise ValueError("The GGUF header has a tensor of impossible size.")
        kind, offset = reader.number(_u32), reader.number(_u64)
        parameters += elements
        unsure |= kind not in _BLOCKS
        per_block, block_bytes = _BLOCKS.get(kind, _LEAST)
        places.append((offset, offset + -(-elements // per_block) * block_bytes))
    places.sort()
    if any(end > following for (_, end), (following, _) in pairwise(places)):
        raise ValueError("The GGUF header has tensors that overlap.")
    return parameters, places[-1][1] if places else 0, unsure


def _kv_bytes_per_token(meta: dict[str, Any], architecture: str) -> int:
    def get(key: str) -> Any:
        return meta.get(f"{architecture}.{key}")

    layers, width = _whole(get("block_count")), _whole(get("embedding_length"))
    heads = _most(get("attention.head_count")) or 1
    kv_heads = get("attention.head_count_kv")
    per_layer = kv_heads if isinstance(kv_heads, list) else [_whole(kv_heads) or heads] * min(layers, ARRAY_KEPT)
    key = _whole(get("attention.key_length")) or width // heads
    value = _whole(get("attention.value_length")) or width // heads
    return min(sum(_whole(n) for n in per_layer) * (key + value) * 2, ELEMENTS_MAX)


def _text(meta: dict[str, Any], key: str) -> str | None:
    value = meta.get(key)
    return value if isinstance(value, str) and 0 < len(value) <= SAID_MAX else None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < WHOLE_MAX else 0


def _length(value: Any) -> int:
    """Of an array, which comes out as its length where it is long."""
    return len(value) if isinstance(value, list) else _whole(value)


def _most(value: Any) -> int:
    return max(map(_whole, value), default=0) if isinstance(value, list) else _whole(value)
