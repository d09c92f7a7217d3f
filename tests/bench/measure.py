"""The rounds: every contestant in turn under the same load, so that a machine's drift meets all of them.

CPU is read from the contestant's processes before a job and a moment after it, so that work put off
until the answers are out is counted too; what falls outside all jobs is shown as background.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct, field

from tests.bench.contestants import KEY, Contestant, serve_gateway
from tests.bench.load import Job, Outcome
from tests.bench.process import Process
from tests.bench.workload import WORKLOADS

DIRECT = "direct"
LIMIT_S = 1.0
"""Time that every job gets, so that one is not over before a busy machine has begun it."""
WARM = Job(port=0, workload="", key=KEY, concurrency=16, count=4000, limit_s=0)
Say = Callable[[str], None]


class Cell(Struct, frozen=True, order=True):
    workload: str
    concurrency: int
    name: str


class Round(Struct):
    outcome: Outcome
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        """Per answer."""
        return 1e6 * self.cpu_s / max(1, self.outcome.completed)


class Figures(Struct, kw_only=True):
    """Medians of the rounds of a cell; `added` is against `direct` in the same round."""

    requests: int
    errors: dict[str, int]
    rps: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    added_p50_ms: float
    added_p99_ms: float
    added_first_p50_ms: float
    added_first_p99_ms: float
    reads: float
    busy: float


class Footprint(Struct, kw_only=True):
    """What a contestant weighs."""

    what: str
    ready_s: float
    idle_bytes: int
    """Resident memory before the first request."""
    loaded_bytes: int = 0
    """Resident memory after the last one."""
    background_us: float = 0.0
    """CPU outside of all jobs, per answer of all jobs."""


class Plan(Struct, frozen=True):
    workloads: tuple[str, ...]
    concurrency: tuple[int, ...]
    rounds: int
    job_s: float
    """About how long one contestant is loaded for one figure."""
    lanes_at: tuple[int, ...] = (16,)
    """Connections in lanes other than chat."""

    def places(self) -> list[tuple[str, int]]:
        """Workload and concurrency of every table; one paced connection gives too few answers to say anything."""
        return [
            (name, connections)
            for name in self.workloads
            for connections in (self.concurrency if WORKLOADS[name].chats else self.lanes_at)
            if connections > 1 or not WORKLOADS[name].paced
        ]


class Bench(Struct):
    """One run: the contestants that started, and what was seen."""

    upstream: Process
    upstream_port: int
    load: Process
    say: Say
    warm_s: float = 0.5
    settle_s: float = 0.1
    contestants: list[Contestant] = field(default_factory=list)
    rounds: dict[Cell, list[Round]] = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)
    _rates: dict[tuple[str, str], float] = field(default_factory=dict)
    _used: dict[str, tuple[float, int]] = field(default_factory=dict)

    def run(self, plan: Plan) -> None:
        """Warm up, then all rounds."""
        at_start = {c.name: c.process.cpu_s() for c in self.contestants}
        for c in self.contestants:
            self.footprints[c.name] = Footprint(what=c.what, ready_s=c.ready_s, idle_bytes=c.process.rss_bytes())
        for workload in plan.workloads:
            for name, port, process in self._targets(workload):
                self.say(f"warming up: {workload} {name}")
                warm = msgspec.structs.replace(WARM, port=port, workload=workload, limit_s=self.warm_s)
                self._job(name, process, msgspec.structs.replace(warm, concurrency=2, count=4))
                self._job(name, process, warm)
        for n in range(plan.rounds):
            for workload, concurrency in plan.places():
                targets = self._targets(workload)
                # Every other round backwards, so that nobody always follows the same neighbour.
                for name, port, process in reversed(targets) if n % 2 else targets:
                    self.say(f"round {n + 1}/{plan.rounds}: {workload} × {concurrency} {name}")
                    job = self._sized(plan, workload, concurrency, name, port)
                    cell = Cell(workload, concurrency, name)
                    self.rounds.setdefault(cell, []).append(self._job(name, process, job))
        for c in self.contestants:
            used, answers = self._used[c.name]
            footprint = self.footprints[c.name]
            footprint.loaded_bytes = c.process.rss_bytes()
            footprint.background_us = (c.process.cpu_s() - at_start[c.name] - used) / max(1, answers) * 1e6

    def figures(self) -> dict[Cell, Figures]:
        """Medians, in the order they were measured."""
        return {
            cell: _figures(rounds, self.rounds[Cell(cell.workload, cell.concurrency, DIRECT)])
            for cell, rounds in self.rounds.items()
        }

    def multiple(self, of: tuple[str, int, str], by: tuple[str, int, str]) -> float | None:
        """CPU per answer of one cell as a multiple of another's: the median of the rounds, each taken by itself."""
        pairs = zip(self.rounds.get(Cell(*of), []), self.rounds.get(Cell(*by), []), strict=False)
        seen = [a.cpu_us / b.cpu_us for a, b in pairs if a.outcome.completed and b.outcome.completed and b.cpu_us]
        return median(seen) if seen else None

    def _targets(self, workload: str) -> list[tuple[str, int, Process]]:
        seen = [c for c in self.contestants if WORKLOADS[workload].chats or not c.chats_only]
        return [(DIRECT, self.upstream_port, self.upstream), *((c.name, c.port, c.process) for c in seen)]

    def _sized(self, plan: Plan, workload: str, concurrency: int, name: str, port: int) -> Job:
        """As many requests as take about `job_s`, by the rates seen; never less than keeps all busy."""
        count = max(30, concurrency * 3 // 2, int(self._rates[workload, name] * plan.job_s))
        return Job(
            port=port,
            workload=workload,
            key=KEY,
            concurrency=concurrency,
            count=count,
            limit_s=max(LIMIT_S, plan.job_s * 1.5),
        )

    def _job(self, name: str, process: Process, job: Job) -> Round:
        before = process.cpu_s()
        outcome = msgspec.json.decode(self.load.ask(msgspec.json.encode(job)), type=Outcome)
        time.sleep(self.settle_s)
        cpu = process.cpu_s() - before
        # The best rate so far: one job beside a noisy neighbour must not make all later ones short.
        rate = outcome.completed / outcome.wall_s
        self._rates[job.workload, name] = max(rate, self._rates.get((job.workload, name), 0.0))
        used, answers = self._used.get(name, (0.0, 0))
        self._used[name] = used + cpu, answers + outcome.completed
        return Round(outcome, cpu)


def startup(folder: Path, times: int) -> tuple[float, int]:
    """Seconds from exec to /health and idle bytes of a gateway without backends.  Raises StartFailed."""
    seen = []
    for n in range(times):
        own = folder / f"startup-{n}"
        own.mkdir()
        gateway = serve_gateway("gateway", {"backends": {}, "models": {}}, own)
        try:
            time.sleep(1)
            seen.append((gateway.ready_s, gateway.process.rss_bytes()))
        finally:
            gateway.process.stop()
    return median(ready for ready, _ in seen), int(median(rss for _, rss in seen))


def _figures(rounds: list[Round], direct: list[Round]) -> Figures:
    errors: dict[str, int] = {}
    for one in rounds:
        for what, n in one.outcome.errors.items():
            errors[what] = errors.get(what, 0) + n

    def typical(take: Callable[[Round], float]) -> float:
        return median(take(one) for one in rounds)

    def added(take: Callable[[Outcome], float]) -> float:
        pairs = zip(rounds, direct, strict=True)
        return 1e3 * median(take(one.outcome) - take(floor.outcome) for one, floor in pairs)

    return Figures(
        requests=sum(one.outcome.completed for one in rounds),
        errors=errors,
        rps=typical(lambda r: r.outcome.completed / r.outcome.wall_s),
        cpu_us=typical(lambda r: r.cpu_us),
        p50_ms=typical(lambda r: 1e3 * r.outcome.p50_s),
        p99_ms=typical(lambda r: 1e3 * r.outcome.p99_s),
        first_p50_ms=typical(lambda r: 1e3 * r.outcome.first_p50_s),
        first_p99_ms=typical(lambda r: 1e3 * r.outcome.first_p99_s),
        added_p50_ms=added(lambda o: o.p50_s),
        added_p99_ms=added(lambda o: o.p99_s),
        added_first_p50_ms=added(lambda o: o.first_p50_s),
        added_first_p99_ms=added(lambda o: o.first_p99_s),
        reads=typical(lambda r: r.outcome.reads),
        busy=typical(lambda r: r.outcome.busy),
    )
