"""A scene of local models: more of them than memory holds, asked by many, left and killed at any moment.

Three copies of the embedded text model and the embedding model under a limit that holds two text models.  What is
checked is seen from outside the gateway: the answers, and the processes as the system knows them.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from msgspec import Struct, field

from tests.backends.local.bench import model_path
from tests.load.result import Figure, Progress, Result, rank, words
from tests.process import Gateway, gateway

TEXTS = ("a", "b", "c")
VECTORS = "all-minilm-l6-v2"
HOLDS = 2.3
"""Text models that the limit holds."""
CLIENTS = 12
LEAVES = 0.15
"""The share of requests whose client does not stay."""
KILL_EVERY = 50
"""Requests between two deaths."""
WEDGED_S = 120.0
SAMPLE_S = 0.1
_file = re.compile(r"/([^/]+)\.gguf$", re.MULTILINE)


class Seen(Struct):
    """What was seen of the processes."""

    twice: int = 0
    most: int = 0
    """Bytes of all workers together, shared pages counted once."""
    starts: set[int] = field(default_factory=set)
    killed: dict[str, list[float]] = field(default_factory=dict)
    """When a worker of this model was killed by us."""


class Outcomes(Struct):
    ended: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    """Crashes that nobody brought about, and truncated answers."""
    waits: list[float] = field(default_factory=list)


def pool(folder: Path, requests: int, say: Progress) -> Result:
    """Play the scene with so many requests."""
    models = folder / "models"
    models.mkdir(parents=True)
    for name in TEXTS:
        shutil.copy(model_path(), models / f"{name}.gguf")
    with gateway(folder, _config(models, "100%")) as running:
        need = asyncio.run(_need(running.url))
    limit = int(need * HOLDS)
    with gateway(folder, _config(models, limit)) as running:
        return asyncio.run(_play(running, requests, limit, say))


def _config(models: Path, memory_max: int | str) -> dict[str, Any]:
    local = {
        "kind": "local",
        "model_dirs": [str(models)],
        "memory_max": memory_max,
        "max_loaded": 4,
        "slots": 2,
        "context_max": 1024,
        "threads": 1,
    }
    return {"backends": {"local": local}, "models": {}}


async def _need(url: str) -> int:
    """What one text model is found to take."""
    async with aiohttp.ClientSession(url) as session:
        async with session.post(f"/v1/models/local%2F{TEXTS[0]}/load") as response:
            assert response.status == 200, await response.text()
        async with session.get(f"/v1/models/local%2F{TEXTS[0]}/status") as response:
            return int((await response.json())["memory_bytes"])


async def _play(running: Gateway, requests: int, limit: int, say: Progress) -> Result:
    rng = random.Random(1)  # noqa: S311
    seen, outcomes, begun = Seen(), Outcomes(), time.monotonic()
    gates, done = asyncio.Semaphore(CLIENTS), 0
    watching = asyncio.create_task(_watch(running, seen))

    async def one(session: aiohttp.ClientSession, seed: int) -> None:
        nonlocal done
        async with gates:
            if seed % KILL_EVERY == KILL_EVERY - 1:
                await asyncio.to_thread(_kill, running, seen, random.Random(seed))  # noqa: S311
            await _ask(session, random.Random(seed), outcomes, seen)  # noqa: S311
            done += 1
            say(f"{done} of {requests}; {words(dict(outcomes.ended))}")

    async with aiohttp.ClientSession(running.url, timeout=aiohttp.ClientTimeout(total=WEDGED_S)) as session:
        async with asyncio.TaskGroup() as crowd:
            for seed in rng.sample(range(requests), requests):
                crowd.create_task(one(session, seed))
        last = Outcomes()
        for model in (*TEXTS, VECTORS):  # nothing is wedged: each still answers
            await _settled(session, model, last, seen)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    took, kills = time.monotonic() - begun, sum(map(len, seen.killed.values()))
    running.stop()
    await asyncio.sleep(0.5)
    left = [pid for pid in seen.starts if psutil.pid_exists(pid)]
    return Result(
        f"{requests} requests for four local models where two fit",
        [
            Figure("took", took, "s", note=f"{CLIENTS} clients, {kills} workers killed, {len(seen.starts)} started"),
            Figure("ended", sum(outcomes.ended.values()), least=requests, note=words(dict(outcomes.ended))),
            Figure("wedged: no end within two minutes", outcomes.ended["wedged"], most=0),
            Figure("broken though nobody killed the worker", len(outcomes.unexplained), most=0,
                   note="; ".join(outcomes.unexplained[:3])),
            Figure("models that answer afterwards", last.ended["ok"], least=4, note=words(dict(last.ended))),
            Figure("a model in two processes", seen.twice, "times", most=0),
            Figure("memory of all workers, the most", seen.most / 2**20, "MiB", most=limit / 2**20),
            Figure("answer after, p50", rank(outcomes.waits, 0.5), "s"),
            Figure("answer after, p99", rank(outcomes.waits, 0.99), "s"),
            Figure("processes left", len(left), most=0),
        ],
    )  # fmt: skip


async def _settled(session: aiohttp.ClientSession, model: str, outcomes: Outcomes, seen: Seen) -> None:
    """Ask until a model that was killed last has rested."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        trial = Outcomes()
        await _exchange(session, model, trial, seen, stream=False, tokens=2)
        if trial.ended["ok"]:
            break
        await asyncio.sleep(1.0)
    outcomes.ended.update(trial.ended)


async def _ask(session: aiohttp.ClientSession, rng: random.Random, outcomes: Outcomes, seen: Seen) -> None:
    """One client's request, which it may leave."""
    model = rng.choice((*TEXTS, VECTORS))
    asking = asyncio.create_task(
        _exchange(session, model, outcomes, seen, stream=rng.random() < 0.6, tokens=rng.randint(1, 8))
    )
    if rng.random() < LEAVES:
        await asyncio.wait({asking}, timeout=rng.random() * rng.choice((0.05, 0.5, 3.0)))
        if not asking.done():
            asking.cancel()
            outcomes.ended["left"] += 1
    with suppress(asyncio.CancelledError):
        await asking


async def _exchange(
    session: aiohttp.ClientSession, model: str, outcomes: Outcomes, seen: Seen, *, stream: bool, tokens: int
) -> None:
    began = time.monotonic()
    asked: dict[str, Any] = {"model": f"local/{model}"}
    if model == VECTORS:
        path, asked["input"], stream = "/v1/embeddings", ["a cat", "a dog that runs"], False
    else:
        path, asked["messages"] = "/v1/chat/completions", [{"role": "user", "content": "Count to ten."}]
        asked |= {"max_tokens": tokens, "stream": stream, "temperature": 0}
    try:
        async with session.post(path, json=asked) as response:
            body = await response.read()
            status = response.status
    except TimeoutError:
        outcomes.ended["wedged"] += 1
        return
    except aiohttp.ClientError as e:
        outcomes.ended["cut off"] += 1
        outcomes.unexplained.append(type(e).__name__)
        return
    code = re.search(rb'"code": ?"(\w+)"', body)
    if status == 200 and not code and (not stream or b"[DONE]" in body):
        outcomes.ended["ok"] += 1
        outcomes.waits.append(time.monotonic() - began)
        return
    word = code[1].decode() if code else f"status {status}"
    outcomes.ended[word] += 1
    # What a crash leaves behind, for its own model: the answers it broke, and the rest that model then takes.
    deaths = seen.killed.get(model, [])
    if not any(at > began - 70 for at in deaths) or word not in ("worker_crashed", "model_loading"):
        outcomes.unexplained.append(f"{model}: {word}")


def _workers(running: Gateway) -> dict[psutil.Process, str]:
    """The gateway's children that serve a model, as far as they have opened its file."""
    found = {}
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(OSError):
            if match := _file.search(Path(f"/proc/{process.pid}/maps").read_text()):
                found[process] = match[1]
    return found


def _kill(running: Gateway, seen: Seen, rng: random.Random) -> None:
    workers = _workers(running)
    if not workers:
        return
    victim = rng.choice(sorted(workers, key=lambda process: process.pid))
    name = workers[victim]
    seen.killed.setdefault(VECTORS if name not in TEXTS else name, []).append(time.monotonic())
    with suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)


async def _watch(running: Gateway, seen: Seen) -> None:
    while True:
        await asyncio.to_thread(_look, running, seen)
        await asyncio.sleep(SAMPLE_S)


def _look(running: Gateway, seen: Seen) -> None:
    workers = _workers(running)
    seen.starts |= {process.pid for process in workers}
    counts = Counter(workers.values())
    seen.twice += sum(n - 1 for n in counts.values())
    used = 0
    for process in workers:
        with suppress(OSError, psutil.Error):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            used += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    seen.most = max(seen.most, used)
