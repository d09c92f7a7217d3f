"""Tables, for a terminal and for a page, and the two ratios everything else is there to explain."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from tests.bench.measure import DIRECT, Bench, Cell, Figures, Footprint
from tests.bench.workload import WORKLOADS

COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("req/s", lambda f: f"{f.rps:,.0f}"),
    ("CPU µs/req", lambda f: f"{f.cpu_us:,.0f}"),
    ("p50 ms", lambda f: _ms(f.p50_ms)),
    ("p99 ms", lambda f: _ms(f.p99_ms)),
    ("TTFT p50", lambda f: _ms(f.first_p50_ms)),
    ("TTFT p99", lambda f: _ms(f.first_p99_ms)),
    ("+p50", lambda f: _ms(f.added_p50_ms)),
    ("+p99", lambda f: _ms(f.added_p99_ms)),
    ("+TTFT p50", lambda f: _ms(f.added_first_p50_ms)),
    ("+TTFT p99", lambda f: _ms(f.added_first_p99_ms)),
    ("reads", lambda f: f"{f.reads:.0f}"),
    ("answers", lambda f: f"{f.requests:,}"),
    ("errors", lambda f: ", ".join(f"{n}× {what}" for what, n in f.errors.items()) or "0"),
)
JUDGED_AT = 16
"""Connections at which the targets hold; at one, nothing is there to be done together."""
GLOSSARY = (
    "Titles say workload × connections; figures are medians of the rounds. CPU is the contestant's own, user and "
    "system, children included; for `direct`, the upstream's. Times are ms, `+` is against `direct` in the same "
    "round; TTFT ends at the first text; `reads` is how many reads the client needed per answer. In a closed loop "
    "latency at 16 and 64 is mostly queueing: the delay a contestant adds by itself stands at × 1, its cost under CPU. "
    "Lanes name the client's dialect and, where it is another, the provider's. `× bare` is against the bare "
    "pass-through of the same request, whose upstream answers in the client's own dialect. These ratios are medians "
    "of the rounds' own ratios; targets hold at 16 connections."
)


class Table(Struct, frozen=True):
    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def text(self) -> str:
        widths = [max(len(row[n]) for row in [self.header, *self.rows]) for n in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) if n == 0 else cell.rjust(width) for n, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(row, widths, strict=True)) for row in [self.header, *self.rows])
        ]
        return "\n".join([self.title, lines[0], "-" * len(lines[0]), *lines[1:]])

    def markdown(self) -> str:
        rule = ("---", *("---:" for _ in self.header[1:]))
        lines = [f"| {' | '.join(row)} |" for row in [self.header, rule, *self.rows]]
        return "\n".join([f"### {self.title}", "", *lines])


def cells(figures: dict[Cell, Figures]) -> list[Table]:
    """One table per workload and concurrency."""
    groups: dict[tuple[str, int], list[tuple[str, Figures]]] = {}
    for cell, f in figures.items():
        groups.setdefault((cell.workload, cell.concurrency), []).append((cell.name, f))
    tables = []
    for (workload, concurrency), seen in groups.items():
        stream = WORKLOADS[workload].stream
        columns = [(name, render) for name, render in COLUMNS if stream or "TTFT" not in name]
        rows = [(name, *(render(f) for _, render in columns)) for name, f in seen]
        tables.append(Table(f"{workload} × {concurrency}", ("", *(name for name, _ in columns)), rows))
    return tables


def footprints(seen: dict[str, Footprint]) -> Table:
    header = ("", "what", "start s", "idle MiB", "after load MiB", "background µs/req")
    rows: list[tuple[str, ...]] = [
        (name, f.what, f"{f.ready_s:.2f}", _mib(f.idle_bytes), _mib(f.loaded_bytes), f"{max(0, f.background_us):.0f}")
        for name, f in seen.items()
    ]
    return Table("Start-up and memory", header, rows)


def ratios(figures: dict[Cell, Figures]) -> list[Table]:
    """Who costs how much of whom in chat.  Contestants that did not run leave their table out."""
    figures = {cell: f for cell, f in figures.items() if WORKLOADS[cell.workload].chats}
    places = list(dict.fromkeys((cell.workload, cell.concurrency) for cell in figures))
    names = [name for name in dict.fromkeys(cell.name for cell in figures) if name != DIRECT]
    header = ("", *(f"{workload}×{concurrency}" for workload, concurrency in places))
    tables = []
    for other, title in (
        ("litellm", "Requests per CPU-second, as a multiple of LiteLLM's"),
        ("bare", "CPU per request, as a multiple of the bare pass-through's"),
    ):
        rows = []
        for name in names:
            if other not in names or name == other:
                continue
            pairs = [(_cpu(figures, place, name), _cpu(figures, place, other)) for place in places]
            if other == "litellm":
                pairs = [(theirs, ours) for ours, theirs in pairs]
            rows.append((name, *(f"{a / b:.2f}×" if a and b else "–" for a, b in pairs)))
        if rows:
            tables.append(Table(title, header, rows))
    return tables


def lanes(bench: Bench, figures: dict[Cell, Figures]) -> list[Table]:
    """What the gateway costs in every lane, held against what it may; none when it has nobody beside it."""
    rows: list[tuple[str, ...]] = []
    for cell, f in figures.items():
        if cell.name != "gateway":
            continue
        workload, connections = WORKLOADS[cell.workload], cell.concurrency
        place = (workload.name, connections)
        of_bare = bench.multiple((*place, "gateway"), (*place, "bare"))
        of_litellm = bench.multiple((*place, "litellm"), (*place, "gateway"))
        rows.append(
            (
                f"{workload.name} × {connections}",
                f"{f.cpu_us:,.0f}",
                f"{_cpu(figures, place, 'bare'):,.0f}",
                *_judged(of_bare, workload.within if connections == JUDGED_AT else None, "≤"),
                f"{_cpu(figures, place, 'litellm'):,.0f}",
                *_judged(of_litellm, workload.beyond if connections == JUDGED_AT else None, "≥"),
            )
        )
    ours = ("lane", "CPU µs", "bare µs", "× bare", "target", "")
    header = (*ours, "LiteLLM µs", "LiteLLM ×", "target", "")
    return [Table("Lanes", header, rows)] if rows and len(bench.contestants) > 1 else []


def _judged(value: float | None, target: float | None, sign: str) -> tuple[str, str, str]:
    if value is None:
        return "–", "", ""
    if target is None:
        return f"{value:.2f}", "", ""
    met = value <= target if sign == "≤" else value >= target
    return f"{value:.2f}", f"{sign} {target:g}", "met" if met else "MISSED"


def caveats(figures: dict[Cell, Figures]) -> Sequence[str]:
    """What the reader should know before believing a figure."""
    full = [f"{c.workload}×{c.concurrency} {c.name}" for c, f in figures.items() if f.busy > 0.85]
    return [f"The load generator itself was busy over 85 % in: {', '.join(full)}."] if full else []


def _cpu(figures: dict[Cell, Figures], place: tuple[str, int], name: str) -> float:
    found = figures.get(Cell(*place, name))
    return found.cpu_us if found and found.requests else 0.0


def _ms(ms: float) -> str:
    return f"{ms:.2f}" if abs(ms) < 100 else f"{ms:,.0f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"
