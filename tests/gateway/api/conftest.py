"""A gateway that keeps responses for two tenants, a provider that keeps its own, and a gateway before Anthropic."""

from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.claude import Claude, claude
from tests.gateway.conftest import config, speaking
from tests.process import Gateway, gateway
from tests.provider import Provider

ACME_KEY, RIVAL_KEY = "acme-key-canary-73b1c0", "rival-key-canary-51d2e9"
KEEPER_AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "acme", "key": ACME_KEY, "tenant": "acme"},
        {"name": "rival", "key": RIVAL_KEY, "tenant": "rival"},
    ],
}


@pytest.fixture(scope="session")
def running_keeper(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url) | {"auth": KEEPER_AUTH}
    tree["backends"] |= {
        # The same provider, as one that speaks the Responses API itself; twice, as if they were two.
        "speaks": {"kind": "openai", "base_url": running_provider.url, "api_key": "k", "responses": True},
        "speaks2": {"kind": "openai", "base_url": running_provider.url, "api_key": "k", "responses": True},
    }
    tree["models"] |= {
        "mixed": {"routes": ["speaks/spoken", "fake/fake"], "retries": 0},
        "mixed-busy": {"routes": ["speaks/status:503", "up/answer"], "retries": 0},
        "spoken-once": {"routes": ["speaks/spoken"], "retries": 0},
        "quick-spoken": {"routes": ["speaks/stalling"], "retries": 0, "timeouts": {"idle_s": 0.4}},
        "failing-then-good": {"routes": ["speaks/failing-first", "speaks/spoken"], "retries": 0},
    }
    with gateway(tmp_path_factory.mktemp("keeper"), tree) as running:
        yield running


@pytest.fixture
def keeper(running_keeper: Gateway, upstream: Provider) -> Gateway:
    return running_keeper


@pytest.fixture
def acme(keeper: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    """An unchanged OpenAI client of one tenant."""
    return openai.OpenAI(base_url=f"{keeper.url}/v1", api_key=ACME_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def rival(keeper: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    """An unchanged OpenAI client of another tenant."""
    return openai.OpenAI(base_url=f"{keeper.url}/v1", api_key=RIVAL_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def wire_client(keeper: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the same gateway without an SDK, for the first tenant."""
    with speaking(keeper, {"authorization": f"Bearer {ACME_KEY}"}) as http:
        yield http


@pytest.fixture(scope="session")
def running_anthropic() -> Iterator[Claude]:
    with claude() as running:
        yield running


@pytest.fixture(scope="session")
def running_translating(
    running_anthropic: Claude, running_provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tree = config(running_provider.url)
    tree["backends"]["claude"] = {"kind": "anthropic", "base_url": running_anthropic.url, "api_key": "k"}
    tree["models"] |= {
        "up-then-claude": {"routes": ["up/answer", "claude/claude-opus-4-6"]},
        "failing-then-claude": {"routes": ["claude/status:500", "claude/claude-opus-4-6"]},
        "refusing-then-claude": {"routes": ["claude/status:400", "claude/claude-opus-4-6"]},
    }
    with gateway(tmp_path_factory.mktemp("translating"), tree) as running:
        yield running


@pytest.fixture
def anthropics(running_anthropic: Claude) -> Iterator[Claude]:
    """The provider that speaks Anthropic's dialect, with nothing asked of it yet."""
    running_anthropic.forget()
    yield running_anthropic
    assert not running_anthropic.broken


@pytest.fixture
def translating(running_translating: Gateway, anthropics: Claude, upstream: Provider) -> Gateway:
    """A gateway whose backends speak other dialects than its clients; it wants no key."""
    return running_translating


@pytest.fixture
def translated(translating: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    """An unchanged OpenAI client of that gateway."""
    return openai.OpenAI(base_url=f"{translating.url}/v1", api_key="x", max_retries=0, http_client=sdk_http)


@pytest.fixture
def translated_http(translating: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the same gateway without an SDK."""
    with speaking(translating) as http:
        yield http
