"""Gateways the clients' tests need besides the local one; fixtures, for conftest files to import."""

from collections.abc import Iterator

import pytest

from tests.clients import caller
from tests.process import Gateway, gateway
from tests.provider import provider


@pytest.fixture(scope="session")
def tool_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """In front of a provider whose models, `auto` and `second-caller`, call tools."""
    with provider() as upstream:
        upstream.scripts |= {"first-caller": caller.play, "second-caller": caller.play}
        config = {
            "backends": {"provider": {"kind": "openai", "base_url": upstream.url, "api_key": "sk-provider"}},
            "models": {
                "auto": {"routes": ["provider/first-caller"]},
                "second-caller": {"routes": ["provider/second-caller"]},
            },
        }
        with gateway(tmp_path_factory.mktemp("tools"), config) as running:
            yield running
