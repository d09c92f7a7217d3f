"""Sealing: what comes out is what went in, at its own place only, and under a known master key."""

import base64

import pytest
from msgspec.structs import replace

from gateway.auth.vault import Broken, Sealed, Vault

MASTER, OLD = b"m" * 32, b"o" * 32
PLACE = ["cred_1", "acme", "alice", "openai", "api_key", None]


def test_what_is_sealed_opens_and_does_not_show() -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(b"sk-secret-canary", PLACE)
    assert vault.open(sealed, PLACE) == b"sk-secret-canary"
    assert b"canary" not in base64.b64decode(sealed.text)
    assert Vault(MASTER).open(sealed, PLACE) == b"sk-secret-canary", "in another process, too"


def test_the_same_secret_is_never_sealed_twice_alike() -> None:
    vault = Vault(MASTER)
    assert len({vault.seal(b"secret", PLACE).text for _ in range(100)}) == 100


@pytest.mark.parametrize("n", range(len(PLACE)))
def test_it_opens_at_its_own_place_only(n: int) -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(b"secret", PLACE)
    moved = [*PLACE[:n], f"{PLACE[n]}x", *PLACE[n + 1 :]]
    with pytest.raises(Broken, match="altered or moved"):
        vault.open(sealed, moved)


def test_words_cannot_be_shifted_from_one_field_into_the_next() -> None:
    vault = Vault(MASTER)
    with pytest.raises(Broken):
        vault.open(vault.seal(b"secret", ["ab", "c"]), ["a", "bc"])


def test_a_change_of_any_byte_is_noticed() -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(b"secret", PLACE)
    raw = base64.b64decode(sealed.text)
    for n in range(len(raw)):
        changed = raw[:n] + bytes([raw[n] ^ 1]) + raw[n + 1 :]
        with pytest.raises(Broken):
            vault.open(replace(sealed, text=base64.b64encode(changed).decode()), PLACE)
    for text in ("", "?", "AAAA", sealed.text[:-4]):
        with pytest.raises(Broken):
            vault.open(replace(sealed, text=text), PLACE)


def test_an_old_master_key_opens_and_the_new_one_seals() -> None:
    old, new = Vault(OLD), Vault(MASTER, [OLD])
    sealed = old.seal(b"secret", PLACE)
    assert sealed.master_id == old.master_id != new.master_id
    assert new.open(sealed, PLACE) == b"secret"
    assert new.seal(b"secret", PLACE).master_id == new.master_id
    with pytest.raises(Broken, match="old_master_keys"):
        Vault(MASTER).open(sealed, PLACE)
    with pytest.raises(Broken):
        Vault(MASTER).open(Sealed(Vault(MASTER).master_id, sealed.text), PLACE)


def test_its_name_tells_nothing_of_a_master_key() -> None:
    name = Vault(MASTER).master_id
    assert len(name) == 16
    assert name not in MASTER.hex()
