"""What tests share: a gateway with the embedded model, and a provider; one each for the whole session."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.process import Gateway, gateway
from tests.provider import Provider, provider

# The same examples every time, and no verdict on how fast a shared machine is today.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def local_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The default configuration: loopback, no key, the embedded model."""
    config = {"backends": {"local": {"kind": "local", "threads": 1}}}
    with gateway(tmp_path_factory.mktemp("local"), config) as running:
        yield running


@pytest.fixture(scope="session")
def running_provider() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture
def upstream(running_provider: Provider) -> Iterator[Provider]:
    """The provider, with nothing asked of it yet."""
    running_provider.forget()
    yield running_provider
    assert not running_provider.broken
