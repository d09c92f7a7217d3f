"""Every fault × streamed or whole × dialect × with or without fallback: how it ends, after how many attempts."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.faults.cases import Case, Expected, Outcome, ask_all, cases, chosen, code_for, config, is_beginning, said
from tests.faults.dialects import TEXT
from tests.faults.matrix import TCP_FAULTS
from tests.faults.provider import Faults
from tests.faults.proxy import proxy
from tests.faults.resilience import Line, Name, label
from tests.process import gateway

EARLY_S, LATE_S = 0.2, 5.0
"""How far from its expected time a case may end: a time-out is not premature, and a busy machine is slow."""
RELEASED_S = 1.0
"""Until a provider is left alone by a request that is over."""
UNREADABLE = "unreadable"
UNSEEN = ("refuse", "blackhole")
"""Faults that no provider sees, so that attempts are those the gateway tells."""
MEMORY_MAX_BYTES = 400 * 1024 * 1024

Lines = dict[Name, Line]
pytestmark = pytest.mark.timeout(300)


class Run:
    def __init__(self, outcomes: dict[Case, Outcome], peak_bytes: int) -> None:
        self.outcomes = outcomes
        self.peak_bytes = peak_bytes


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, faulty: Faults, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All chosen cases, played side by side before one gateway."""
    played = chosen(request, "case")
    with (
        proxy(faulty.port, list(TCP_FAULTS)) as ports,
        gateway(tmp_path_factory.mktemp("faults"), config(played, faulty.port, ports)) as house,
        memory_of(house.process.pid) as peak,
    ):
        outcomes = asyncio.run(ask_all(house.url, played))
        seen = faulty.seen()
    for case, outcome in outcomes.items():
        outcome.primary = [record for record in seen if record["model"] == case.primary]
        outcome.fallback = [record for record in seen if record["model"] == case.fallback]
    return Run(outcomes, max(peak))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name.replace(" ", "-"))
def test_a_fault_ends_as_the_table_says(case: Case, run: Run, lines: Lines) -> None:
    outcome, path = run.outcomes[case], case.lane.path
    expected = Expected.read(case.cell)
    primary, fallback = len(outcome.primary), len(outcome.fallback)
    if case.fault in UNSEEN:
        primary = int(outcome.headers["x-gateway-attempts"]) - fallback
    attempts = f"{primary}+{fallback}" if case.backed else f"{primary}"
    name = label(case.fault, case.tcp), case.streamed, case.dialect, case.backed
    lines[name] = Line(outcome.status, UNREADABLE, attempts, outcome.seconds)
    answer = said(outcome, path, streamed=case.streamed)
    lines[name] = Line(outcome.status, answer.code or "answer", attempts, outcome.seconds)

    assert (outcome.status, answer.code) == (expected.status, code_for(expected, path))
    if answer.code is None:
        assert answer.text == TEXT
    elif outcome.status == 200:
        assert is_beginning(answer.text)
    assert (primary, fallback) == (expected.primary, expected.fallback), "attempts"
    assert expected.seconds - EARLY_S <= outcome.seconds <= expected.seconds + LATE_S
    for record in (*outcome.primary, *outcome.fallback):
        assert record["path"].startswith("/v1/"), "a redirect was followed"
        assert record["over"] is not None, "the provider is still answering"
        assert record["over"] - outcome.ended <= RELEASED_S


def test_no_fault_costs_much_memory(run: Run) -> None:
    assert run.peak_bytes < MEMORY_MAX_BYTES


@contextmanager
def memory_of(pid: int) -> Iterator[list[int]]:
    """What a process has in memory, looked at ten times a second."""
    process, found, ended = psutil.Process(pid), [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            found[0] = max(found[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
