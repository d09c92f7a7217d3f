"""One gateway for all who try its doors."""

from collections.abc import Iterator

import pytest

from tests.gateway.auth.matrix import House, house


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("doors")) as one:
        yield one
