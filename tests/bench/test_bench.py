"""The benchmark must not rot, nor count a broken answer as a fast one."""

from pathlib import Path

import msgspec
import pytest

from tests.bench import chat, embeddings, messages, overhead
from tests.bench.contestants import STARTERS
from tests.bench.load import Job, Outcome
from tests.bench.measure import Bench, Plan
from tests.bench.passage import TOKENS
from tests.bench.process import Process, module
from tests.bench.report import Table, lanes
from tests.bench.workload import WORKLOADS

STREAM = chat.events(usage=False)
MESSAGE = messages.events()


@pytest.mark.parametrize(
    ("workload", "body"),
    [
        ("json", chat.answer()),
        ("stream64", b"".join(STREAM)),
        ("stream64", b"".join(chat.events(usage=True))),
        ("completions", chat.legacy_answer()),
        ("completions-stream", b"".join(chat.legacy_events(usage=True))),
        ("embeddings", embeddings.answer()),
        ("messages", messages.answer()),
        ("messages-stream", b"".join(MESSAGE)),
    ],
)
def test_a_whole_answer_is_right(workload: str, body: bytes) -> None:
    assert WORKLOADS[workload].check(body) is None


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"".join(STREAM[:-1]), "no [DONE]"),
        (b"".join([*STREAM[:-2], STREAM[-1]]), "no finish_reason"),
        (b"".join([*STREAM[:5], *STREAM[6:]]), f"{len(TOKENS) - 1} content events instead of {len(TOKENS)}"),
        (b"".join([*STREAM, STREAM[-1]]), "events after [DONE]"),
        (STREAM[0][:-9] + b"\n\n", "an event that is not a chunk"),
    ],
)
def test_a_stream_that_lacks_something_is_an_error(body: bytes, wrong: str) -> None:
    assert WORKLOADS["stream64"].check(body) == wrong


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"".join(MESSAGE[:-1]), "no message_stop"),
        (b"".join([*MESSAGE[:-3], *MESSAGE[-2:]]), "events out of order"),
        (b"".join([*MESSAGE[:5], *MESSAGE[6:]]), f"{len(TOKENS) - 1} content events instead of {len(TOKENS)}"),
        (b"".join(MESSAGE).replace(b'"end_turn"', b"null"), "no stop_reason"),
        (b"".join(MESSAGE).replace(b"event: message_stop", b"event: message_end"), "an event under another name"),
        (MESSAGE[0][:-9] + b"\n\n", "an event that is not one of a message"),
    ],
)
def test_a_message_that_lacks_something_is_an_error(body: bytes, wrong: str) -> None:
    assert WORKLOADS["messages-stream"].check(body) == wrong


@pytest.mark.parametrize(
    ("workload", "body", "wrong"),
    [
        ("json", chat.answer().replace(b"gateway", b"gatepost"), "another text"),
        ("completions", chat.legacy_answer()[:-1], "not a completion"),
        ("embeddings", embeddings.answer().replace(embeddings.VECTOR[:8], b"AAAAAAAA", 1), "another vector"),
        ("messages", messages.answer().replace(b'"end_turn"', b"null"), "no stop_reason"),
        ("messages", chat.answer(), "not a message"),
    ],
)
def test_another_answer_is_an_error(workload: str, body: bytes, wrong: str) -> None:
    assert WORKLOADS[workload].check(body) == wrong


def test_the_load_generator_counts_every_answer_of_the_upstream(tmp_path: Path) -> None:
    upstream = Process(module("tests.bench.upstream", "--pause-ms", "0.1"), tmp_path / "upstream.log", pipes=True)
    load = Process(module("tests.bench.load"), tmp_path / "load.log", pipes=True)
    try:
        port = int(upstream.ask())
        for workload in WORKLOADS:
            job = Job(port=port, workload=workload, key="k", concurrency=3, count=10, limit_s=10)
            outcome = msgspec.json.decode(load.ask(msgspec.json.encode(job)), type=Outcome)
            assert (outcome.completed, outcome.errors) == (10, {})
            assert 0 < outcome.first_p50_s <= outcome.p50_s <= outcome.p99_s
    finally:
        load.stop()
        upstream.stop()


def test_every_lane_answers_whole_through_the_gateway_and_the_bare_pass_through(tmp_path: Path) -> None:
    upstream = Process(module("tests.bench.upstream", "--pause-ms", "0.1"), tmp_path / "upstream.log", pipes=True)
    load = Process(module("tests.bench.load"), tmp_path / "load.log", pipes=True)
    bench = Bench(upstream, int(upstream.ask()), load, lambda _: None, warm_s=0.02, settle_s=0)
    try:
        for name in ("gateway", "bare"):
            (tmp_path / name).mkdir()
            bench.contestants.append(STARTERS[name](name, bench.upstream_port, tmp_path / name))
        bench.run(Plan(workloads=tuple(WORKLOADS), concurrency=(16,), rounds=1, job_s=0.01))
    finally:
        for process in [*(c.process for c in bench.contestants), load, upstream]:
            process.stop()
    figures = bench.figures()
    assert {cell: f.errors for cell, f in figures.items() if f.errors} == {}
    assert {cell.workload for cell, f in figures.items() if cell.name == "gateway" and f.requests} == set(WORKLOADS)
    table = lanes(bench, figures)[0]
    assert [row[0] for row in table.rows] == [f"{name} × 16" for name in WORKLOADS]
    assert {row[5] for row in table.rows} <= {"met", "MISSED"}


def test_a_table_reads_the_same_in_a_terminal_and_on_a_page() -> None:
    table = Table("t", ("", "req/s"), [("bare", "10"), ("nginx", "100")])
    assert table.text() == "t\n       req/s\n------------\nbare      10\nnginx    100"
    assert table.markdown() == "### t\n\n|  | req/s |\n| --- | ---: |\n| bare | 10 |\n| nginx | 100 |"


def test_what_governing_adds_is_measured(tmp_path: Path) -> None:
    figures = overhead.measure(tmp_path / "governed", 1)
    table = overhead.table(figures)
    assert [row[0] for row in table.rows] == [variant.name for variant in overhead.VARIANTS]
    assert table.rows[-1][3] in {"met", "MISSED"}
