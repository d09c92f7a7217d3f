"""`docs/resilience.md`: which fault ends how, from a run of the matrix."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from tests.faults.cases import cases
from tests.faults.matrix import FAULTS, LOCAL_FAULTS, TCP_FAULTS, TIMEOUTS
from tests.process import ROOT

TABLE = ROOT / "docs" / "resilience.md"
COLUMNS = ("fault", "streamed", "dialect", "fallback", "status", "code", "attempts", "time")
LOCAL = "local"

Name = tuple[str, bool, str, bool]
"""Fault, streamed, dialect, with a fallback."""


class Line(Struct, frozen=True):
    """How one case ended."""

    status: int
    code: str
    """The error's, or `answer`."""
    attempts: str
    seconds: float


def names() -> set[Name]:
    """Every case there is, those of local models included."""
    local = {
        (fault, streamed, LOCAL, backed)
        for fault in LOCAL_FAULTS
        for streamed in (True, False)
        for backed in (True, False)
    }
    return {(label(case.fault, case.tcp), case.streamed, case.dialect, case.backed) for case in cases()} | local


def label(fault: str, tcp: bool) -> str:
    return f"tcp {fault}" if tcp else fault


def render(lines: Mapping[Name, Line]) -> str:
    """The page; dialects in which a fault ends alike share a line."""
    shared: dict[tuple[str, bool, bool, int, str, str], list[tuple[str, float]]] = {}
    order = [*FAULTS, *(label(fault, True) for fault in TCP_FAULTS), *LOCAL_FAULTS]
    dialects = [*dict.fromkeys(case.dialect for case in cases()), LOCAL]

    def place(item: tuple[Name, Line]) -> tuple[int, bool, bool, int]:
        (fault, streamed, dialect, backed), _ = item
        return order.index(fault), backed, not streamed, dialects.index(dialect)

    for (fault, streamed, dialect, backed), line in sorted(lines.items(), key=place):
        key = fault, streamed, backed, line.status, line.code, line.attempts
        shared.setdefault(key, []).append((dialect, line.seconds))
    table = [list(COLUMNS), ["---"] * 4 + ["--:", "---", "--:", "--:"]]
    for (fault, streamed, backed, status, code, attempts), ended in shared.items():
        dialect_names = ", ".join(dialect for dialect, _ in ended)
        slowest_s = max(seconds for _, seconds in ended)
        table.append(
            [
                f"`{fault}`",
                _word(streamed),
                dialect_names,
                _word(backed),
                str(status),
                code,
                attempts,
                f"{slowest_s:.1f} s",
            ]
        )
    waits = ", ".join(f"{name}: {seconds:g}" for name, seconds in TIMEOUTS.items())
    return "\n".join(
        [
            "# Resilience",
            "",
            "What a client gets when its provider fails. Made by `python -m pytest tests/faults --write-resilience`",
            "from a run in which a gateway process meets each of these faults. Do not edit.",
            "",
            f"Every model has one retry, `timeouts: {{{waits}}}` and",
            "`stream_guard: off`: an answer that broke off after its first word ends with an error inside the stream,",
            "status 200. Anthropic's clients read a type where OpenAI's read a code. *Attempts* are those that the",
            "provider saw, and after the + those at the fallback. *Time* is that of the slowest in the line.",
            "`OpenAI → Anthropic` is a client of the one before a provider of the other.",
            "",
            *_written(table),
            "",
            "The faults:",
            "",
            *_meanings(),
            "",
        ]
    )


def read(text: str) -> set[Name]:
    """The cases that a page tells of."""
    found: set[Name] = set()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(COLUMNS) and cells[0].startswith("`"):
            fault, streamed, dialects, backed = cells[0].strip("`"), cells[1] == "yes", cells[2], cells[3] == "yes"
            found |= {(fault, streamed, dialect, backed) for dialect in dialects.split(", ")}
    return found


def _written(table: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in table]


def _meanings() -> list[str]:
    said = {**FAULTS, **{label(fault, True): row for fault, row in TCP_FAULTS.items()}, **LOCAL_FAULTS}
    return [f"* `{fault}`: {row.meaning}" for fault, row in said.items()]


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
