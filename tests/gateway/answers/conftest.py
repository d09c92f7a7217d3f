"""A gateway that keeps answers for two tenants, and one user more."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import config, speaking
from tests.process import Gateway, gateway
from tests.provider import Provider

ANN_KEY, BOB_KEY, RIVAL_KEY = "ann-key-canary-5d01c7", "bob-key-canary-81f2aa", "rival-key-canary-0c7e42"
AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "ann", "key": ANN_KEY, "tenant": "acme"},
        {"name": "bob", "key": BOB_KEY, "tenant": "acme"},
        {"name": "rival", "key": RIVAL_KEY, "tenant": "rival"},
    ],
}


@pytest.fixture(scope="session")
def running_desk(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url) | {"auth": AUTH, "requests": {"answer_bytes": 20_000}}
    prelude = "import gateway.answers; gateway.answers.DETACHED_MAX = 4"
    with gateway(tmp_path_factory.mktemp("desk"), tree, prelude=prelude) as running:
        yield running


@pytest.fixture
def desk(running_desk: Gateway, upstream: Provider) -> Gateway:
    return running_desk


@pytest.fixture
def ann(desk: Gateway) -> Iterator[httpx2.Client]:
    with speaking(desk, {"authorization": f"Bearer {ANN_KEY}"}) as http:
        yield http


@pytest.fixture
def bob(desk: Gateway) -> Iterator[httpx2.Client]:
    """Another user of the same tenant."""
    with speaking(desk, {"authorization": f"Bearer {BOB_KEY}"}) as http:
        yield http


@pytest.fixture
def rival(desk: Gateway) -> Iterator[httpx2.Client]:
    with speaking(desk, {"authorization": f"Bearer {RIVAL_KEY}"}) as http:
        yield http


def unique(name: str) -> str:
    return f"{name}-{time.monotonic_ns()}"


def ended(http: httpx2.Client, id_: str, within_s: float = 10.0) -> dict[str, Any]:
    """A request's standing, once it is over."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        told: dict[str, Any] = http.get(f"/v1/requests/{id_}").json()
        if told.get("ended_at"):
            return told
        time.sleep(0.02)
    raise AssertionError(f"{id_} does not end: {told}")
