"""Where a scene plays: a gateway process with everything on, before the provider for crowds."""

import asyncio
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec import Struct

from tests.bench.process import Process, module
from tests.load.client import KEY, get, once, request
from tests.load.plan import Size
from tests.load.result import Figure
from tests.load.upstream import Books
from tests.process import Gateway, gateway

FILES = 16_384
_GAUGE = re.compile(rb"^(pluggably_tasks|pluggably_in_flight) ([0-9.]+)$", re.MULTILINE)


class Vitals(Struct, frozen=True):
    """The gateway's; it has no children here."""

    rss: int
    fds: int
    threads: int
    cpu_s: float
    tasks: int = 0
    in_flight: int = 0


class Stage:
    def __init__(self, running: Gateway, upstream_port: int) -> None:
        self.gateway = running
        self.port = running.port
        self.upstream_port = upstream_port
        self._warm = False
        self._process = psutil.Process(running.process.pid)

    def body(self) -> Vitals:
        """What the system tells, at once."""
        process = self._process
        with process.oneshot():
            used = process.cpu_times()
            return Vitals(
                rss=process.memory_info().rss,
                fds=process.num_fds(),
                threads=process.num_threads(),
                cpu_s=used.user + used.system,
            )

    async def vitals(self) -> Vitals:
        """What the system and the gateway's own gauges tell; the question itself is counted."""
        _, page = await once(self.port, get("/metrics"))
        gauges = {name.decode(): int(float(value)) for name, value in _GAUGE.findall(page)}
        return msgspec.structs.replace(
            self.body(), tasks=gauges.get("pluggably_tasks", 0), in_flight=gauges["pluggably_in_flight"]
        )

    async def books(self) -> Books:
        _, body = await once(self.upstream_port, get("/books"))
        return msgspec.json.decode(body, type=Books)

    async def warm(self) -> Vitals:
        """Have everything done once that is done once; returns the vitals at rest."""
        if self._warm:
            return await self.rest()
        self._warm = True
        asked = [once(self.port, request(f"load-answer:{n / 1000}", stream=n % 2 == 0)) for n in range(40)]
        for answer, _ in await asyncio.gather(*asked):
            assert answer.good, answer
        # By then the usage rows are written, and the first sweep of the artifacts has opened their store.
        await asyncio.sleep(4.5)
        return await self.rest()

    async def rest(self, start: Vitals | None = None, within_s: float = 5.0) -> Vitals:
        """The vitals once nothing is under way; waits for that, or for being back at the `start`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while True:
            await once(self.upstream_port, get("/hang-up"))
            await asyncio.sleep(0.1)
            now = await self.vitals()
            back = now.in_flight <= 1 and (start is None or (now.fds <= start.fds and now.tasks <= start.tasks))
            if back or loop.time() > end:
                return now

    async def remains(self, start: Vitals) -> list[Figure]:
        """What a scene left behind."""
        end, books = await self.rest(start), await self.books()
        return [
            Figure("fds left behind", max(0, end.fds - start.fds), most=0),
            Figure("tasks left behind", max(0, end.tasks - start.tasks), most=0),
            # The executor's pool and the database's connections grow to their size when they are first used.
            Figure("threads left behind", max(0, end.threads - start.threads), most=8),
            Figure("requests left running", end.in_flight - 1 + books.answering, most=0),
        ]


@contextmanager
def provider(folder: Path) -> Iterator[int]:
    """The provider for crowds; its port."""
    upstream = Process(module("tests.load.upstream"), folder / "upstream.log", pipes=True)
    try:
        yield int(upstream.ask())
    finally:
        upstream.stop()


@contextmanager
def stage(folder: Path, upstream_port: int, size: Size) -> Iterator[Stage]:
    """A gateway before that provider, its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with gateway(folder, config(upstream_port, size)) as running:
        yield Stage(running, upstream_port)


def config(upstream_port: int, size: Size) -> dict[str, Any]:
    """`load-X` plays X, once; the others play X with short time-outs and ask again when it fails.

    Each has a backend of its own, so that what routing learns of one does not show in another.
    """
    provider = {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "sk-upstream-0123456"}
    quick = {"connect_s": 2, "first_token_s": 2, "idle_s": 2, "total_s": 20}
    return {
        "server": {"header_timeout_s": size.header_timeout_s, "write_timeout_s": size.write_timeout_s},
        "auth": {"mode": "api_key", "keys": [{"name": "load", "key": KEY, "scopes": ["inference"]}]},
        "backends": {"up": provider, "sick": provider, "down": provider, "torn": provider},
        "models": {
            "load-*": {"routes": ["up/*"], "retries": 0},
            "soak-*": {"routes": ["sick/*"], "retries": 2, "timeouts": quick},
            "down-*": {"routes": ["down/*"], "retries": 2, "timeouts": quick},
            "torn-*": {"routes": ["torn/*"], "retries": 2, "timeouts": quick},
        },
    }


def raise_file_limit() -> None:
    """For this process and those it starts: every connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
