"""A stand-in for Hugging Face's router, its hub and the providers behind them: what it answers, by path."""

from collections.abc import Callable
from typing import Any

from backends.huggingface import HuggingFaceBackend
from tests import wire
from tests.exchange import Exchange, Script
from tests.provider import Provider

TOKEN = "hf_token_canary_4410"
PNG = b"\x89PNG\r\n\x1a\n picture"
JPEG = b"\xff\xd8\xff picture"
HUB = "/api/models/"
EMBED = "/hf-inference/models/org/embedder/pipeline/feature-extraction"
DRAW = "/hf-inference/models/org/painter"
Make = Callable[..., HuggingFaceBackend]


class Hub:
    """What the stand-in answers, by path; it says who serves which model."""

    def __init__(self, upstream: Provider) -> None:
        self.upstream = upstream
        self.scripts: dict[str, Script] = {}
        self.serving: dict[str, dict[str, Any]] = {}

    async def play(self, x: Exchange) -> None:
        path = x.path.partition("?")[0]
        if path.startswith(HUB):
            mapping = self.serving.get(path.removeprefix(HUB))
            if mapping is None:
                x.answer(b'{"error":"Repository not found"}', "404 Not Found")
            else:
                x.answer(wire.dump({"id": path.removeprefix(HUB), "inferenceProviderMapping": mapping}))
            return
        await self.scripts[path](x)

    def serve(self, model: str, task: str, provider: str = "hf-inference", name: str | None = None) -> None:
        row = {"status": "live", "providerId": name or model, "task": task}
        self.serving.setdefault(model, {})[provider] = row

    def answer(self, path: str, body: bytes, status: str = "200 OK", **headers: str) -> None:
        async def script(x: Exchange) -> None:
            x.answer(body, status, **headers)

        self.scripts[path] = script

    def asked(self, path: str) -> list[Exchange]:
        return [x for x in self.upstream.seen if x.path.partition("?")[0] == path]
