"""The benchmark must not rot, nor count a broken answer as a fast one."""

from pathlib import Path

import msgspec
import pytest

from tests.bench.load import Job, Outcome
from tests.bench.process import Process, module
from tests.bench.report import Table
from tests.bench.workload import TOKENS, WORKLOADS, answer, events

STREAM = events(usage=False)


def test_a_whole_answer_is_right() -> None:
    assert WORKLOADS["json"].check(answer()) is None
    assert WORKLOADS["stream64"].check(b"".join(STREAM)) is None
    assert WORKLOADS["stream64"].check(b"".join(events(usage=True))) is None


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


def test_the_load_generator_counts_every_answer_of_the_upstream(tmp_path: Path) -> None:
    upstream = Process(module("tests.bench.upstream", "--pause-ms", "0.1"), tmp_path / "upstream.log", pipes=True)
    load = Process(module("tests.bench.load"), tmp_path / "load.log", pipes=True)
    try:
        port = int(upstream.ask())
        for workload in WORKLOADS:
            job = Job(port=port, workload=workload, model="m", key="k", concurrency=3, count=10, limit_s=10)
            outcome = msgspec.json.decode(load.ask(msgspec.json.encode(job)), type=Outcome)
            assert (outcome.completed, outcome.errors) == (10, {})
            assert 0 < outcome.first_p50_s <= outcome.p50_s <= outcome.p99_s
    finally:
        load.stop()
        upstream.stop()


def test_a_table_reads_the_same_in_a_terminal_and_on_a_page() -> None:
    table = Table("t", ("", "req/s"), [("bare", "10"), ("nginx", "100")])
    assert table.text() == "t\n       req/s\n------------\nbare      10\nnginx    100"
    assert table.markdown() == "### t\n\n|  | req/s |\n| --- | ---: |\n| bare | 10 |\n| nginx | 100 |"
