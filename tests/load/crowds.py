"""Scenes with many connections at once: streams, readers that do not read, requests that never get said."""

import asyncio
import contextlib
import time
from collections import Counter

from tests.load.client import Answer, Connection, connect, latencies, once, request
from tests.load.plan import Size
from tests.load.result import Figure, Progress, Result, rank, words
from tests.load.stage import Stage, Vitals

OPENED_A_SECOND = 500
NEIGHBOURS = 20
"""Well-behaved streams beside a crowd that is not."""
HEALTH_MS = 200.0
GAP_MS = 250.0
STREAM_KIB = 200.0
STALLED_KIB = 2048.0


async def streams(stage: Stage, say: Progress, size: Size, count: int) -> Result:
    """Many streams with a pause between events, as models make them."""
    start, peak, begun = await stage.warm(), Peak(stage), time.monotonic()
    going = [asyncio.ensure_future(_stream(stage, size, n / OPENED_A_SECOND)) for n in range(count)]
    while not all(task.done() for task in going):
        peak.look()
        say(f"{sum(not task.done() for task in going)} of {count} streams, {peak.rss / 2**20:.0f} MiB")
        await asyncio.wait(going, timeout=1.0)
    answers, took = [task.result() for task in going], time.monotonic() - begun
    cpu_s = stage.body().cpu_s - start.cpu_s
    # Role, the stamped ones, the finish, the usage and [DONE] itself.
    events = sum(len(a.delays) for a in answers)
    wrong = _wrong(answers)
    delays_ms = [delay * 1000 for a in answers for delay in a.delays]
    return Result(
        f"{count:,} streams",
        [
            Figure("errors", sum(wrong.values()), most=0, note=words(wrong)),
            Figure("streams with their terminal event", sum(a.terminal for a in answers), least=count),
            Figure("events lost", count * size.stream_events - events, most=0),
            Figure("events a second", events / took),
            Figure("added gap, median", rank(delays_ms, 0.5), "ms"),
            Figure("added gap, p99", rank(delays_ms, 0.99), "ms", most=GAP_MS * size.patience),
            Figure("added gap, longest", max(delays_ms, default=0.0), "ms"),
            Figure("memory a stream", (peak.rss - start.rss) / count / 1024, "KiB", most=STREAM_KIB * size.slack),
            Figure("CPU", 100 * cpu_s / took, "% of a core"),
            Figure("fds at the peak", peak.fds),
            *await stage.remains(start),
        ],
    )


async def stalled_readers(stage: Stage, say: Progress, size: Size) -> Result:
    """Clients that ask for much and read nothing: they cost a bounded buffer for a bounded time."""
    start, peak, count = await stage.warm(), Peak(stage), size.stalled
    readers: list[Connection] = []
    for _ in range(count):
        reader = await connect(stage.port, receive_buffer=4096)
        reader.transport.pause_reading()
        reader.send(request(f"load-flood:2000:20000:{size.flood_pause_s}"))
        readers.append(reader)
    neighbours, health = await _neighbours(stage, say, size, size.stalled_s, peak)
    answering = (await stage.books()).answering
    for reader in readers:
        reader.leave()
    return Result(
        f"{count:,} stalled readers",
        [
            *_unharmed(neighbours, health, size),
            Figure("memory a reader", (peak.rss - start.rss) / count / 1024, "KiB", most=STALLED_KIB * size.slack),
            Figure("ended by the gateway", count - answering, least=count),
            *await stage.remains(start),
        ],
    )


async def slow_headers(stage: Stage, say: Progress, size: Size) -> Result:
    """Connections whose request comes a line a second and never ends."""
    start, peak = await stage.warm(), Peak(stage)
    crowd = []
    for _ in range(size.slow):
        connection = await connect(stage.port)
        connection.transport.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        crowd.append(connection)
    dripping = asyncio.ensure_future(_drip(crowd))
    try:
        neighbours, health = await _neighbours(stage, say, size, size.slow_s, peak)
    finally:
        dripping.cancel()
    ended = sum(not connection.open for connection in crowd)
    for connection in crowd:
        connection.leave()
    return Result(
        f"{size.slow:,} slow headers",
        [
            *_unharmed(neighbours, health, size),
            Figure("memory a connection", (peak.rss - start.rss) / size.slow / 1024, "KiB"),
            Figure("ended by the gateway", ended, least=size.slow),
            *await stage.remains(start),
        ],
    )


class Peak:
    """The most that was seen."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.rss = self.fds = self.threads = 0

    def look(self) -> Vitals:
        now = self._stage.body()
        self.rss, self.fds = max(self.rss, now.rss), max(self.fds, now.fds)
        self.threads = max(self.threads, now.threads)
        return now


async def _stream(stage: Stage, size: Size, wait_s: float) -> Answer:
    await asyncio.sleep(wait_s)
    lasts_s = size.stream_events * size.stream_pause_s
    model = f"load-paced:{size.stream_events}:{size.stream_pause_s}"
    try:
        return (await once(stage.port, request(model), lasts_s + 30.0))[0]
    except OSError as e:
        return Answer(broken=f"connect: {e.strerror}")


async def _neighbours(
    stage: Stage, say: Progress, size: Size, seconds: float, peak: Peak
) -> tuple[list[Answer], list[float]]:
    """What well-behaved streams and /health get meanwhile."""
    pause_s = 0.1
    asked = [
        asyncio.ensure_future(once(stage.port, request(f"load-paced:{int(seconds / pause_s)}:{pause_s}"), seconds * 3))
        for _ in range(NEIGHBOURS)
    ]
    probing = asyncio.ensure_future(latencies(stage.port, seconds))
    while not probing.done():
        peak.look()
        say(f"{peak.rss / 2**20:.0f} MiB, {peak.fds} fds")
        await asyncio.wait([probing], timeout=0.5)
    return [answer for answer, _ in await asyncio.gather(*asked)], probing.result()


def _unharmed(neighbours: list[Answer], health: list[float], size: Size) -> list[Figure]:
    delays_ms = [delay * 1000 for a in neighbours for delay in a.delays]
    wrong = _wrong(neighbours)
    return [
        Figure(
            "/health p99", rank(health, 0.99) * 1000, "ms", most=HEALTH_MS * size.patience, note=f"{len(health)} asked"
        ),
        Figure("neighbouring streams that failed", sum(wrong.values()), most=0, note=words(wrong)),
        Figure("their added gap, p99", rank(delays_ms, 0.99), "ms", most=GAP_MS * size.patience),
    ]


def _wrong(answers: list[Answer]) -> Counter[str]:
    return Counter(a.broken or a.code or f"status {a.status}" for a in answers if not a.good)


async def _drip(crowd: list[Connection]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(1.0)
            for connection in crowd:
                if connection.open:
                    connection.transport.write(b"x: y\r\n")
