"""A closed-loop load generator that stays cheap: raw HTTP/1.1 over uvloop, checks after the clock has stopped.

A process of its own: reads one Job a line from stdin, prints one Outcome a line.
"""

import asyncio
import gc
import resource
import socket
import sys
import time
from collections import Counter
from functools import partial
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from tests.bench.passage import FIRST
from tests.bench.workload import WORKLOADS

STALL_S = 60.0
"""How long answers may still take once nothing more is sent; what is open then counts as an error."""


class Job(Struct, frozen=True):
    """`count` requests over `concurrency` connections; none is sent after `limit_s`."""

    port: int
    workload: str
    key: str
    concurrency: int
    count: int
    limit_s: float


class Outcome(Struct, frozen=True):
    completed: int
    """Answers that were whole and right."""
    errors: dict[str, int]
    wall_s: float
    p50_s: float
    p99_s: float
    first_p50_s: float
    """Time to first token; of a non-streamed answer: to the end of the read that had it."""
    first_p99_s: float
    reads: float
    """Reads per answer: how finely the stream was cut when it arrived."""
    busy: float
    """Share of a core the generator itself took; near 1 it is the bottleneck."""


class _Sample(Struct, frozen=True):
    raw: bytes
    took_s: float
    first_s: float
    reads: int


class _Loop:
    """One job: hands out requests, keeps the samples."""

    def __init__(self, job: Job) -> None:
        self.request = WORKLOADS[job.workload].request(job.port, job.key)
        self.errors: Counter[str] = Counter()
        self.samples: list[_Sample] = []
        self._job = job
        self._left = job.count
        self._until = time.perf_counter() + job.limit_s

    def take(self) -> bool:
        """Whether one more request is to be sent."""
        if self._left <= 0 or time.perf_counter() > self._until:
            return False
        self._left -= 1
        return True

    async def client(self) -> None:
        """One connection after the other until there is nothing left to take."""
        loop = asyncio.get_running_loop()
        while self._left > 0 and time.perf_counter() < self._until:
            ended: asyncio.Future[None] = loop.create_future()
            try:
                transport, _ = await loop.create_connection(partial(_Client, self, ended), "127.0.0.1", self._job.port)
            except OSError as e:
                self._left -= 1
                self.errors[f"connect: {e.strerror}"] += 1
                continue
            try:
                await ended
            finally:
                transport.abort()


class _Client(asyncio.Protocol):
    """One keep-alive connection: sends the next request when the last one is answered."""

    def __init__(self, loop: _Loop, ended: asyncio.Future[None]) -> None:
        self._loop = loop
        self._ended = ended
        self._waits = False
        self._buffer = bytearray()
        self._reads = self._total = 0
        self._first = self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._loop.errors["connection closed"] += 1
        self._end()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._reads += 1
        if not self._first and FIRST in self._buffer:
            self._first = time.perf_counter()
        if not self._total:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._total = end + 4 + _length(bytes(self._buffer[:end]))
        if len(self._buffer) >= self._total >= 0 or (self._total < 0 and self._buffer.endswith(b"\r\n0\r\n\r\n")):
            now = time.perf_counter()
            first = self._first or now
            self._loop.samples.append(_Sample(bytes(self._buffer), now - self._begun, first - self._begun, self._reads))
            self._waits = False
            self._next()

    def _next(self) -> None:
        if not self._loop.take():
            self._end()
            return
        self._waits = True
        self._buffer = bytearray()
        self._reads = self._total = 0
        self._first = 0.0
        self._begun = time.perf_counter()
        self._transport.write(self._loop.request)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _length(head: bytes) -> int:
    """Bytes of body a head announces; far below zero when it is chunked."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
        if line.startswith(b"transfer-encoding:") and b"chunked" in line:
            return -(1 << 40)
    return 0


def _wrong(raw: bytes, workload: str) -> str | None:
    """What is wrong with an answer as it came over the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status = head[9:12].decode("latin-1")
    if status != "200":
        return f"status {status}"
    if _length(head) < 0:
        parts, at = [], 0
        while size := int(body[at : (line := body.index(b"\r\n", at))], 16):
            parts.append(body[line + 2 : line + 2 + size])
            at = line + 4 + size
        body = b"".join(parts)
    return WORKLOADS[workload].check(body)


def _rank(sorted_s: list[float], share: float) -> float:
    return sorted_s[min(len(sorted_s) - 1, int(share * len(sorted_s)))] if sorted_s else 0.0


async def run(job: Job) -> Outcome:
    """Send a job's requests, wait for the answers, then check every one."""
    loop = _Loop(job)
    cpu, begun = _cpu_s(), time.perf_counter()
    clients = [asyncio.ensure_future(loop.client()) for _ in range(job.concurrency)]
    _, pending = await asyncio.wait(clients, timeout=job.limit_s + STALL_S)
    wall, cpu = time.perf_counter() - begun, _cpu_s() - cpu
    for client in pending:
        loop.errors["no answer in time"] += 1
        client.cancel()
    right = []
    for sample in loop.samples:
        if wrong := _wrong(sample.raw, job.workload):
            loop.errors[wrong] += 1
        else:
            right.append(sample)
    took = sorted(s.took_s for s in right)
    first = sorted(s.first_s for s in right)
    return Outcome(
        completed=len(right),
        errors=dict(loop.errors),
        wall_s=wall,
        p50_s=_rank(took, 0.5),
        p99_s=_rank(took, 0.99),
        first_p50_s=_rank(first, 0.5),
        first_p99_s=_rank(first, 0.99),
        reads=sum(s.reads for s in right) / max(1, len(right)),
        busy=cpu / wall,
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    # A collection in the middle of a job would be measured as the contestant's latency.
    gc.disable()
    for line in sys.stdin.buffer:
        outcome = uvloop.run(run(msgspec.json.decode(line, type=Job)))
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()
        gc.collect()


if __name__ == "__main__":
    main()
