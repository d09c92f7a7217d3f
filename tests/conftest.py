"""What tests share: a gateway with the embedded model, one for the whole session."""

from collections.abc import Iterator

import pytest

from tests.process import Gateway, gateway


@pytest.fixture(scope="session")
def local_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The default configuration: loopback, no key, the embedded model."""
    config = {"backends": {"local": {"kind": "local", "threads": 1}}}
    with gateway(tmp_path_factory.mktemp("local"), config) as running:
        yield running
