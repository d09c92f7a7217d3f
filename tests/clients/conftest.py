from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.clients.gateways import tool_gateway
from tests.process import Gateway

__all__ = ["tool_gateway"]


@pytest.fixture
def client(local_gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def tool_client(tool_gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tool_gateway.url}/v1", api_key="local", max_retries=0, timeout=30) as client:
        yield client
