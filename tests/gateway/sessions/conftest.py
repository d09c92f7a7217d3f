"""A gateway that generates in sessions, before a provider that notes what it is sent."""

from collections.abc import Iterator

import httpx2
import pytest

from tests import scripts
from tests.gateway.conftest import speaking
from tests.gateway.sessions.turns import KEYS, generating, small
from tests.process import Gateway
from tests.provider import Provider


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with generating(tmp_path_factory.mktemp("turns"), running_provider.url) as house:
        yield house


@pytest.fixture
def http(running: Gateway, upstream: Provider) -> Iterator[httpx2.Client]:
    upstream.scripts["small"] = small
    upstream.scripts["summer"] = scripts.SCRIPTS["answer"]
    with speaking(running, {"authorization": f"Bearer {KEYS[0]['key']}"}) as client:
        yield client
