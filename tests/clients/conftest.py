from collections.abc import Generator, Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.clients import compatibility
from tests.clients.apart import apart, apart_bin
from tests.clients.gateways import tool_gateway
from tests.clients.node import node
from tests.clients.stand_in import stand_in_gateway
from tests.process import Gateway

__all__ = ["apart", "apart_bin", "node", "stand_in_gateway", "tool_gateway"]

PASSED: pytest.StashKey[dict[compatibility.Feature, bool]] = pytest.StashKey()


@pytest.fixture
def client(local_gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def tool_client(tool_gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tool_gateway.url}/v1", api_key="local", max_retries=0, timeout=30) as client:
        yield client


# --- The table of what works ------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-compatibility", action="store_true", help="write docs/compatibility.md from this run of tests/clients"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(client, name): what the test shows, for docs/compatibility.md")
    config.stash[PASSED] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    name = item.originalname if isinstance(item, pytest.Function) else item.name
    if feature := compatibility.ELSEWHERE.get(item.path.name, {}).get(name):
        item.add_marker(pytest.mark.feature(*feature))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    passed = item.config.stash[PASSED]
    if report.failed or hasattr(report, "wasxfail") or (report.when == "call" and report.passed):
        good = report.passed and not hasattr(report, "wasxfail")
        for mark in item.iter_markers("feature"):
            passed[mark.args] = passed.get(mark.args, True) and good
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: Any) -> None:
    if not session.config.getoption("--write-compatibility", default=False):
        return
    passed = session.config.stash[PASSED]
    if untried := compatibility.shown() - set(passed):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        raise pytest.UsageError(f"the table needs the whole of tests/clients; not tried: {sorted(untried)}")
    compatibility.TABLE.write_text(compatibility.render(passed))
