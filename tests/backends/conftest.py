"""What tests of the backends share."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from huggingface_hub import constants

from backends.huggingface import HuggingFaceBackend, Settings, connect
from backends.ports import Ports
from tests.backends.hub import TOKEN, Hub, Make
from tests.provider import Provider


@pytest.fixture
def hub(upstream: Provider, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(upstream)
    for name in ("", "together-name"):
        upstream.scripts[name] = hub.play
    monkeypatch.setattr(constants, "ENDPOINT", upstream.url.removesuffix("/v1"))
    return hub


@pytest.fixture
async def make_hf(upstream: Provider) -> AsyncIterator[Make]:
    made: list[HuggingFaceBackend] = []

    def connected(**settings: Any) -> HuggingFaceBackend:
        given = {"base_url": upstream.url, "api_key": TOKEN} | settings
        made.append(connect("hf", Settings(**given), Ports()))
        return made[-1]

    yield connected
    for backend in made:
        await backend.aclose()
