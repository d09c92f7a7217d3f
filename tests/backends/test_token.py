"""Access tokens: got once for all who wait, replaced in time, and never from where they must not come."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from backends.token import SCOPE, Asserted, OAuthToken, Refreshed, ServiceAccount, signed
from compat.canonical.error import AuthFailed, BackendError, BadResponse, UpstreamFailed
from tests.exchange import Exchange
from tests.provider import Provider

KEY = RSAKey.generate_key(2048)
PEM = KEY.as_pem(private=True).decode()


def pem_of(p: int, q: int, *, old: bool = False) -> str:
    """A key of these factors, whatever they are."""
    e = 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), RSAPublicNumbers(e, p * q))
    shape = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(serialization.Encoding.PEM, shape, serialization.NoEncryption()).decode()


PRIMES = KEY.raw_value.private_numbers()  # type: ignore[union-attr]
HUGE = pem_of(2**4253 - 1, 2**4423 - 1)
"""Which takes the usual import more than ten seconds."""


class Issuer:
    """Gives out t1, t2 …; `status` and `said` are what it answers besides."""

    def __init__(self, upstream: Provider) -> None:
        self.url = f"{upstream.url}/token"
        self.asked: list[dict[str, str]] = []
        self.status = "200 OK"
        self.said: dict[str, Any] = {"expires_in": 3600}
        self.body: bytes | None = None
        self.delay_s = 0.0
        upstream.scripts["/v1/token"] = self.answer

    async def answer(self, exchange: Exchange) -> None:
        self.asked.append({name: values[0] for name, values in parse_qs(exchange.body.decode()).items()})
        said = {"access_token": f"t{len(self.asked)}", **self.said}
        await asyncio.sleep(self.delay_s)
        headers = {"location": self.url} if self.status.startswith("307") else {}
        exchange.answer(json.dumps(said).encode() if self.body is None else self.body, self.status, **headers)


@pytest.fixture
def issuer(upstream: Provider) -> Issuer:
    return Issuer(upstream)


class Shelf:
    """Where a token is kept."""

    def __init__(self, kept: OAuthToken | None = None) -> None:
        self.kept = kept
        self.noted: list[str] = []

    async def load(self) -> OAuthToken | None:
        return self.kept

    async def save(self, token: OAuthToken) -> None:
        self.kept = token


def account(issuer: Issuer, shelf: Shelf | None = None) -> Asserted:
    key_file = ServiceAccount(client_email="robot@p.example", private_key=PEM, token_uri=issuer.url)
    return Asserted("up", key_file, public_only=False, note=(shelf or Shelf()).noted.append)


def grant(issuer: Issuer, **fields: Any) -> OAuthToken:
    expired = {"access_token": "t0", "refresh_token": "r0", "expires_at": 1.0}
    return OAuthToken(**{**expired, "token_url": issuer.url, **fields})


def refreshed(token: OAuthToken, shelf: Shelf, *, public_only: bool = False) -> Refreshed:
    return Refreshed("up", token, public_only=public_only, note=shelf.noted.append, load=shelf.load, save=shelf.save)


def test_an_assertion_is_what_the_standard_wants() -> None:
    key_file = ServiceAccount(client_email="robot@p.example", private_key=PEM, private_key_id="k1")
    now = time.time()
    token = jwt.decode(signed(key_file, now), KEY, algorithms=["RS256"])
    assert token.header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert token.claims == {
        "iss": "robot@p.example",
        "scope": SCOPE,
        "aud": "https://oauth2.googleapis.com/token",
        "iat": int(now),
        "exp": int(now + 3600),
    }


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        KEY.as_pem(private=False).decode(),
        ECKey.generate_key("P-256").as_pem(private=True).decode(),
        HUGE,
        pem_of(2**4253 - 1, 2**4423 - 1, old=True),
        pem_of(2**2203 - 1, 2**2281 - 1),  # fits into the file, and has 4484 bits
        pem_of(2**521 - 1, 2**607 - 1),
        pem_of(2**3217 - 1, 2**521 - 1),  # a factor that is longer than one should be
        PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        PEM + PEM,
        PEM[:-200] + PEM[-60:],
    ],
)
def test_what_is_no_private_rsa_key_signs_nothing(pem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        signed(ServiceAccount(client_email="a@b.example", private_key=pem), time.time())
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("ends", ["\n", "\r\n", " "])
def test_a_key_file_may_look_as_it_likes(old: bool, ends: str) -> None:
    pem = pem_of(PRIMES.p, PRIMES.q, old=old).replace("\n", ends)
    jwt.decode(signed(ServiceAccount(client_email="a@b.example", private_key=pem), 0), KEY, algorithms=["RS256"])


async def test_a_key_that_was_once_taken_and_is_too_large_is_the_users_to_replace(issuer: Issuer) -> None:
    key_file = ServiceAccount(client_email="robot@p.example", private_key=HUGE, token_uri=issuer.url)
    token = Asserted("up", key_file, public_only=False, note=Shelf().noted.append)
    with pytest.raises(AuthFailed, match="POST /v1/credentials"):
        await token.get()
    assert issuer.asked == []
    await token.aclose()


async def test_all_who_wait_get_the_same_token_for_one_question(issuer: Issuer) -> None:
    issuer.delay_s = 0.1
    token, shelf = account(issuer), Shelf()
    assert set(await asyncio.gather(*(token.get() for _ in range(20)))) == {"t1"}
    assert await token.get() == "t1"
    assert len(issuer.asked) == 1
    assert shelf.noted == []
    await token.aclose()


async def test_who_leaves_does_not_take_it_from_the_others(issuer: Issuer) -> None:
    issuer.delay_s = 0.2
    token = account(issuer)
    first = asyncio.create_task(token.get())
    await asyncio.sleep(0.05)
    second = asyncio.create_task(token.get())
    first.cancel()
    assert await second == "t1"
    assert len(issuer.asked) == 1
    await token.aclose()


async def test_it_is_replaced_before_it_ends(issuer: Issuer) -> None:
    issuer.said = {"expires_in": "0.4"}  # a text, as some write it
    token = account(issuer)
    assert await token.get() == "t1"
    await asyncio.sleep(0.25)
    assert await token.get() == "t2"
    await token.aclose()


async def test_a_new_token_is_told_before_it_is_used(issuer: Issuer) -> None:
    shelf = Shelf()
    token = account(issuer, shelf)
    await token.get()
    assert shelf.noted == ["t1"]
    await token.aclose()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("400 Bad Request", b'{"error":"invalid_grant","error_description":"canary"}', AuthFailed),
        ("401 Unauthorized", b"", AuthFailed),
        ("500 Oops", b"canary", UpstreamFailed),
        ("307 Temporary Redirect", b"", UpstreamFailed),
        ("200 OK", b"<html>canary", BadResponse),
        ("200 OK", b'{"token":"canary"}', BadResponse),
        ("200 OK", b"[" * 100_000, BadResponse),
        ("200 OK", rb'{"access_token":"canary\r\nx-evil: 1"}', BadResponse),
        ("200 OK", rb'{"access_token":"canary\n"}', BadResponse),
        ("200 OK", rb'{"access_token":"\"canary\""}', BadResponse),
        ("200 OK", b'{"access_token":""}', BadResponse),
        ("200 OK", b'{"access_token":"%s"}' % (b"canary" * 1500), BadResponse),
        ("200 OK", rb'{"access_token":"t","refresh_token":"canary\u0000"}', BadResponse),
    ],
)
async def test_trouble_is_told_in_our_words(
    status: str, body: bytes, error: type[BackendError], issuer: Issuer
) -> None:
    issuer.status, issuer.body = status, body
    token = account(issuer)
    with pytest.raises(error) as failed:
        await token.get()
    assert "'up'" in failed.value.message
    assert "canary" not in failed.value.message
    assert len(issuer.asked) == 1
    await token.aclose()


async def test_who_has_refused_is_left_alone_for_a_while(issuer: Issuer) -> None:
    issuer.status = "400 Bad Request"
    token = account(issuer)
    errors = []
    for _ in range(3):
        with pytest.raises(AuthFailed) as failed:
            await token.get()
        errors.append(failed.value)
    assert len(issuer.asked) == 1
    assert len({id(error) for error in errors}) == 3, "the house writes into each"
    await token.aclose()


async def test_a_token_that_still_holds_serves_while_no_other_can_be_had(issuer: Issuer) -> None:
    issuer.said = {"expires_in": 1.5}
    token = account(issuer)
    await token.get()
    issuer.status = "500 Oops"
    await asyncio.sleep(0.8)
    assert await token.get() == "t1"
    assert len(issuer.asked) == 2
    await asyncio.sleep(0.8)
    with pytest.raises(UpstreamFailed):
        await token.get()
    await token.aclose()


async def test_a_refused_token_is_replaced_but_not_without_end(issuer: Issuer) -> None:
    shelf = Shelf()
    token = refreshed(grant(issuer, expires_at=None), shelf)
    assert await token.get() == "t0", "until the provider says otherwise"
    assert issuer.asked == []
    assert token.refused("t0")
    assert await token.get() == "t1"
    assert token.refused("t0"), "another request had the old one"
    assert not token.refused("t1"), "it is seconds old: another would be no better"
    assert len(issuer.asked) == 1
    await token.aclose()


async def test_a_refresh_token_that_is_replaced_is_kept(issuer: Issuer) -> None:
    shelf = Shelf(kept=grant(issuer))
    issuer.said = {"refresh_token": "r1", "expires_in": 3600}
    token = refreshed(grant(issuer), shelf)
    assert await token.get() == "t1"
    assert issuer.asked[0]["refresh_token"] == "r0"
    assert shelf.kept is not None
    assert (shelf.kept.access_token, shelf.kept.refresh_token) == ("t1", "r1")
    assert shelf.kept.expires_at is not None
    assert time.time() < shelf.kept.expires_at < time.time() + 3601
    await token.aclose()


async def test_what_another_process_has_refreshed_is_not_refreshed_again(issuer: Issuer) -> None:
    theirs = grant(issuer, access_token="theirs", refresh_token="r9", expires_at=time.time() + 3600)
    token = refreshed(grant(issuer), Shelf(kept=theirs))
    assert await token.get() == "theirs"
    assert issuer.asked == []
    await token.aclose()


async def test_a_refresh_token_of_another_process_is_the_one_that_is_used(issuer: Issuer) -> None:
    token = refreshed(grant(issuer), Shelf(kept=grant(issuer, refresh_token="r9")))
    assert await token.get() == "t1"
    assert issuer.asked[0]["refresh_token"] == "r9"
    await token.aclose()


async def test_who_is_as_public_as_a_user_said_is_not_this_machine(issuer: Issuer) -> None:
    token = refreshed(grant(issuer), Shelf(), public_only=True)
    with pytest.raises(BackendError, match="not a public one"):
        await token.get()
    assert issuer.asked == []
    await token.aclose()


async def test_closing_it_lets_a_renewal_end_first(issuer: Issuer) -> None:
    issuer.delay_s = 0.2
    shelf = Shelf()
    token = account(issuer, shelf)
    asking = asyncio.create_task(token.get())
    await asyncio.sleep(0.05)
    await token.aclose()
    assert await asking == "t1"
    assert shelf.noted == ["t1"]
