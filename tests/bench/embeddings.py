"""OpenAI's embeddings, as bytes: one text asked for, one vector in base64 back, as OpenAI's SDKs ask by default.

Wire format: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import struct

import msgspec
from msgspec import Struct

from tests.bench.passage import PROMPT_TOKENS, QUESTION, compact

DIMENSIONS = 1536
VECTOR = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *((n * 37 % 201 - 100) / 3000 for n in range(DIMENSIONS))))
"""That many float32, 8192 characters, which is what text-embedding-3-small answers with."""


class _Embedding(Struct, frozen=True):
    embedding: str


class _Answer(Struct, frozen=True):
    data: list[_Embedding]


_decode = msgspec.json.Decoder(_Answer).decode


def asked(model: str) -> bytes:
    """The request."""
    return compact({"input": QUESTION, "model": model, "encoding_format": "base64", "user": "bench"}).encode()


def answer() -> bytes:
    """The answer."""
    usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    data = [{"object": "embedding", "index": 0, "embedding": VECTOR.decode()}]
    return compact({"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}).encode()


def check_answer(body: bytes) -> str | None:
    """What is wrong with an answer; None when nothing is."""
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return "not an embedding"
    return None if [one.embedding.encode() for one in found.data] == [VECTOR] else "another vector"
