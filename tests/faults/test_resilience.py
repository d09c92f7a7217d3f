"""`docs/resilience.md` tells of the faults that the suite plays, no more and no less."""

import pytest

from tests.faults import resilience
from tests.faults.cases import Expected, cases
from tests.faults.matrix import EXCEPTIONS, FAULTS, LOCAL_FAULTS, TCP_FAULTS


def test_the_page_lists_the_cases_that_are_played(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-resilience", default=False):
        pytest.skip("the page is being written")
    assert resilience.read(resilience.TABLE.read_text()) == resilience.names(), (
        "run `python -m pytest tests/faults --write-resilience`"
    )


def test_what_is_written_is_read_back() -> None:
    lines = {name: resilience.Line(200, "answer", "1", 0.1) for name in resilience.names()}
    assert resilience.read(resilience.render(lines)) == resilience.names()


def test_every_cell_of_the_table_can_be_read() -> None:
    for case in cases():
        Expected.read(case.cell)
    for row in LOCAL_FAULTS.values():
        for cell in (row.streamed, row.whole, row.streamed_backed, row.whole_backed):
            assert cell is not None
            Expected.read(cell)


def test_every_exception_is_one_of_a_fault_that_there_is() -> None:
    for dialect in EXCEPTIONS.values():
        assert set(dialect) <= set(FAULTS) | set(TCP_FAULTS)
