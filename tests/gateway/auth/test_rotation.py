"""The issuer's keys over time: rotated, removed, out of reach; and how little it is asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from structlog.testing import capture_logs

from compat.canonical.error import Overloaded, Unauthenticated
from gateway.auth import issuer, jwt
from gateway.auth.jwt import TrustedTokens
from gateway.settings import Jwt
from tests.gateway.auth.identity import EC, EC_384, ED, RSA, RSA_OTHER, Identity, identity, shown
from tests.http import error_of, until
from tests.process import Gateway, gateway

QUICK = {"AGAIN_S": 0.3, "RETRY_S": 0.1}
"""The issuer's intervals, for tests that wait for them."""


@pytest.fixture
def idp() -> Iterator[Identity]:
    with identity() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in QUICK.items():
        monkeypatch.setattr(issuer, name, seconds)


@pytest.fixture
async def tokens(idp: Identity) -> AsyncIterator[TrustedTokens]:
    made = TrustedTokens(trusted(idp))
    yield made
    await made.aclose()


def trusted(idp: Identity, **changes: Any) -> Jwt:
    return Jwt(issuer=idp.url, audience="pluggably", **changes)


async def aged(tokens: TrustedTokens, by_s: float) -> None:
    """Its keys were read that much earlier."""
    tokens._issuer._read_at -= by_s
    tokens._issuer._asked_at -= by_s
    tokens._remembered.clear()


# --- Through the front door -------------------------------------------------------------------------


def models(house: Gateway, token: str) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.get(f"{house.url}/v1/models", headers=headers, timeout=30, verify=False)


def test_an_issuer_that_comes_late_goes_away_and_changes_its_keys(idp: Identity, tmp_path: Path) -> None:
    auth = {"issuer": idp.url, "audience": "pluggably", "keys_max_age_s": 0.5, "keys_stale_s": 6}
    config = {"backends": {"fake": {"kind": "fake"}}, "auth": {"mode": "jwt", "jwt": auth}}
    prelude = "from gateway.auth import issuer\n" + "\n".join(f"issuer.{name} = {s}" for name, s in QUICK.items())
    idp.mode = "drop"
    with gateway(tmp_path, config, prelude=prelude) as house:
        house.wait_for("issuer_unreadable", level="warning")
        answer = models(house, idp.token())
        assert answer.status_code == 503
        assert (error_of(answer)["code"], answer.headers["retry-after"]) == ("auth_unavailable", "1")
        assert httpx2.get(f"{house.url}/health", verify=False).status_code == 200
        assert models(house, "eyJ.not.one").status_code == 401

        idp.mode = "up"
        token = idp.token()
        until(lambda: models(house, token).status_code == 200)

        # Out of reach: its keys serve, for new tokens as well, and then they do not.
        idp.mode = "error"
        began = time.monotonic()
        while not [line for line in house.log if line.get("reason") == "The issuer failed with status 500."]:
            assert models(house, idp.token()).status_code == 200
        assert models(house, idp.token(sub="new")).status_code == 200
        until(lambda: models(house, token).status_code == 503, 20)
        assert time.monotonic() - began > 3

        # Back, with another key: it counts at once, and what the old one signed does not, remembered or not.
        idp.mode = "up"
        until(lambda: models(house, token).status_code == 200)
        idp.keys = [shown(RSA_OTHER)]
        until(lambda: models(house, idp.token(RSA_OTHER)).status_code == 200)
        refused = models(house, token)
        assert refused.status_code == 401
        assert "does not publish" in error_of(refused)["message"]


def test_a_new_configuration_keeps_the_keys_unless_it_is_about_them(idp: Identity, tmp_path: Path) -> None:
    auth: dict[str, Any] = {"issuer": idp.url, "audience": "pluggably"}
    tree: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "auth": {"mode": "jwt", "jwt": auth}}
    with gateway(tmp_path, tree) as house:
        assert models(house, idp.token()).status_code == 200
        readings = idp.readings()
        path = tmp_path / "config.yaml"
        written = msgspec.yaml.decode(path.read_bytes())

        def change(count: int) -> None:
            path.write_bytes(msgspec.yaml.encode(written))
            until(lambda: sum(line["event"] == "config_reloaded" for line in house.log) == count, 15)

        written["models"] = {"another": {"routes": ["fake/fake"]}}
        change(1)
        assert models(house, idp.token()).status_code == 200
        assert idp.readings() == readings
        written["auth"]["jwt"]["audience"] = "another"
        change(2)
        assert models(house, idp.token()).status_code == 401
        assert models(house, idp.token(aud="another")).status_code == 200
        assert idp.readings() == readings + 1
        written["auth"] = {"mode": "local"}
        change(3)
        assert models(house, "anything").status_code == 200


# --- Rotation ---------------------------------------------------------------------------------------


async def test_a_new_key_counts_at_once_and_a_removed_one_not_any_more(idp: Identity, tokens: TrustedTokens) -> None:
    old = idp.token()
    assert (await tokens.grant(old)).principal.id == "ada"
    idp.keys = [shown(RSA_OTHER)]
    await asyncio.sleep(QUICK["AGAIN_S"])
    await tokens.grant(idp.token(RSA_OTHER))
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens.grant(old)


async def test_a_key_that_is_replaced_under_its_name_counts_when_the_old_one_is_of_age(
    idp: Identity, tokens: TrustedTokens
) -> None:
    await tokens.grant(idp.token())
    idp.keys = [shown(RSA_OTHER, kid="rsa")]
    await aged(tokens, 301)
    await tokens.grant(idp.token(RSA_OTHER, {"kid": "rsa"}))
    with pytest.raises(Unauthenticated, match="signature is not valid"):
        await tokens.grant(idp.token())


async def test_keys_without_names_are_rotated_too(idp: Identity, tokens: TrustedTokens) -> None:
    idp.keys = [shown(EC, kid=None)]
    await tokens.grant(idp.token(EC, {"kid": None}))
    idp.keys = [shown(ED, kid=None)]
    await asyncio.sleep(QUICK["AGAIN_S"])
    await tokens.grant(idp.token(ED, {"kid": None}))


async def test_of_several_keys_of_one_name_each_may_have_signed(idp: Identity, tokens: TrustedTokens) -> None:
    idp.keys = [shown(key, kid="same", alg=None) for key in (RSA_OTHER, EC_384, RSA, EC)]
    for key in (RSA, RSA_OTHER, EC, EC_384):
        await tokens.grant(idp.token(key, {"kid": "same"}))


async def test_no_keys_at_all_let_nobody_in(idp: Identity, tokens: TrustedTokens) -> None:
    idp.keys = []
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens.grant(idp.token())


async def test_unchanged_keys_keep_what_was_found_good_under_them(
    idp: Identity, tokens: TrustedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = idp.token()
    first = await tokens.grant(token)
    await asyncio.sleep(QUICK["AGAIN_S"])
    idp.keys.reverse()
    with pytest.raises(Unauthenticated):
        await tokens.grant(idp.token(header={"kid": "unheard-of"}))
    assert idp.readings() == 2
    assert await tokens.grant(token) is first


async def test_only_so_many_tokens_are_remembered(
    idp: Identity, tokens: TrustedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "REMEMBERED_MAX", 3)
    made = [idp.token(EC, sub=f"user-{n}") for n in range(6)]
    grants = [await tokens.grant(token) for token in made]
    assert [grant.principal.id for grant in grants] == [f"user-{n}" for n in range(6)]
    assert len(tokens._remembered) == 3
    assert await tokens.grant(made[5]) is grants[5]
    assert await tokens.grant(made[0]) == grants[0]


# --- How little it is asked -------------------------------------------------------------------------


async def test_nothing_is_asked_before_it_is_needed(idp: Identity, tokens: TrustedTokens) -> None:
    for token in ("eyJ.eyJ.x", idp.token(header={"alg": "none"}), idp.token(header={"typ": "x"})):
        with pytest.raises(Unauthenticated):
            await tokens.grant(token)
    assert not idp.asked


async def test_those_who_wait_for_the_first_keys_wait_for_one_reading(idp: Identity, tokens: TrustedTokens) -> None:
    idp.mode = "slow"
    tokens.warm()
    await asyncio.gather(*(tokens.grant(idp.token(EC, sub=f"user-{n}")) for n in range(50)))
    assert idp.readings() == 1


async def test_whoever_stops_waiting_does_not_stop_the_others(idp: Identity, tokens: TrustedTokens) -> None:
    idp.mode = "slow"
    waiting = [asyncio.create_task(tokens.grant(idp.token(EC))) for _ in range(3)]
    await asyncio.sleep(0.1)
    waiting[0].cancel()
    assert await waiting[1] == await waiting[2]
    assert idp.readings() == 1


async def test_a_flood_of_unknown_keys_does_not_reach_the_issuer(
    idp: Identity, tokens: TrustedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer, "AGAIN_S", 30.0)
    good = idp.token()
    await tokens.grant(good)
    await aged(tokens, 31)

    async def flood(n: int) -> None:
        for m in range(20):
            with pytest.raises(Unauthenticated, match="does not publish"):
                await tokens.grant(idp.token(EC, {"kid": f"made-up-{n}-{m}"}))

    await asyncio.gather(*(flood(n) for n in range(10)))
    assert idp.readings() == 2
    await tokens.grant(good)


async def test_what_would_be_refused_anyway_does_not_reach_the_issuer(idp: Identity, tokens: TrustedTokens) -> None:
    await tokens.grant(idp.token())
    await aged(tokens, 31)
    for changes, words in (({"iss": "https://elsewhere.example.com"}, "another issuer"), ({"exp": 1}, "has expired")):
        with pytest.raises(Unauthenticated, match=words):
            await tokens.grant(idp.token(RSA_OTHER, None, **changes))
    assert idp.readings() == 1


async def test_keys_are_read_anew_before_anybody_has_to_wait(idp: Identity, tokens: TrustedTokens) -> None:
    await tokens.grant(idp.token())
    await aged(tokens, 250)
    idp.mode = "hang"
    await asyncio.wait_for(tokens.grant(idp.token()), 0.5)
    await asyncio.sleep(0.1)
    assert idp.readings() == 2


# --- Out of reach -----------------------------------------------------------------------------------


async def test_an_issuer_that_hangs_holds_up_nobody_for_long(
    idp: Identity, tokens: TrustedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tokens.grant(idp.token())
    idp.mode = "hang"
    monkeypatch.setattr(issuer, "READ_S", 1.0)
    await aged(tokens, 400)
    began = time.monotonic()
    await tokens.grant(idp.token(sub="first"))
    assert time.monotonic() - began > 0.9
    await asyncio.sleep(QUICK["RETRY_S"])
    began = time.monotonic()
    for n in range(10):
        await tokens.grant(idp.token(EC, sub=f"user-{n}"))
    assert time.monotonic() - began < 1.0
    assert idp.readings() <= 3
    await aged(tokens, 3700)
    with pytest.raises(Overloaded):
        await tokens.grant(idp.token())


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("drop", "lost or refused"),
        ("error", "status 500"),
        ("html", "malformed|invalid"),
        ("redirect", "redirect, which is not followed"),
        ("huge", "too large"),
        ("hang", "in time"),
        ("other", "another issuer's"),
    ],
)
async def test_what_is_no_key_set_changes_nothing(
    idp: Identity, tokens: TrustedTokens, mode: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_s = 0.5 if mode == "hang" else 5.0
    monkeypatch.setattr(issuer, "READ_S", short_s)
    idp.mode = mode
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(Overloaded) as refused:
                await tokens.grant(idp.token())
            await asyncio.sleep(QUICK["RETRY_S"])
    assert (refused.value.status, refused.value.code) == (503, "auth_unavailable")
    [logged] = [line for line in logs if line["event"] == "issuer_unreadable"]
    assert logged["log_level"] == "warning"
    assert any(word in logged["reason"] for word in reason.split("|")), logged["reason"]
    assert "backend" not in logged["reason"].lower()
    assert "/realms/acme/elsewhere" not in idp.asked
    idp.mode = "up"
    monkeypatch.setattr(issuer, "READ_S", 5.0)
    await tokens.grant(idp.token())
    idp.mode = mode
    monkeypatch.setattr(issuer, "READ_S", short_s)
    await aged(tokens, 400)
    await tokens.grant(idp.token(sub="while it is out of reach"))


@pytest.mark.parametrize("url", ["http://login.example.com/keys", "ftp://127.0.0.1/keys", "/keys", "", "http://"])
async def test_keys_are_not_fetched_from_where_others_could_change_them(
    idp: Identity, tokens: TrustedTokens, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = msgspec.json.encode({"issuer": idp.url, "jwks_uri": url})
    monkeypatch.setattr(idp, "document", lambda path: text)
    with capture_logs() as logs, pytest.raises(Overloaded):
        await tokens.grant(idp.token())
    assert "is not https" in logs[0]["reason"]


async def test_an_issuer_whose_name_ends_in_a_slash_is_asked_once_slashed(idp: Identity) -> None:
    idp.url += "/"
    tokens = TrustedTokens(trusted(idp))
    await tokens.grant(idp.token())
    await tokens.aclose()
    assert idp.asked[0] == "/realms/acme/.well-known/openid-configuration"
