"""What the gateway costs a local model: tokens a second and time to the first token, beside the worker asked itself.

The two take turns, so that a busy machine meets both; the figures are medians of the pairs' own ratios and differences.
"""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from msgspec import Struct

from tests.backends.local.bench import model_path
from tests.bench import engine
from tests.bench.report import Table
from tests.process import gateway

PAIRS = 10
TOKENS = 64
FIRSTS = 200
RATIO = 0.95
FIRST_MS = 5.0
_TELL = """
import backends.local.worker as worker
_start = worker.Worker.start
async def start(self):
    await _start(self)
    open({path!r}, "w").write(self.url + " " + self.key)
worker.Worker.start = start
"""
"""Has the gateway tell where its worker is, which it tells nobody."""


class Side(Struct, frozen=True):
    """Where to ask: through the gateway, or the worker itself."""

    url: str
    key: str
    model: str


async def _stream(session: aiohttp.ClientSession, side: Side, tokens: int, n: int) -> tuple[float, int]:
    """Seconds to the first word, and how many pieces came."""
    body = {
        "model": side.model,
        "messages": [{"role": "user", "content": f"Story {n}: tell me of a fox and a crow."}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
    }
    began, first, pieces = time.perf_counter(), 0.0, 0
    # Engines drop idle connections; one that is being dropped must not be reused.
    headers = {"authorization": f"Bearer {side.key}", "connection": "close"}
    async with session.post(f"{side.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if line.startswith(b"data: {") and b'"content":' in line and b'"content":null' not in line:
                first = first or time.perf_counter() - began
                pieces += 1
    return first, pieces


async def _rate(session: aiohttp.ClientSession, side: Side, streams: int, n: int) -> float:
    """Tokens a second of so many streams together, prompt included."""
    began = time.perf_counter()
    done = await asyncio.gather(*(_stream(session, side, TOKENS, n * 10 + one) for one in range(streams)))
    return sum(pieces for _, pieces in done) / (time.perf_counter() - began)


async def _rates(gate: Side, worker: Side, streams: int, pairs: int) -> tuple[float, float, float]:
    """Through the gateway, direct, and the median of the pairs' ratios."""
    through, direct = [], []
    async with aiohttp.ClientSession() as session:
        await _rate(session, gate, streams, 0)
        for n in range(1, pairs + 1):
            # Which of the two comes first alternates: the second may find a warmer cache.
            first, second = (gate, worker) if n % 2 else (worker, gate)
            rates = {first.url: await _rate(session, first, streams, n)}
            rates[second.url] = await _rate(session, second, streams, n)
            through.append(rates[gate.url])
            direct.append(rates[worker.url])
    return median(through), median(direct), median(t / d for t, d in zip(through, direct, strict=True))


async def _firsts(gate: Side, worker: Side, times: int) -> tuple[float, float, float]:
    through, direct = [], []
    async with aiohttp.ClientSession() as session:
        for n in range(times + 10):
            t, _ = await _stream(session, gate, TOKENS, n)
            d, _ = await _stream(session, worker, TOKENS, n)
            if n >= 10:
                through.append(t * 1000)
                direct.append(d * 1000)
    return median(through), median(direct), median(t - d for t, d in zip(through, direct, strict=True))


def _sides(folder: Path, url: str, model: str) -> tuple[Side, Side]:
    where, key = (folder / "worker").read_text().split()
    return Side(url, "local", f"local/{model}"), Side(where, key, model)


def _config(folder: Path, **local: Any) -> dict[str, Any]:
    models = folder / "models"
    models.mkdir(exist_ok=True)
    shutil.copy(model_path(), models / "m.gguf")
    settings = {"kind": "local", "model_dirs": [str(models)], "threads": 1, "context_max": 2048, **local}
    return {"backends": {"local": settings}, "models": {}}


def measure(*, quick: bool = False) -> Table:
    pairs, firsts = (2, 20) if quick else (PAIRS, FIRSTS)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        prelude = _TELL.format(path=str(folder / "worker"))
        with gateway(folder, _config(folder, engine="xllamacpp"), prelude=prelude) as running:
            asyncio.run(_warm(running.url))
            gate, worker = _sides(folder, running.url, "m")
            for streams in (1, 4):
                through, direct, ratio = asyncio.run(_rates(gate, worker, streams, pairs))
                verdict = "ok" if ratio >= RATIO else "MISSED"
                name = "tokens/s, one stream" if streams == 1 else f"tokens/s, {streams} streams"
                rows.append((name, f"{through:.1f}", f"{direct:.1f}", f"× {ratio:.3f}", f"≥ {RATIO}", verdict))
        program = engine.program(folder)
        fake = _config(folder, engine="llama_server", llama_server=str(program))
        with gateway(folder, fake, prelude=prelude) as running:
            asyncio.run(_warm(running.url))
            gate, worker = _sides(folder, running.url, "m")
            through, direct, added = asyncio.run(_firsts(gate, worker, firsts))
            verdict = "ok" if added <= FIRST_MS else "MISSED"
            first = (f"{through:.2f}", f"{direct:.2f}", f"+ {added:.2f}", f"≤ {FIRST_MS:g}", verdict)
            rows.append(("first token, fake engine, ms", *first))
    return Table("local models", ("what", "through", "direct", "difference", "target", ""), rows)


async def _warm(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await _stream(session, Side(url, "local", "local/m"), 2, 0)
