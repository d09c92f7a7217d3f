"""A scene of downloads: a large model comes while others are served, through kills, once for all who want it.

The hub is a process of its own, and unbounded: the line is as fast as loopback.  What was fetched again is told by what
the hub has handed out.
"""

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from msgspec import Struct, field

from tests.bench.process import Process, module
from tests.load.client import KEY, connect, request
from tests.load.hub import FILE, ORGANISATION
from tests.load.result import Figure, Progress, Result, rank
from tests.process import Gateway, gateway

RATE = 100.0
"""Chats a second."""
CONNECTIONS = 8
AGAIN_MAX_MIB = 16
P99_MAX_MS = 10.0
ENDED_S = 300.0
LIFE_S = 0.4
"""How long a life lasts, about, between the moment when bytes come and the kill."""
OVER = ("done", "failed", "cancelled")
MIB = 1 << 20


class Extent(Struct, frozen=True, kw_only=True):
    """How large the scene is."""

    mib: int
    kills: int
    idle_s: float = 4.0
    """How long chats are played alone."""
    patience: float = 1.0
    """By how much the bound of time is widened: of few samples the slowest counts, on whatever machine."""


FULL = Extent(mib=1024, kills=100)
QUICK = Extent(mib=128, kills=10)
SHORT = Extent(mib=32, kills=1, idle_s=1.0, patience=50.0)
"""For `make test`."""


class Kills(Struct):
    count: int = 0
    again: list[float] = field(default_factory=list)
    """MiB that were fetched again after each."""
    status: str = ""
    identical: bool = False


def downloads(folder: Path, upstream_port: int, extent: Extent, say: Progress) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    hub = Process(module("tests.load.hub", str(extent.mib)), folder / "hub.log", pipes=True)
    try:
        url = hub.ask().decode().strip()
        with _house(folder / "steady", url, upstream_port) as running:
            idle, busy, took, job = asyncio.run(_beside(running, extent, say))
            say("two clients want the same")
            twice = asyncio.run(_two(running))
            hub.ask(b"corrupt corrupt")
            say("a byte is wrong")
            corrupt = _corrupt(running)
        once = _spans(hub, "shared")
        killed = _killed(folder / "killed", url, upstream_port, hub, extent, say)
    finally:
        hub.stop()
    more = (rank(busy, 0.99) - rank(idle, 0.99)) * 1000
    size = f"{extent.mib:,} MiB"
    return Result(
        f"a download of {size} beside chats, and through {killed.count} kills",
        [
            Figure("download", took, "s", note=f"{extent.mib / took:.0f} MiB/s; {job}"),
            Figure("download is done", float(job == "done"), least=1),
            Figure("chat p50, idle", rank(idle, 0.5) * 1000, "ms", note=f"{len(idle)} chats"),
            Figure("chat p99, idle", rank(idle, 0.99) * 1000, "ms"),
            Figure("chat p50, meanwhile", rank(busy, 0.5) * 1000, "ms", note=f"{len(busy)} chats"),
            Figure("chat p99, meanwhile", rank(busy, 0.99) * 1000, "ms"),
            Figure("chat p99 above idle", more, "ms", most=P99_MAX_MS * extent.patience),
            Figure("kills survived: byte-identical", float(killed.identical), least=1, note=killed.status),
            Figure("fetched again after a kill, most", max(killed.again, default=0.0), "MiB", most=AGAIN_MAX_MIB),
            Figure("fetched again after a kill, median", rank(killed.again, 0.5), "MiB"),
            Figure("kills in the middle of the transfer", len(killed.again), least=killed.count / 2),
            Figure("two clients: jobs", len(set(twice)), most=1),
            Figure("two clients: MiB above once", _sum(once) - extent.mib, "MiB", most=1),
            Figure("a wrong byte: noticed", float(corrupt[0] == "failed"), least=1, note=corrupt[1]),
            Figure("a wrong byte: models served or files left", corrupt[2], most=0),
        ],
    )


@contextmanager
def _house(folder: Path, hub: str, upstream_port: int, bytes_per_s: int | None = None) -> Iterator[Gateway]:
    folder.mkdir(parents=True, exist_ok=True)
    provider = {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "sk-upstream-0123456"}
    scopes = ["inference", "models:read", "models:write"]
    config = {
        "auth": {"mode": "api_key", "keys": [{"name": "load", "key": KEY, "scopes": scopes}]},
        "backends": {"up": provider, "local": {"kind": "local", "threads": 1}},
        "models": {"load-*": {"routes": ["up/*"], "retries": 0}},
        "storage": {"min_free_bytes": 0},
        "hub": {"endpoint": hub, "bytes_per_s": bytes_per_s},
    }
    with gateway(folder, config, environ={"HF_TOKEN": "", "NO_PROXY": "*"}) as running:
        yield running


def _client(running: Gateway) -> httpx2.Client:
    return httpx2.Client(base_url=running.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False)


def _asked(http: httpx2.Client, repo: str) -> str:
    """The job's id."""
    wanted = {"repo": f"{ORGANISATION}/{repo}", "file": FILE, "name": repo}
    answer = http.post("/v1/models/download", json=wanted)
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["id"])


def _ended(http: httpx2.Client, job: str) -> dict[str, Any]:
    end = time.monotonic() + ENDED_S
    while (found := http.get(f"/v1/jobs/{job}").json())["status"] not in OVER and time.monotonic() < end:
        time.sleep(0.1)
    told: dict[str, Any] = found
    return told


async def _beside(running: Gateway, extent: Extent, say: Progress) -> tuple[list[float], list[float], float, str]:
    """How long chats take when nothing else is done and beside a download, how long that took, how it ended."""
    over = asyncio.Event()
    await _chats(running, extent.idle_s / 4, over)  # the first ones open connections
    say("chats alone")
    idle = await _chats(running, extent.idle_s, over)
    say(f"chats beside a download of {extent.mib} MiB")

    def fetch() -> tuple[float, str]:
        with _client(running) as http:
            began = time.monotonic()
            job = _ended(http, _asked(http, "quiet"))
            return time.monotonic() - began, str(job["status"])

    async def fetching() -> tuple[float, str]:
        try:
            return await asyncio.to_thread(fetch)
        finally:
            over.set()

    busy, (took, status) = await asyncio.gather(_chats(running, ENDED_S, over), fetching())
    return idle, busy, took, status


async def _chats(running: Gateway, seconds: float, over: asyncio.Event) -> list[float]:
    """How long each took.  They begin at a fixed rate, however long those before take."""
    loop, took = asyncio.get_running_loop(), list[float]()
    begun, asked = loop.time(), request("load-answer:0", stream=False)

    async def some(first: int) -> None:
        connection = await connect(running.port)
        try:
            for n in range(first, int(seconds * RATE), CONNECTIONS):
                due = begun + n / RATE
                await asyncio.sleep(max(0.0, due - loop.time()))
                if over.is_set():
                    return
                answer = await connection.ask(asked)
                assert answer.good, answer
                took.append(loop.time() - due)
        finally:
            connection.leave()

    await asyncio.gather(*(some(n) for n in range(CONNECTIONS)))
    return took


async def _two(running: Gateway) -> list[str]:
    """The jobs that two clients get who want the same at the same time."""

    def want() -> str:
        with _client(running) as http:
            job = _asked(http, "shared")
            assert _ended(http, job)["status"] == "done"
            return job

    return list(await asyncio.gather(asyncio.to_thread(want), asyncio.to_thread(want)))


def _corrupt(running: Gateway) -> tuple[str, str, int]:
    """How the job ended and why, and how much there is of what it brought: a model that is served, a file."""
    with _client(running) as http:
        job = _ended(http, _asked(http, "corrupt"))
        models = http.get("/v1/models").json()["data"]
    served = [one for one in models if one["id"].endswith("/corrupt") and one["status"] in ("ready", "unloaded")]
    files = list(_root(running).glob(f"{ORGANISATION}--corrupt/**/*.gguf*"))
    return job["status"], str((job.get("error") or {}).get("code")), len(served) + len(files)


def _killed(folder: Path, hub: str, upstream_port: int, process: Process, extent: Extent, say: Progress) -> Kills:
    """One download through all the kills, which come anywhere: most while bytes come, some at the start."""
    kills, rng, job = Kills(), random.Random(5), ""  # noqa: S311
    pace = max(1, int(extent.mib * MIB / (extent.kills * LIFE_S)))
    while kills.count < extent.kills:
        with _house(folder, hub, upstream_port, pace) as running:
            if not job:
                with _client(running) as http:
                    job = _asked(http, "killed")
            if kills.count % 5:
                _growing(running)
            time.sleep(rng.uniform(0, 2 * LIFE_S * 0.8))
            running.stop(signal.SIGKILL)
        kills.count += 1
        say(f"{kills.count} of {extent.kills} kills, {_size(running) / MIB:.0f} of {extent.mib} MiB")
    with _house(folder, hub, upstream_port) as running, _client(running) as http:
        kills.status = _ended(http, job)["status"]
        kills.identical = kills.status == "done" and _identical(running, extent)
    spans = _spans(process, "killed")
    kills.again = [(until - start) / MIB for (_, until), (start, _) in pairwise(spans)]
    return kills


def _root(running: Gateway) -> Path:
    return running.folder / "data" / "models" / "hub"


def _size(running: Gateway) -> int:
    """Of what is here of the file."""
    return max((path.stat().st_size for path in _root(running).rglob(f"{FILE}*")), default=0)


def _growing(running: Gateway, within_s: float = 10.0) -> None:
    """Wait until bytes come."""
    had, end = _size(running), time.monotonic() + within_s
    while _size(running) <= had and time.monotonic() < end:
        time.sleep(0.01)


def _identical(running: Gateway, extent: Extent) -> bool:
    from tests.gateway.downloads.world import large
    from tests.load.hub import REPOS

    made = large(extent.mib, REPOS.index("killed"))
    (path,) = _root(running).rglob(FILE)
    with path.open("rb") as file:
        for start in range(0, made.size, MIB):
            if file.read(MIB) != made.read(start, start + MIB):
                return False
        return not file.read(1)


def _spans(process: Process, repo: str) -> list[tuple[int, int]]:
    """What the hub has handed out of its file, in the order of the file."""
    return sorted(msgspec.json.decode(process.ask(f"spans {repo}".encode()), type=list[tuple[int, int]]))


def _sum(spans: list[tuple[int, int]]) -> float:
    return sum(until - start for start, until in spans) / MIB
