"""Tokens that real identity providers have made: oidc-provider and oauth2-mock-server."""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from anthropic import Anthropic

from tests.clients.node import INSTALL_S
from tests.gateway.auth.issuers import Issuers, header_of, real_issuers
from tests.gateway.conftest import APP_KEY, AUTH
from tests.http import error_of, usage_row
from tests.process import Gateway, gateway

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one installs the packages
FAKE: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "models": {"auto": {"routes": ["fake/fake"]}}}
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Hello."}]}
PRELUDE = "from gateway.auth import issuer; issuer.AGAIN_S = 0.2"


@pytest.fixture(scope="module")
def issuers() -> Iterator[Issuers]:
    with real_issuers() as running:
        yield running


@pytest.fixture(scope="module")
def provided(issuers: Issuers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Trusts oidc-provider, found by its description."""
    jwt = {
        "issuer": issuers.provider,
        "audience": "pluggably",
        "tenant_claim": "https://example.com/tenant",
        "roles_claim": "realm_access.roles",
        "roles": {"staff": ["sessions"]},
    }
    with gateway(tmp_path_factory.mktemp("provided"), FAKE | {"auth": {"mode": "jwt", "jwt": jwt}}) as running:
        yield running


@pytest.fixture(scope="module")
def mocked(issuers: Issuers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Trusts oauth2-mock-server, and takes keys as well."""
    auth = {"mode": "api_key+jwt", "keys": AUTH["keys"], "jwt": {"issuer": issuers.mock, "audience": "pluggably"}}
    with gateway(tmp_path_factory.mktemp("mocked"), FAKE | {"auth": auth}, prelude=PRELUDE) as running:
        yield running


def ask(house: Gateway, token: str, **headers: str) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"} | headers
    return httpx2.post(f"{house.url}/v1/chat/completions", json=BODY, headers=headers, timeout=30, verify=False)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_an_access_token_is_taken(provided: Gateway, issuers: Issuers, algorithm: str) -> None:
    token = issuers.provided("inference", f"urn:gateway:{algorithm}")
    assert (header_of(token)["alg"], header_of(token)["typ"]) == (algorithm, "at+jwt")
    answer = ask(provided, token, **{"x-request-id": f"by-{algorithm}"})
    assert answer.status_code == 200
    row = usage_row(provided.folder, f"by-{algorithm}")
    assert (row["owner_id"], row["tenant_id"]) == ("batch-job", "acme")


def test_a_token_for_another_resource_is_refused(provided: Gateway, issuers: Issuers) -> None:
    answer = ask(provided, issuers.provided("inference", "urn:billing:RS256"))
    assert answer.status_code == 401
    assert "it must be for pluggably" in error_of(answer)["message"]
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_without_the_scope_is_403(provided: Gateway, issuers: Issuers) -> None:
    answer = ask(provided, issuers.provided("models:read"))
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "insufficient_scope"


def test_a_client_whose_name_is_too_long_is_told(provided: Gateway, issuers: Issuers) -> None:
    name = "batch-job-with-a-name-that-is-far-longer-than-any-user-of-ours-may-have"
    answer = ask(provided, issuers.provided("inference", client=name))
    assert answer.status_code == 401
    assert "'sub' cannot name a user" in error_of(answer)["message"]


def test_both_sdks_work_with_a_token(provided: Gateway, issuers: Issuers) -> None:
    token = issuers.provided("inference models:read")
    with openai.OpenAI(base_url=f"{provided.url}/v1", api_key=token, max_retries=0) as client:
        assert client.chat.completions.create(**BODY).choices[0].message.content  # type: ignore[call-overload]
        assert client.models.list().data
    with Anthropic(base_url=provided.url, auth_token=token, api_key=None, max_retries=0) as claude:
        assert claude.messages.create(**BODY, max_tokens=9).content  # type: ignore[call-overload]


def test_a_token_of_the_other_issuer_is_refused(provided: Gateway, mocked: Gateway, issuers: Issuers) -> None:
    foreign = issuers.mocked(sub="ada", aud="pluggably", scope="inference")
    assert ask(mocked, foreign).status_code == 200
    assert ask(provided, foreign).status_code == 401
    assert ask(mocked, issuers.provided("inference")).status_code == 401


def test_an_issuer_named_localhost_and_keys_beside_it(mocked: Gateway, issuers: Issuers) -> None:
    assert issuers.mock.startswith("http://localhost:")
    assert ask(mocked, issuers.mocked(sub="ada", aud=["x", "pluggably"], scope=["inference"])).status_code == 200
    assert ask(mocked, APP_KEY).status_code == 200
    nobody = ask(mocked, issuers.mocked(aud="pluggably", scope="inference"))
    assert nobody.status_code == 401
    assert "the claim 'sub' is missing" in error_of(nobody)["message"]
    expired = ask(mocked, issuers.mocked(sub="ada", aud="pluggably", scope="inference", exp=1_700_000_000))
    assert error_of(expired)["message"] == "The token has expired."


def test_a_key_that_the_issuer_adds_is_known_at_once(mocked: Gateway, issuers: Issuers) -> None:
    claims = {"sub": "ada", "aud": "pluggably", "scope": "inference"}
    before = issuers.mocked(**claims)
    assert ask(mocked, before).status_code == 200
    added = issuers.rotate()
    tokens = [issuers.mocked(**claims) for _ in range(2)]
    assert added in {header_of(token)["kid"] for token in tokens}
    assert [ask(mocked, token).status_code for token in (*tokens, before)] == [200, 200, 200]
