"""A gateway in front of stand-in providers, and what they do besides calling tools; fixtures, for conftest files."""

import base64
import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests import wire
from tests.claude import claude
from tests.clients import caller
from tests.exchange import Exchange
from tests.process import Gateway, gateway
from tests.provider import provider

DIMENSIONS = 8
PICTURE = str(json.loads(wire.fixture("images.json"))["data"][0]["b64_json"])
"""The picture that is drawn whatever the prompt: one pixel, PNG, base64."""


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A text's embedding; its numbers are whole, so that no float of any size changes them."""
    return [float(sum(text.encode()) % (n + 7)) for n in range(dimensions)]


async def embed(x: Exchange) -> None:
    given = x.json["input"]
    texts = [given] if isinstance(given, str) else given
    vectors = [vector(text, x.json.get("dimensions", DIMENSIONS)) for text in texts]
    rows: list[Any] = vectors
    if x.json.get("encoding_format") == "base64":
        rows = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
    data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    x.answer(wire.dump({"object": "list", "data": data, "model": "embedder", "usage": usage}))


async def paint(x: Exchange) -> None:
    """One picture, whatever is asked; an edit must bring one along."""
    if x.path.endswith("/edits") and not any(part.filename for part in x.form):
        x.answer(wire.error("No picture came along."), "400 Bad Request")
    else:
        x.answer(wire.fixture("images.json"))


async def see(x: Exchange) -> None:
    """How many pictures the last message holds, and of what media type."""
    content = x.json["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    words = f"I see {len(urls)}: {', '.join(url.partition(';')[0] for url in urls)}"
    if not x.streams:
        x.answer(wire.completion(words, "seer"))
        return
    x.begin()
    for frame in wire.stream(re.findall(r"\S+\s*", words), include_usage=x.wants_usage):
        x.send(frame)
    x.end()


@pytest.fixture(scope="session")
def stand_in_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """In front of an OpenAI-like provider (`auto` calls tools, `embedder`, `painter`, `seer`) and of
    one that speaks Anthropic's dialect (`claude`, and `thinker`, which thinks and then calls a tool)."""
    with provider() as upstream, claude() as anthropic:
        upstream.scripts |= {"caller": caller.play, "embedder": embed, "painter": paint, "seer": see}
        config = {
            "backends": {
                "provider": {"kind": "openai", "base_url": upstream.url, "api_key": "sk-provider"},
                "anthropic": {"kind": "anthropic", "base_url": anthropic.url, "api_key": "sk-ant-provider"},
            },
            "models": {
                "auto": {"routes": ["provider/caller"]},
                **{name: {"routes": [f"provider/{name}"]} for name in ("embedder", "painter", "seer")},
                "text-embedding-*": {"routes": ["provider/embedder"]},
                "claude": {"routes": ["anthropic/text"]},
                "thinker": {"routes": ["anthropic/thinking"]},
            },
        }
        with gateway(tmp_path_factory.mktemp("stand-in"), config) as running:
            yield running
        assert not upstream.broken
        assert not anthropic.broken
