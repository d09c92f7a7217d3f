"""One gateway that wants keys, and one that does not, both in front of the provider."""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.process import Gateway, gateway
from tests.provider import Provider

APP_KEY = "app-key-canary-1f8e2a77"
READER_KEY = "reader-key-canary-5c1d"
ADMIN_KEY = "admin-key-canary-9a3b"
UPSTREAM_KEY = "upstream-key-canary-77ab41"
BODY_LIMIT = 1_000_000

FAILING = (
    "status:500",
    "status:503",
    "status:429",
    "status:401",
    "quota",
    "reset",
    "html",
    "error_in_200",
    "cut",
    "error_event:0",
)
"""Scripts after which the next route is tried."""


def config(provider_url: str) -> dict[str, Any]:
    """A configuration without local models: `once-X` plays script X with a single attempt."""
    quick = {"connect_s": 2, "first_token_s": 0.4, "idle_s": 0.4, "total_s": 5}
    names: dict[str, Any] = {
        "auto": {"routes": ["fake/fake"]},
        "once-*": {"routes": ["up/*"], "retries": 0},
        "again": {"routes": ["up/status:503"], "retries": 2},
        "no-account": {"routes": ["up/quota"], "retries": 2},
        "limited": {"routes": ["up/status:429:0"], "retries": 2},
        "backing-off": {"routes": ["up/status:429:5"], "retries": 2},
        "quick-silent": {"routes": ["up/silent"], "retries": 0, "timeouts": quick},
        "quick-headers": {"routes": ["up/stall:0"], "retries": 0, "timeouts": quick},
        "quick-stall": {"routes": ["up/stall:2"], "retries": 0, "timeouts": quick},
        "quick-trickle": {"routes": ["up/events:100:0.1"], "retries": 0, "timeouts": quick | {"total_s": 0.8}},
        "quick-then-good": {"routes": ["up/silent", "up/answer"], "retries": 0, "timeouts": quick},
        "dead": {"routes": ["dead/anything"], "retries": 0},
        "dead-then-good": {"routes": ["dead/anything", "up/answer"], "retries": 0},
        "cut-then-fake": {"routes": ["up/cut", "fake/fake"], "retries": 0},
        "dead-then-fake": {"routes": ["dead/anything", "fake/fake"], "retries": 0},
    }
    names |= {f"after-{script}": {"routes": [f"up/{script}", "up/answer"], "retries": 0} for script in FAILING}
    return {
        "server": {"body_limit_bytes": BODY_LIMIT},
        "backends": {
            "up": {"kind": "openai", "base_url": provider_url, "api_key": UPSTREAM_KEY},
            "dead": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"},
            "fake": {"kind": "fake"},
            "slow": {"kind": "fake", "pause_s": 0.1},
        },
        "models": names,
    }


AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "app", "key": APP_KEY, "scopes": ["inference", "models:read"], "tenant": "acme"},
        {"name": "reader", "key": READER_KEY, "scopes": ["models:read"]},
        {"name": "root", "key": ADMIN_KEY, "scopes": ["admin"]},
    ],
}


@pytest.fixture(scope="session")
def running_house(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("house"), config(running_provider.url) | {"auth": AUTH}) as running:
        yield running


@pytest.fixture(scope="session")
def running_open_house(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("open"), config(running_provider.url)) as running:
        yield running


@pytest.fixture
def house(running_house: Gateway, upstream: Provider) -> Gateway:
    """A gateway with `auth.mode: api_key`, before a provider that has not been asked anything yet."""
    return running_house


@pytest.fixture
def open_house(running_open_house: Gateway, upstream: Provider) -> Gateway:
    """A gateway with `auth.mode: local`, before a provider that has not been asked anything yet."""
    return running_open_house


@pytest.fixture
def client(house: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the house with the app's key."""
    with speaking(house, {"authorization": f"Bearer {APP_KEY}"}) as http:
        yield http


@pytest.fixture
def anonymous(house: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the house without a key."""
    with speaking(house) as http:
        yield http


@pytest.fixture
def open_client(open_house: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the open house, without a key."""
    with speaking(open_house) as http:
        yield http


@pytest.fixture(scope="session")
def sdk_http() -> Iterator[httpx2.Client]:
    """The transport that the tests' SDK clients share."""
    with httpx2.Client(verify=False, timeout=30) as http:
        yield http


def speaking(gateway: Gateway, headers: dict[str, str] | None = None) -> httpx2.Client:
    return httpx2.Client(base_url=gateway.url, headers=headers, timeout=30, verify=False)


@pytest.fixture
def sdk(house: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    """An unchanged OpenAI client with the app's key, that does not retry."""
    return openai.OpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, max_retries=0, http_client=sdk_http)
