"""TLS on the way to a provider: whom the gateway believes, and what its clients hear of the others."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from tests.deployment.certificates import LOOPBACK, Authority
from tests.deployment.conftest import APP_KEY, config
from tests.http import CHAT, chat, error_of, text_of
from tests.process import Gateway, gateway
from tests.provider import Provider, provider

DOUBTFUL = ("untrusted", "expired", "misnamed", "old")


@pytest.fixture(scope="module")
def stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Provider]]:
    """A gateway that trusts one authority, before a provider with its certificate and others with worse ones."""
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    old = authority.issue(*LOOPBACK).context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with ExitStack() as stack:
        good = stack.enter_context(provider(authority.issue(*LOOPBACK).context()))
        others = {
            "untrusted": stack.enter_context(provider(stranger.issue(*LOOPBACK).context())),
            "expired": stack.enter_context(provider(authority.issue(*LOOPBACK, expired=True).context())),
            "misnamed": stack.enter_context(provider(authority.issue("elsewhere.example", "192.0.2.1").context())),
            "old": stack.enter_context(provider(old)),
        }
        tree = config(good.url.replace("127.0.0.1", "localhost"))
        tree["backends"]["address"] = tree["backends"]["up"] | {"base_url": good.url}
        for name, other in others.items():
            tree["backends"][name] = {"kind": "openai", "base_url": other.url, "api_key": "never-to-be-sent-6611"}
            tree["models"][name] = {"routes": [f"{name}/answer"], "retries": 0}
            tree["models"][f"{name}-else"] = {"routes": [f"{name}/answer", "up/answer"], "retries": 0}
        environ = {"SSL_CERT_FILE": str(authority.cert), "SSL_CERT_DIR": ""}
        running = stack.enter_context(gateway(tmp_path_factory.mktemp("upstream-tls"), tree, environ))
        yield running, good
        for other in others.values():
            assert not other.seen, "a request was sent to somebody who was not believed"


@pytest.fixture
def http(stage: tuple[Gateway, Provider]) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=stage[0].url, headers={"authorization": f"Bearer {APP_KEY}"}, timeout=30, verify=False
    ) as client:
        yield client


@pytest.mark.parametrize("backend", ["up", "address"])
def test_a_trusted_provider_answers_by_name_and_by_address(http: httpx2.Client, backend: str) -> None:
    assert http.post(CHAT, json=chat(f"{backend}/answer")).status_code == 200
    streamed = http.post(CHAT, json=chat(f"{backend}/events:1000", stream=True))
    assert text_of(streamed.content) == "".join(f"word{n} " for n in range(1000))
    assert streamed.content.endswith(b"data: [DONE]\n\n")


def test_its_list_of_models_is_asked_over_tls_too(http: httpx2.Client) -> None:
    assert any(model["id"].startswith("up/") for model in http.get("/v1/models").json()["data"])


def test_connections_are_used_again(http: httpx2.Client, stage: tuple[Gateway, Provider]) -> None:
    good = stage[1]
    http.post(CHAT, json=chat("up/answer"))
    before = good.connections
    for n in range(20):
        assert http.post(CHAT, json=chat("up/events:3", stream=bool(n % 2))).status_code == 200
    assert good.connections == before


def test_a_body_of_megabytes_arrives(http: httpx2.Client, stage: tuple[Gateway, Provider]) -> None:
    text = "mega " * 1_000_000
    assert http.post(CHAT, json=chat("up/answer", text)).status_code == 200
    assert stage[1].asked("mega ").json["messages"][0]["content"] == text
    stage[1].forget()


def test_who_hangs_up_ends_the_providers_work(http: httpx2.Client, stage: tuple[Gateway, Provider]) -> None:
    with http.stream("POST", CHAT, json=chat("up/events:1000:0.05", "hang up", stream=True)) as answer:
        next(answer.iter_bytes())
        asked = stage[1].asked("hang up")
    assert asked.over.wait(5)
    assert asked.left_at is not None


@pytest.mark.parametrize("backend", DOUBTFUL)
def test_nobody_else_is_believed(http: httpx2.Client, backend: str) -> None:
    for stream in (False, True):
        answer = http.post(CHAT, json=chat(backend, stream=stream))
        assert answer.status_code == 502
        error = error_of(answer)
        assert error["code"] == "upstream_unreachable"
        assert "certificate" not in error["message"].lower()  # what is wrong is for the log
    assert http.post(CHAT, json=chat(f"{backend}-else")).headers["x-gateway-model"] == "up/answer"
