"""`python -m tests.bench [--quick] [--only gateway,bare] [--overhead | --local]`: the whole comparison in one run."""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import msgspec

from tests.bench import local, measure, overhead, report
from tests.bench.contestants import DEFAULT, STARTERS
from tests.bench.measure import Bench, Figures, Plan
from tests.bench.process import Process, StartFailed, module
from tests.bench.provision import Missing
from tests.bench.workload import WORKLOADS

NORMAL = Plan(workloads=tuple(WORKLOADS), concurrency=(1, 16, 64), rounds=3, job_s=0.8)
QUICK = Plan(workloads=tuple(name for name in WORKLOADS if name != "paced64"), concurrency=(1, 16), rounds=1, job_s=0.3)
TURNS, QUICK_TURNS = 25, 7
"""Of each variant, in measuring what governing adds."""


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: chat × 1 and 16, the other lanes × 16")
    parser.add_argument("--overhead", action="store_true", help="only what keys, limits and usage add, in one process")
    parser.add_argument("--local", action="store_true", help="only what the gateway costs a local model")
    parser.add_argument("--only", type=_names, default=DEFAULT, help=f"of {','.join(STARTERS)}")
    parser.add_argument("--workloads", type=_names, help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--concurrency", type=lambda s: tuple(map(int, _names(s))), help="such as 1,16,64")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of load per figure and round")
    parser.add_argument("--pause-ms", type=float, default=5.0, help="between events of paced64")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    options = parser.parse_args()
    for given, known in ((options.only, STARTERS), (options.workloads or (), WORKLOADS)):
        if strange := [name for name in given if name not in known]:
            parser.error(f"unknown: {', '.join(strange)}; known are {', '.join(known)}")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    given = {
        "workloads": options.workloads,
        "concurrency": options.concurrency,
        "lanes_at": options.concurrency,
        "rounds": options.rounds,
        "job_s": options.seconds,
    }
    return msgspec.structs.replace(QUICK if options.quick else NORMAL, **{k: v for k, v in given.items() if v})


def _measure(bench: Bench, plan: Plan, only: tuple[str, ...], folder: Path) -> list[str]:
    """Start who can be started, run the rounds; what could not be done, in words."""
    skipped = []
    for name in only:
        own = folder / name
        own.mkdir()
        _say(f"starting {name}")
        try:
            bench.contestants.append(STARTERS[name](name, bench.upstream_port, own))
        except (Missing, StartFailed) as e:
            skipped.append(f"skipped: {name}: {e}")
    bench.run(plan)
    return skipped


def _startup(folder: Path, times: int) -> tuple[str, dict[str, float]]:
    _say("starting gateways")
    try:
        ready_s, idle_bytes = measure.startup(folder, times)
    except StartFailed as e:
        return f"Gateway start-up: failed: {e}", {}
    text = (
        f"Gateway start-up, no backends: {ready_s:.2f} s from exec to the first 200 on /health, "
        f"{idle_bytes / 2**20:.0f} MiB resident when idle (median of {times})"
    )
    return text, {"ready_s": ready_s, "idle_bytes": idle_bytes}


def _machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"load average {load:.1f} before the run"
    )


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = _options()
    plan = _plan(options)
    machine, begun = _machine(), time.perf_counter()
    signal.signal(signal.SIGTERM, _stop)
    turns = QUICK_TURNS if options.quick else TURNS
    if options.overhead:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            governing = overhead.measure(Path(name) / "governed", turns)
        print(f"{machine}; {time.perf_counter() - begun:.0f} s\n\n{overhead.table(governing).text()}")
        return 0
    if options.local:
        print(f"{local.measure(quick=options.quick).text()}\n\n{machine}; {time.perf_counter() - begun:.0f} s")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        upstream = Process(
            module("tests.bench.upstream", "--pause-ms", str(options.pause_ms)), folder / "upstream.log", pipes=True
        )
        load = Process(module("tests.bench.load"), folder / "load.log", pipes=True)
        bench = Bench(upstream, int(upstream.ask()), load, _say)
        try:
            skipped = _measure(bench, plan, options.only, folder)
            started, startup = _startup(folder, plan.rounds)
            _say("governing")
            governing = overhead.measure(folder / "governed", turns)
        finally:
            for process in [*(c.process for c in bench.contestants), load, upstream]:
                process.stop()
    _say("")
    figures = bench.figures()
    tables = [
        *report.cells(figures),
        report.footprints(bench.footprints),
        *report.ratios(figures),
        *report.lanes(bench, figures),
        overhead.table(governing),
    ]
    took = f"{time.perf_counter() - begun:.0f} s, {plan.rounds} round(s)"
    notes = [started, *report.caveats(figures), *skipped]
    print("\n\n".join([f"{machine}; {took}", *(t.text() for t in tables), report.GLOSSARY, *notes]))
    if options.markdown:
        parts = [f"{machine}; {took}.", *(t.markdown() for t in tables), report.GLOSSARY, *notes]
        options.markdown.write_text("\n\n".join(parts) + "\n")
    if options.json:
        options.json.write_text(json.dumps(_record(machine, bench, figures, startup, governing), indent=1) + "\n")
    return _verdict(options.only, skipped, figures)


def _record(
    machine: str,
    bench: Bench,
    figures: dict[measure.Cell, Figures],
    startup: dict[str, float],
    governing: dict[str, float],
) -> object:
    return {
        "machine": machine,
        "startup": startup,
        "governing_cpu_us": governing,
        "footprints": msgspec.to_builtins(bench.footprints),
        "figures": [{**msgspec.to_builtins(cell), **msgspec.to_builtins(f)} for cell, f in figures.items()],
    }


def _verdict(only: tuple[str, ...], skipped: list[str], figures: dict[measure.Cell, Figures]) -> int:
    """1 when the gateway was to be measured and could not be, or answered wrongly; peers may fail."""
    wrong = any(f.errors for cell, f in figures.items() if cell.name == "gateway")
    absent = "gateway" in only and not any(cell.name == "gateway" for cell in figures)
    return int(wrong or absent)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
