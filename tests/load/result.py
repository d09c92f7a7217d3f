"""What a scene found: figures, and for some of them a bound that they must keep."""

import statistics
import sys
import time
from collections.abc import Sequence

from msgspec import Struct, field


class Figure(Struct, frozen=True):
    name: str
    value: float
    unit: str = ""
    most: float | None = None
    """It may not be above this; None: it is only told."""
    least: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def target(self) -> str:
        if self.most is None and self.least is None:
            return ""
        return f"≤ {_number(self.most)}" if self.most is not None else f"≥ {_number(self.least or 0)}"

    @property
    def shown(self) -> str:
        return f"{_number(self.value)} {self.unit}".strip()


class Result(Struct):
    scene: str
    figures: list[Figure] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        return [
            f"{self.scene}: {f.name}: {f.shown}, target {f.target}" + (f"; {f.note}" if f.note else "")
            for f in self.figures
            if not f.ok
        ]


class Progress:
    """Says where a scene is: on a terminal in one line, in a file now and then."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._said = 0.0
        self.scene = ""

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty():
            print(f"\r\033[K{self.scene}: {text}", end="", file=sys.stderr, flush=True)
        elif now - self._said >= self._every_s:
            self._said = now
            print(f"{self.scene}: {text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def text(results: Sequence[Result]) -> str:
    """The figures for a terminal."""
    figures = [f for result in results for f in result.figures]
    name, shown, target = (max(len(f) for f in column) for column in zip(*map(_row, figures), strict=True))
    lines = []
    for result in results:
        lines += ["", result.scene]
        for f in result.figures:
            cells = _row(f)
            verdict = "" if not f.target else "ok" if f.ok else "MISSED"
            line = f"  {cells[0]:<{name}}  {cells[1]:>{shown}}  {cells[2]:<{target}}  {verdict:<6}  {f.note}"
            lines.append(line.rstrip())
    return "\n".join(lines[1:])


def markdown(results: Sequence[Result]) -> str:
    """The figures for a page."""
    lines = ["| scene | figure | seen | target | |", "| --- | --- | ---: | ---: | --- |"]
    for result in results:
        for n, f in enumerate(result.figures):
            scene = result.scene if n == 0 else ""
            verdict = " ".join(word for word in ("" if f.ok else "**missed**", f.note) if word)
            lines.append(f"| {scene} | {' | '.join(_row(f))} | {verdict} |")
    return "\n".join(lines)


def rank(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the line through the points, least squares."""
    return statistics.linear_regression(xs, ys).slope if len(set(xs)) > 1 else 0.0


def words(counts: dict[str, int]) -> str:
    return ", ".join(f"{n}× {what}" for what, n in sorted(counts.items()))


def _row(figure: Figure) -> tuple[str, str, str]:
    return figure.name, figure.shown, figure.target


def _number(value: float | None) -> str:
    value = value or 0.0
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
