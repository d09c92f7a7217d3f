"""One stage for all inputs; after each test the gateways are as they were."""

from collections.abc import Iterator

import pytest

from tests.fuzz.plan import FULL, SEED
from tests.fuzz.stage import Stage, stage


@pytest.fixture(scope="session")
def running_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def report(running_stage: Stage, pytestconfig: pytest.Config) -> Iterator[None]:
    """In full, the figures, and the seed by which the same is seen again."""
    yield
    if FULL:
        counts = sorted(running_stage.statuses.items(), key=lambda pair: pair[0] or 0)
        answers = ", ".join(f"{status or 'none'}: {count}" for status, count in counts)
        capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            print(f"\nFUZZ_SEED={SEED}: {running_stage.inputs} inputs; answers by status: {answers}")


@pytest.fixture(autouse=True)
def as_before(running_stage: Stage) -> Iterator[None]:
    yield
    running_stage.check()
