from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import resilience
from tests.faults.provider import Faults, faults

LINES: pytest.StashKey[dict[resilience.Name, resilience.Line]] = pytest.StashKey()


@pytest.fixture(scope="session")
def faulty() -> Iterator[Faults]:
    """The provider that fails, in a process of its own."""
    with faults() as running:
        yield running


@pytest.fixture(scope="session")
def lines(request: pytest.FixtureRequest) -> dict[resilience.Name, resilience.Line]:
    """Takes down how each case ended, for the page."""
    return request.config.stash[LINES]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-resilience", action="store_true", help="write docs/resilience.md from this run of tests/faults"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = {}


def pytest_sessionfinish(session: pytest.Session, exitstatus: Any) -> None:
    if not session.config.getoption("--write-resilience", default=False):
        return
    lines = session.config.stash[LINES]
    if untried := resilience.names() - set(lines):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        raise pytest.UsageError(f"the table needs the whole of tests/faults; not tried: {sorted(untried)[:10]}")
    resilience.TABLE.write_text(resilience.render(lines))
