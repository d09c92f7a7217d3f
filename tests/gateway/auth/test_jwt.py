"""Tokens through the front door: which are taken, and every way in which one is refused."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from anthropic import Anthropic
from joserfc.jwk import OctKey

from gateway.config import load
from gateway.settings import SCOPES, ConfigError
from tests.gateway.auth.identity import EC, EC_384, ED, RSA, RSA_BARE, RSA_OTHER, Identity, identity, shown, signed
from tests.gateway.conftest import APP_KEY, AUTH
from tests.http import CHAT, chat, error_of, usage_row
from tests.process import Gateway, gateway

FAKE: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "models": {"auto": {"routes": ["fake/fake"]}}}
CANARY = "canary-5b1c"


def config(idp: Identity, mode: str = "jwt", **jwt: Any) -> dict[str, Any]:
    trusted = {"issuer": idp.url, "audience": ["something-else", "pluggably"], **jwt}
    return FAKE | {"auth": {"mode": mode, "keys": AUTH["keys"], "jwt": trusted}}


@pytest.fixture(scope="module")
def idp() -> Iterator[Identity]:
    with identity() as running:
        yield running


@pytest.fixture(scope="module")
def house(idp: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("jwt"), config(idp)) as running:
        yield running


@pytest.fixture(scope="module")
def both(idp: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Takes keys as well, and reads users, tenants and roles from claims of its own."""
    claims = {
        "tenant_claim": "https://example.com/tenant",
        "user_claim": "person.name",
        "scope_claim": "scp",
        "scopes": ["models:read"],
        "roles_claim": "resource_access.my.app.roles",
        "roles": {"staff": ["inference"], "boss": ["admin"]},
    }
    with gateway(tmp_path_factory.mktemp("both"), config(idp, "api_key+jwt", **claims)) as running:
        yield running


def ask(house: Gateway, token: str | None, path: str = CHAT, **headers: str) -> httpx2.Response:
    given = {"authorization": f"Bearer {token}"} if token is not None else {}
    method = "POST" if path in (CHAT, "/v1/messages") else "GET"
    body = chat("auto") if method == "POST" else None
    return httpx2.request(method, house.url + path, json=body, headers=given | headers, timeout=30, verify=False)


# --- Taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RSA, RSA_BARE, EC, EC_384, ED], ids=lambda key: key.kid)
def test_a_token_of_each_kind_of_key_is_taken(house: Gateway, idp: Identity, key: Any) -> None:
    assert ask(house, idp.token(key)).status_code == 200


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_a_key_that_names_no_algorithm_may_use_any_of_its_kind(house: Gateway, idp: Identity, algorithm: str) -> None:
    assert ask(house, idp.token(RSA_BARE, {"alg": algorithm})).status_code == 200


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_a_token_may_be_an_access_token_or_not_say(house: Gateway, idp: Identity, kind: str | None) -> None:
    assert ask(house, idp.token(header={"typ": kind})).status_code == 200


def test_a_token_may_come_in_each_form_a_key_may(house: Gateway, idp: Identity) -> None:
    for name in ("x-api-key", "api-key"):
        assert ask(house, None, **{name: idp.token()}).status_code == 200
    assert ask(house, idp.token(), **{"x-api-key": idp.token(sub="bob")}).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["x", "pluggably"]},
        {"aud": "something-else"},
        {"iat": None},
        {"nbf": timedelta(seconds=-5)},
        {"nbf": timedelta(seconds=20)},
        {"iat": timedelta(seconds=20)},
        {"exp": timedelta(seconds=300.5)},
        {"sub": "a" * 64},
        {"sub": "Ada Lovelace <ada@example.com>"},
        {"extra": {"deep": [[[[{}]]]]}, "jti": "x", "azp": "y"},
    ],
    ids=str,
)
def test_what_a_good_token_may_say(house: Gateway, idp: Identity, changes: dict[str, Any]) -> None:
    now = time.time()  # not when the tests were collected, which may be long ago
    changes = {
        name: now + said.total_seconds() if isinstance(said, timedelta) else said for name, said in changes.items()
    }
    assert ask(house, idp.token(**changes)).status_code == 200


def test_clocks_may_differ_by_the_leeway(house: Gateway, idp: Identity) -> None:
    assert ask(house, idp.token(exp=time.time() - 15)).status_code == 200
    assert ask(house, idp.token(exp=time.time() - 31)).status_code == 401


def test_a_token_of_eight_thousand_characters_is_taken(house: Gateway, idp: Identity) -> None:
    room = 8192 - len(idp.token(groups="")) - 3
    token = idp.token(groups="g" * (room * 3 // 4))
    assert 8180 < len(token) <= 8192
    assert ask(house, token).status_code == 200
    longer = ask(house, idp.token(groups="g" * 6400))
    assert longer.status_code == 401
    assert "longer than 8192" in error_of(longer)["message"]


def test_its_scopes_count_and_no_others(house: Gateway, idp: Identity) -> None:
    reader = idp.token(scope="models:read openid unknown:thing")
    assert ask(house, reader, "/v1/models").status_code == 200
    refused = ask(house, reader)
    assert refused.status_code == 403
    assert error_of(refused)["code"] == "insufficient_scope"
    assert error_of(refused)["message"] == "Your API key or token lacks the scope 'inference'."
    assert ask(house, idp.token(scope=["inference"])).status_code == 200
    for nothing in (None, 7, {"inference": True}, "Inference", ["inference models:read"]):
        assert ask(house, idp.token(scope=nothing)).status_code == 403


def test_the_user_and_the_tenant_are_the_tokens(house: Gateway, idp: Identity) -> None:
    assert ask(house, idp.token(sub="grace"), **{"x-request-id": "by-grace"}).status_code == 200
    row = usage_row(house.folder, "by-grace")
    assert (row["owner_id"], row["tenant_id"]) == ("grace", "default")


def named(**changes: Any) -> dict[str, Any]:
    """The claims that the second house reads."""
    return {"person": {"name": "lin"}, "https://example.com/tenant": "acme", "sub": None, "scope": None} | changes


def test_claims_may_lie_deep_and_have_dots_in_their_names(both: Gateway, idp: Identity) -> None:
    roles = {"resource_access": {"my.app": {"roles": ["staff", "unheard-of"]}}}
    answer = ask(both, idp.token(**named(**roles)), **{"x-request-id": "by-lin"})
    assert answer.status_code == 200
    row = usage_row(both.folder, "by-lin")
    assert (row["owner_id"], row["tenant_id"]) == ("lin", "acme")
    assert ask(both, idp.token(**named(**{"person.name": "max"}, scp="inference"))).status_code == 200


def test_roles_give_scopes_and_the_configuration_gives_some_to_all(both: Gateway, idp: Identity) -> None:
    assert ask(both, idp.token(**named()), "/v1/models").status_code == 200
    assert ask(both, idp.token(**named())).status_code == 403
    boss = {"resource_access": {"my": {"app": {"roles": "boss"}}}}
    assert ask(both, idp.token(**named(**boss))).status_code == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"person": None}, "'person.name' is missing"),
        ({"person": {"name": 7}}, "'person.name' cannot name a user"),
        ({"person": {"name": ""}}, "'person.name' cannot name a user"),
        ({"person": {"name": "a\nb"}}, "'person.name' cannot name a user"),
        ({"person": {"name": "\ud800"}}, "'person.name' cannot name a user"),
        ({"person": {"name": "a" * 65}}, "'person.name' cannot name a user"),
        ({"person": "lin"}, "'person.name' is missing"),
        ({"https://example.com/tenant": None}, "'https://example.com/tenant' is missing"),
        ({"https://example.com/tenant": "../acme"}, "'https://example.com/tenant' cannot name a tenant"),
        ({"https://example.com/tenant": "a" * 65}, "'https://example.com/tenant' cannot name a tenant"),
        ({"https://example.com/tenant": ["acme"]}, "'https://example.com/tenant' cannot name a tenant"),
    ],
    ids=str,
)
def test_a_token_that_names_nobody_is_refused(
    both: Gateway, idp: Identity, changes: dict[str, Any], words: str
) -> None:
    answer = ask(both, idp.token(**named(**changes)))
    assert answer.status_code == 401
    assert words in error_of(answer)["message"]


# --- Refused ----------------------------------------------------------------------------------------


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def with_hmac(idp: Identity, secret: bytes, algorithm: str = "HS256") -> str:
    """The public key taken for a shared secret."""
    head = part(json.dumps({"alg": algorithm, "kid": "rsa", "typ": "JWT"}).encode())
    content = f"{head}.{part(json.dumps(idp.claims()).encode())}"
    return f"{content}.{part(hmac.new(secret, content.encode(), hashlib.sha256).digest())}"


def tampered(idp: Identity) -> str:
    head, _, signature = idp.token().split(".")
    return f"{head}.{part(json.dumps(idp.claims(scope='admin')).encode())}.{signature}"


def twice(idp: Identity, field: str, value: str) -> bytes:
    """Claims that name one of them twice, the good one last."""
    return b"{" + f'"{field}": {value}, '.encode() + json.dumps(idp.claims()).encode()[1:]


def head(*fields: str) -> bytes:
    return ("{" + ", ".join(('"alg": "RS256", "kid": "rsa", "typ": "JWT"', *fields)) + "}").encode()


Make = Callable[[Identity], str]
REFUSED: dict[str, tuple[Make, str]] = {
    "none": (lambda i: i.token(header={"alg": "none"}), "algorithm is not accepted"),
    "None": (lambda i: i.token(header={"alg": "None"}), "algorithm is not accepted"),
    "none without a signature": (lambda i: i.token(header={"alg": "none"}).rpartition(".")[0] + ".", "algorithm"),
    "no algorithm": (lambda i: signed(i.claims(), RSA, b'{"kid": "rsa"}'), "algorithm is not accepted"),
    "algorithm no text": (lambda i: signed(i.claims(), RSA, b'{"alg": ["RS256"]}'), "algorithm is not accepted"),
    "public PEM as a secret": (lambda i: with_hmac(i, RSA.as_pem(private=False)), "algorithm is not accepted"),
    "public DER as a secret": (lambda i: with_hmac(i, RSA.as_der(private=False)), "algorithm is not accepted"),
    "public JWK as a secret": (lambda i: with_hmac(i, json.dumps(shown(RSA)).encode()), "algorithm is not accepted"),
    "modulus as a secret": (lambda i: with_hmac(i, str(RSA["n"]).encode()), "algorithm is not accepted"),
    "RS256 said of a MAC": (lambda i: with_hmac(i, RSA.as_pem(private=False), "RS256"), "signature is not valid"),
    "ES256K": (lambda i: i.token(header={"alg": "ES256K"}), "algorithm is not accepted"),
    "algorithm of another kind of key": (lambda i: i.token(EC, {"kid": "rsa"}), "not that of its issuer's key"),
    "the other way round": (lambda i: i.token(RSA, {"kid": "ec"}), "not that of its issuer's key"),
    "algorithm the key is not for": (lambda i: i.token(RSA, {"alg": "PS256"}), "not that of its issuer's key"),
    "longer hash than the key is for": (lambda i: i.token(RSA, {"alg": "RS512"}), "not that of its issuer's key"),
    "curve of another algorithm": (lambda i: i.token(EC, {"kid": "ec-384"}), "not that of its issuer's key"),
    "another key under this id": (lambda i: i.token(RSA_OTHER, {"kid": "rsa"}), "signature is not valid"),
    "another key": (lambda i: i.token(RSA_OTHER), "a key that its issuer does not publish"),
    "key id no text": (lambda i: i.token(header={"kid": 7}), "'kid' is not a key id"),
    "endless key id": (lambda i: i.token(header={"kid": "k" * 300}), "'kid' is not a key id"),
    "no key id where several fit": (lambda i: i.token(RSA, {"kid": None}), "'kid' is missing"),
    "tampered": (tampered, "signature is not valid"),
    "no signature": (lambda i: i.token().rpartition(".")[0] + ".", "signature is not valid"),
    "half a signature": (lambda i: i.token(EC).rpartition(".")[0] + "." + part(b"s" * 32), "signature is not valid"),
    "ECDSA of zeros": (lambda i: i.token(EC).rpartition(".")[0] + "." + part(bytes(64)), "signature is not valid"),
    "padded": (lambda i: i.token() + "=", "not a JSON Web Token"),
    "loose last bits": (lambda i: i.token()[:-1] + "_", "not a JSON Web Token"),
    "its own key": (lambda i: i.token(RSA_OTHER, {"jwk": shown(RSA_OTHER)}), "has 'jwk'"),
    "its own key's URL": (lambda i: i.token(RSA_OTHER, {"jku": f"{i.url}/evil"}), "has 'jku'"),
    "its own certificate's URL": (lambda i: i.token(RSA_OTHER, {"x5u": f"{i.url}/evil"}), "has 'x5u'"),
    "its own certificate": (lambda i: i.token(RSA_OTHER, {"x5c": ["MIIB"]}), "has 'x5c'"),
    "something critical": (lambda i: i.token(header={"crit": ["exp"], "exp": 1}), "has 'crit'"),
    "nothing critical": (lambda i: i.token(header={"crit": []}), "has 'crit'"),
    "b64 false": (lambda i: i.token(header={"b64": False}), "has 'b64'"),
    "b64 false and critical": (lambda i: i.token(header={"b64": False, "crit": ["b64"]}), "has 'crit'"),
    "compressed": (lambda i: i.token(header={"zip": "DEF"}), "has 'zip'"),
    "another type": (lambda i: i.token(header={"typ": "dpop+jwt"}), "type is neither"),
    "a log-out token": (lambda i: i.token(header={"typ": "logout+jwt"}), "type is neither"),
    "type no text": (lambda i: i.token(header={"typ": 1}), "type is neither"),
    "a header's field twice": (lambda i: signed(i.claims(), RSA, head('"alg": "RS256"')), "header cannot be read"),
    "a claim twice": (lambda i: signed(twice(i, "sub", '"root"'), RSA), "claims cannot be read"),
    "a claim twice, escaped": (lambda i: signed(twice(i, "s\\u0075b", '"root"'), RSA), "claims cannot be read"),
    "NaN": (lambda i: signed(twice(i, "x", "NaN"), RSA), "claims cannot be read"),
    "an endless number": (lambda i: signed(twice(i, "x", "9" * 5000), RSA), "claims cannot be read"),
    "deep claims": (lambda i: signed(twice(i, "x", "[" * 2500 + "]" * 2500), RSA), "claims cannot be read"),
    "deep header": (lambda i: signed(i.claims(), RSA, b"[" * 2500 + b"]" * 2500), "JSON Web Token|API"),
    "claims no object": (lambda i: signed(b'["sub"]', RSA), "claims cannot be read"),
    "claims no JSON": (lambda i: signed(b"sub=ada", RSA), "claims cannot be read"),
    "claims not UTF-8": (lambda i: signed(json.dumps(i.claims()).encode("utf-16"), RSA), "claims cannot be read"),
    "no claims": (lambda i: signed(b"", RSA), "claims cannot be read"),
    "expired": (lambda i: i.token(exp=time.time() - 60), "has expired"),
    "no end": (lambda i: i.token(exp=None), "no end \\('exp'\\)"),
    "end no number": (lambda i: i.token(exp="never"), "'exp' is not a date"),
    "end true": (lambda i: i.token(exp=True), "'exp' is not a date"),
    "end beyond time": (lambda i: i.token(exp=10**30), "'exp' is not a date"),
    "end infinite": (lambda i: signed(json.dumps(i.claims(exp=0)).replace(': 0', ': 1e999').encode(), RSA), "'exp' is"),
    "end null": (lambda i: signed(json.dumps(i.claims() | {"exp": None}).encode(), RSA), "'exp' is not a date"),
    "not yet": (lambda i: i.token(nbf=time.time() + 60), "not valid yet"),
    "issued later": (lambda i: i.token(iat=time.time() + 60), "issued in the future"),
    "issued no number": (lambda i: i.token(iat="now"), "'iat' is not a date"),
    "another audience": (lambda i: i.token(aud="billing"), "must be for pluggably or something-else"),
    "other audiences": (lambda i: i.token(aud=["billing", "Pluggably", 7]), "another audience"),
    "part of the audience": (lambda i: i.token(aud="pluggably "), "another audience"),
    "no audience": (lambda i: i.token(aud=None), "another audience"),
    "audience an object": (lambda i: i.token(aud={"pluggably": 1}), "another audience"),
    "another issuer": (lambda i: i.token(iss="https://login.example.com"), "of another issuer"),
    "issuer with a slash": (lambda i: i.token(iss=f"{i.url}/"), "of another issuer"),
    "issuer in a list": (lambda i: i.token(iss=[i.url]), "of another issuer"),
    "no issuer": (lambda i: i.token(iss=None), "of another issuer"),
    "no user": (lambda i: i.token(sub=None), "'sub' is missing"),
    "nothing but dots": (lambda i: "eyJ..", "not a JSON Web Token"),
    "not base64": (lambda i: "eyJ!.eyJ!.eyJ!", "not a JSON Web Token"),
    "encrypted": (lambda i: f"{i.token()}.x.y", "no API keys"),
    "a key": (lambda i: APP_KEY, "no API keys"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_token_is_refused(house: Gateway, idp: Identity, case: str) -> None:
    make, words = REFUSED[case]
    token = make(idp)
    assert len(token) <= 8192
    answer = ask(house, token)
    assert answer.status_code == 401, answer.text
    error = error_of(answer)
    assert re.search(words, error["message"]), error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_what_a_refused_token_says_is_not_repeated(house: Gateway, idp: Identity) -> None:
    changes: list[dict[str, Any]] = [
        {"iss": CANARY}, {"aud": CANARY}, {"sub": CANARY * 9}, {"exp": CANARY}, {"nbf": CANARY}
    ]  # fmt: skip
    tokens = [idp.token(**change) for change in changes]
    tokens += [idp.token(header={name: CANARY}) for name in ("alg", "kid", "typ", "jku", "crit")]
    for token in tokens:
        answer = ask(house, token)
        assert answer.status_code == 401
        assert CANARY not in answer.text + str(answer.headers)
    assert not [line for line in house.lines if CANARY in line or "eyJ" in line]


def test_nothing_sent_is_asked_for_by_name(house: Gateway, both: Gateway) -> None:
    answer = ask(house, None)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "You didn't provide a token" in error_of(answer)["message"]
    assert "an API key" in error_of(ask(both, None))["message"]


def test_anthropics_clients_are_told_in_their_dialect(house: Gateway, idp: Identity) -> None:
    answer = ask(house, idp.token(exp=1), "/v1/messages")
    assert answer.status_code == 401
    assert answer.json()["error"] == {"type": "authentication_error", "message": "The token has expired."}
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_tokens_with_a_long_common_beginning_are_told_apart(house: Gateway, idp: Identity) -> None:
    filling = "f" * 4000
    claims = {"a": filling} | idp.claims()
    good = signed(claims, RSA)
    bad = signed(claims | {"scope": "admin"}, RSA).rpartition(".")[0] + "." + good.rpartition(".")[2]
    reader = signed(claims | {"scope": "models:read"}, RSA)
    assert bad[:5000] == good[:5000] == reader[:5000]
    for _ in range(2):
        assert [ask(house, token).status_code for token in (good, bad, reader)] == [200, 401, 403]


def test_a_remembered_token_ends_when_it_says(house: Gateway, idp: Identity) -> None:
    """Whole seconds: it ends within the leeway's last two."""
    token = idp.token(exp=time.time() - 28.5)
    assert ask(house, token).status_code == 200
    time.sleep(1.7)
    answer = ask(house, token)
    assert answer.status_code == 401
    assert error_of(answer)["message"] == "The token has expired."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://login.example.com"}, r"auth\.jwt\.issuer: .* must be an https URL"),
        ({"issuer": "login.example.com"}, r"auth\.jwt\.issuer: .* must be an https URL"),
        ({"issuer": "https://"}, r"auth\.jwt\.issuer: .* must be an https URL"),
        ({"jwks_url": "http://10.0.0.1/keys"}, r"auth\.jwt\.jwks_url: .* must be an https URL"),
        ({"jwks_url": "https://user:password@example.com/keys"}, r"auth\.jwt\.jwks_url: .* must be an https URL"),
        ({"jwks_url": "https://example.com/keys", "issuer": ""}, r"auth\.jwt\.issuer: empty"),
        ({"audience": ""}, r"auth\.jwt\.audience: empty"),
        ({"audience": []}, r"auth\.jwt\.audience: empty"),
        ({"audience": ["a", ""]}, r"auth\.jwt\.audience: empty"),
        ({"algorithms": []}, r"auth\.jwt\.algorithms: empty"),
        ({"algorithms": ["HS256"]}, "'HS256'"),
        ({"algorithms": ["none"]}, "'none'"),
        ({"keys_stale_s": 10}, r"auth\.jwt\.keys_stale_s: less than keys_max_age_s"),
        ({"scopes": ["everything"]}, r"auth\.jwt\.scopes: 'everything' is unknown"),
        ({"roles": {"staff": ["inferense"]}}, r"auth\.jwt\.roles\.staff: 'inferense' is unknown; did you mean 'infe"),
        ({"tenant": "a b"}, r"auth\.jwt\.tenant: 'a b' is no tenant's name"),
        ({"issuer": "accounts.example.com", "jwks_url": "https://example.com/keys"}, None),
        ({"issuer": "http://localhost:9000/realms/x"}, None),
    ],
    ids=str,
)
def test_a_configuration_that_trusts_too_much_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str | None
) -> None:
    trusted = {"issuer": "https://login.example.com", "audience": "pluggably"} | changes
    path = tmp_path / "config.yaml"
    path.write_bytes(msgspec.yaml.encode({"auth": {"mode": "jwt", "jwt": trusted}}))
    if words is None:
        assert load(path, {}).auth.jwt
        return
    with pytest.raises(ConfigError, match=words):
        load(path, {})


# --- Modes, clients, documents ----------------------------------------------------------------------


def test_keys_and_tokens_go_together_where_both_are_taken(both: Gateway, idp: Identity) -> None:
    assert ask(both, APP_KEY).status_code == 200
    assert ask(both, idp.token(**named(scp="inference"))).status_code == 200
    assert ask(both, "wrong-key-000000000").status_code == 401


def test_where_keys_are_taken_tokens_are_not(running_house: Gateway, idp: Identity) -> None:
    answer = ask(running_house, idp.token())
    assert answer.status_code == 401
    assert error_of(answer)["message"].startswith("Incorrect API key provided")


def test_the_openai_sdk_sends_a_token_as_its_key(house: Gateway, idp: Identity) -> None:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=idp.token(), max_retries=0) as client:
        answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello."}])
        assert answer.choices[0].message.content
    expired = openai.OpenAI(base_url=f"{house.url}/v1", api_key=idp.token(exp=1), max_retries=0)
    with expired as client, pytest.raises(openai.AuthenticationError, match="The token has expired"):
        client.models.list()


@pytest.mark.parametrize("field", ["auth_token", "api_key"])
def test_the_anthropic_sdk_sends_a_token_in_either_way(house: Gateway, idp: Identity, field: str) -> None:
    credential: dict[str, Any] = {"auth_token": None, "api_key": None, field: idp.token()}
    with Anthropic(base_url=house.url, max_retries=0, **credential) as client:
        answer = client.messages.create(model="auto", max_tokens=9, messages=[{"role": "user", "content": "Hello."}])
    assert answer.content


def test_the_document_says_how_to_prove_who_asks(house: Gateway, both: Gateway, idp: Identity) -> None:
    document = httpx2.get(f"{house.url}/openapi.json", verify=False).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["oidc"]["openIdConnectUrl"] == f"{idp.url}/.well-known/openid-configuration"
    assert (schemes["token"]["scheme"], schemes["token"]["bearerFormat"]) == ("bearer", "JWT")
    assert "Not in force" in schemes["bearer"]["description"]
    names = ["token", "oidc", "x-api-key", "api-key"]
    assert document["security"] == [{name: []} for name in names]
    paths = document["paths"]
    assert paths["/v1/chat/completions"]["post"]["security"] == [{name: ["inference"]} for name in names]
    assert paths["/v1/models"]["get"]["security"] == [{name: ["models:read"]} for name in names]
    assert paths["/health"]["get"]["security"] == []
    for operations in paths.values():
        for operation in operations.values():
            assert {scope for way in operation["security"] for scopes in way.values() for scope in scopes} <= SCOPES
    assert {"bearer": []} in httpx2.get(f"{both.url}/openapi.json", verify=False).json()["security"]


def test_a_key_set_that_holds_secrets_is_not_used(tmp_path: Path) -> None:
    """Symmetric, private, short and foreign keys are left out, with a warning; the good one among them serves."""
    secret = OctKey.import_key("a-shared-secret-that-everybody-can-read", {"kid": "shared"})
    with identity() as idp:
        idp.keys = [
            secret.as_dict(private=True),
            {**RSA_BARE.as_dict(private=True)},
            shown(RSA_OTHER, use="enc"),
            shown(EC_384, key_ops=["sign"]),
            shown(ED, alg="HS256"),
            {"kty": "RSA", "kid": "short", "n": part(bytes([0x80]) + bytes(126) + b"\x01"), "e": "AQAB"},
            {"kty": "AKP", "kid": "new", "alg": "ML-DSA-44", "pub": "AAAA"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            shown(EC),
        ]
        with gateway(tmp_path, config(idp, jwks_url=f"{idp.url}/keys")) as running:
            assert ask(running, idp.token(EC)).status_code == 200
            warned = running.wait_for("issuer_keys_ignored")
            assert warned["left"] == 1
            assert sum(warned["reasons"].values()) == 8
            for key in (RSA_BARE, RSA_OTHER, EC_384, ED):
                assert ask(running, idp.token(key)).status_code == 401
            forged = signed(idp.claims(), secret, {"alg": "HS256"})
            assert ask(running, forged).status_code == 401
            # With one key that fits, a token need not name it.
            assert ask(running, idp.token(EC, {"kid": None})).status_code == 200
        assert idp.asked
        assert idp.readings() == 0
