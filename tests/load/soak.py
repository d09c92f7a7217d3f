"""Scenes that last: hours of ordinary traffic before a provider that fails now and then, or always."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from msgspec import Struct

from tests.http import CHAT
from tests.load.client import GENERATE, MESSAGES, Answer, Connection, connect, request
from tests.load.plan import Size
from tests.load.result import Figure, Progress, Result, rank, slope, words
from tests.load.stage import Stage, Vitals

PATHS = (CHAT, CHAT, CHAT, MESSAGES, GENERATE)
"""Three of five take the relay lane, the others are translated."""
WARM_UP = 0.2
"""The share of the samples that is left out: caches and pools fill."""
IDLE_S = 2.0
"""A connection that has been idle for longer is not used again: the gateway may be closing it."""
MIB_PER_10_000 = 1.0
MEASURABLE = 10_000
"""Requests below which a slope is noise, and only the growth is held to a bound."""
RATIO = 1.2


class Sample(Struct, frozen=True):
    requests: int
    vitals: Vitals


class _Traffic:
    """What clients asked and what became of it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[tuple[float, Connection]] = deque()
        self.asked = self.over = 0
        self.good = 0
        self.told: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.delays: list[float] = []

    async def ask(self, model: str, n: int, *, stream: bool) -> None:
        self.asked += 1
        path = PATHS[n % len(PATHS)]
        try:
            connection = await self._connection()
        except OSError as e:
            self._note(Answer(broken=f"connect: {e.strerror}"))
            return
        answer = await connection.ask(request(model, path, stream=stream), 60.0)
        self._note(answer)
        while self._idle and time.monotonic() - self._idle[0][0] > IDLE_S:
            self._idle.popleft()[1].leave()
        if answer.whole and connection.open:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.leave()

    def close(self) -> None:
        for _, connection in self._idle:
            connection.leave()
        self._idle.clear()

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.open and time.monotonic() - since < IDLE_S:
                return connection
            connection.leave()
        return await connect(self._port)

    def _note(self, answer: Answer) -> None:
        self.over += 1
        self.delays += answer.delays[-1:]
        if answer.good:
            self.good += 1
        elif answer.told:
            self.told[answer.code] += 1
        else:
            self.broken[answer.broken or f"status {answer.status}"] += 1


async def soak(stage: Stage, say: Progress, size: Size) -> Result:
    start, traffic, begun = await stage.warm(), _Traffic(stage.port), time.monotonic()
    end, samples = begun + size.soak_s, list[Sample]()
    share = size.fault_share
    streaming = [
        asyncio.ensure_future(_again(end, lambda n: traffic.ask(f"soak-faulty:{share}:20:0.1", n, stream=True), n))
        for n in range(size.soak_streams)
    ]
    asking = asyncio.ensure_future(
        _steadily(end, size.soak_rate, lambda n: traffic.ask(f"soak-faulty:{share}:1:0.05", n, stream=False))
    )
    every_s = min(5.0, size.soak_s / 20)
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(every_s, left))
        samples.append(Sample(traffic.over, await stage.vitals()))
        v = samples[-1].vitals
        say(f"{left:.0f} s left, {traffic.over:,} answers, {v.rss / 2**20:.1f} MiB, {v.fds} fds, {v.tasks} tasks")
    await asyncio.gather(asking, *streaming)
    cpu_s, took = stage.body().cpu_s - start.cpu_s, time.monotonic() - begun
    traffic.close()
    faults = (await stage.books()).faults
    return Result(
        f"soak, {size.soak_s / 60:.1f} min",
        [
            Figure("requests", traffic.over, note=f"faults played: {words(faults)}"),
            Figure("answers without an end", sum(traffic.broken.values()), most=0, note=words(traffic.broken)),
            Figure("answered well", 100 * traffic.good / max(1, traffic.over), "%", least=90, note=words(traffic.told)),
            Figure("added gap, p99", rank(traffic.delays, 0.99) * 1000, "ms"),
            Figure("CPU", 100 * cpu_s / took, "% of a core"),
            *_memory(samples, size),
            *_flat(samples),
            *await stage.remains(start),
        ],
    )


async def failing_provider(stage: Stage, say: Progress, size: Size) -> Result:
    """A provider that is down is asked little more often than clients ask."""
    start, traffic = await stage.warm(), _Traffic(stage.port)
    begun = time.monotonic()

    async def half(n: int) -> tuple[int, int]:
        before, asked = (await stage.books()).asked.get("failing", 0), traffic.asked
        until = begun + size.failing_s * n / 2
        await _steadily(until, size.soak_rate, lambda n: traffic.ask("down-failing", n, stream=n % 3 == 0))
        say(f"{traffic.over:,} answers: {words(traffic.told)}")
        return (await stage.books()).asked.get("failing", 0) - before, traffic.asked - asked

    first, second = await half(1), await half(2)
    traffic.close()
    return Result(
        "provider down",
        [
            Figure("requests", traffic.over, note=words(traffic.told)),
            Figure("answers without an end", sum(traffic.broken.values()), most=0, note=words(traffic.broken)),
            Figure("upstream requests a request, at first", first[0] / max(1, first[1])),
            Figure("upstream requests a request, later", second[0] / max(1, second[1]), most=RATIO),
            *await stage.remains(start),
        ],
    )


async def _again(end: float, ask: Callable[[int], Awaitable[None]], first: int) -> None:
    n = first
    while time.monotonic() < end:
        await ask(n)
        n += 1


async def _steadily(end: float, rate: float, ask: Callable[[int], Awaitable[None]]) -> None:
    """Ask at a steady rate however slow the answers are; returns when all are there."""
    going: set[asyncio.Future[None]] = set()
    due, n = time.monotonic(), 0
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.ensure_future(ask(n))
        going.add(task)
        task.add_done_callback(going.discard)
        # What could not be asked in time is left out: asking it now would be a burst.
        due, n = max(due + 1 / rate, time.monotonic()), n + 1
    while going:
        await asyncio.gather(*going)


def _memory(samples: list[Sample], size: Size) -> list[Figure]:
    kept = samples[int(len(samples) * WARM_UP) :]
    mib = [s.vitals.rss / 2**20 for s in kept]
    requests = [float(s.requests) for s in kept]
    per_10_000 = slope(requests, mib) * 10_000
    measurable = requests[-1] - requests[0] >= MEASURABLE
    return [
        Figure("memory", mib[-1], "MiB"),
        Figure("memory slope", per_10_000, "MiB per 10,000 requests", most=MIB_PER_10_000 if measurable else None),
        Figure("memory grown after the warm-up", mib[-1] - mib[0], "MiB", most=4.0 * size.slack),
    ]


def _flat(samples: list[Sample]) -> list[Figure]:
    """How much more there is in the last third than in the first, of what may not grow."""
    kept = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(kept) // 3)
    figures = []
    for name in ("fds", "tasks", "threads"):
        seen = [int(getattr(s.vitals, name)) for s in kept]
        before, after = max(seen[:third]), max(seen[-third:])
        figures.append(Figure(f"{name}, last third", after, most=before * 1.1 + 10, note=f"{before} in the first"))
    return figures
