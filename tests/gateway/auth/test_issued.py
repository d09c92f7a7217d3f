"""Issued keys as the authenticator asks for them: what is remembered, for how long, and what ends it."""

import asyncio
import sqlite3
import string
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from compat.canonical.error import Overloaded
from gateway.auth import issued as module
from gateway.auth.issued import IssuedKeys, Minted, mint
from gateway.auth.principal import Grant
from gateway.db.keys import Candidate, KeyRow
from gateway.settings import SCOPES, Limit
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, config, speaking
from tests.http import CHAT, chat, error_of, until
from tests.process import gateway

PEPPER = b"p" * 32
LIMIT = Limit(requests_per_minute=3)


class Table:
    """Rows in memory, which can fail and be slow."""

    def __init__(self, *candidates: Candidate) -> None:
        self.candidates_ = list(candidates)
        self.asked: list[str] = []
        self.uses: list[dict[str, float]] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def candidates(self, prefix: str) -> list[Candidate]:
        self.asked.append(prefix)
        if self.down:
            raise OSError("no route to the database")
        found = [one for one in self.candidates_ if prefix in (one.row.prefix, one.row.old_prefix)]
        await self.gate.wait()
        return found

    async def used(self, at: Mapping[str, float]) -> None:
        if self.down:
            raise OSError("no route to the database")
        self.uses.append(dict(at))


def candidate(minted: Minted, **changes: Any) -> Candidate:
    fields: dict[str, Any] = {
        "id": "key_1",
        "tenant": "acme",
        "owner": "ann",
        "name": "app",
        "prefix": minted.prefix,
        "scopes": ("inference",),
        "models": ("gpt-*",),
        "backends": ("up",),
        "limits": LIMIT,
        "created_at": 1.0,
        "created_by": "root",
    }
    row = KeyRow(**(fields | changes))
    return Candidate(row, minted.mac, row.expires_at)


@pytest.fixture
def key() -> Minted:
    return mint(PEPPER)


@pytest.fixture
def table(key: Minted) -> Table:
    return Table(candidate(key))


@pytest.fixture
def keys(table: Table) -> IssuedKeys:
    return IssuedKeys(table, PEPPER)


def test_a_key_is_256_random_bits_behind_a_prefix() -> None:
    made = [mint(PEPPER) for _ in range(50)]
    assert len({one.text for one in made}) == len({one.prefix for one in made}) == len({one.mac for one in made}) == 50
    for one in made:
        head, _, secret = one.text.partition("_")
        assert head == f"sk-gw-{one.prefix}"
        assert len(one.prefix) == 12
        assert len(secret) == 64
        assert set(one.prefix + secret + one.mac) <= set("0123456789abcdef")
        assert secret not in one.mac
    assert mint(b"q" * 32).mac != made[0].mac


async def test_a_key_is_good_for_what_its_row_says(keys: IssuedKeys, key: Minted) -> None:
    grant = await keys.grant(key.text)
    assert grant is not None
    principal = grant.principal
    assert (principal.id, principal.tenant, principal.scopes) == ("ann", "acme", frozenset({"inference"}))
    assert (grant.key_id, grant.models, grant.backends, grant.limit) == ("key_1", ("gpt-*",), frozenset({"up"}), LIMIT)


async def test_admin_is_every_scope(key: Minted) -> None:
    grant = await IssuedKeys(Table(candidate(key, scopes=("admin",))), PEPPER).grant(key.text)
    assert grant is not None
    assert grant.principal.scopes == SCOPES


async def test_a_wrong_key_is_as_unknown_as_one_that_was_never_there(
    keys: IssuedKeys, key: Minted, table: Table
) -> None:
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    assert await keys.grant(wrong) is None
    assert await keys.grant(mint(PEPPER).text) is None
    assert len(table.asked) == 2
    assert await IssuedKeys(table, b"q" * 32).grant(key.text) is None, "under another pepper it is another key"


@pytest.mark.parametrize(
    "changes", [{"revoked_at": 1.0}, {"expires_at": time.time() - 1}, {"expires_at": 0.0}], ids=["revoked", "old", "0"]
)
async def test_a_key_that_has_ended_is_unknown(key: Minted, changes: dict[str, Any]) -> None:
    assert await IssuedKeys(Table(candidate(key, **changes)), PEPPER).grant(key.text) is None


@given(st.one_of(st.text(max_size=200), st.text("sk-gw_" + string.hexdigits, min_size=60, max_size=100)))
def test_a_text_of_another_shape_never_reaches_the_database(text: str) -> None:
    async def asked() -> None:
        table = Table()
        assert await IssuedKeys(table, PEPPER).grant(text) is None
        assert table.asked == []

    asyncio.run(asked())


@pytest.mark.parametrize(
    "spoil", [str.upper, lambda t: t + "\n", lambda t: " " + t, lambda t: t[:-1], lambda t: t + "0"]
)
async def test_nearly_the_shape_is_not_the_shape(keys: IssuedKeys, key: Minted, table: Table, spoil: Any) -> None:
    assert await keys.grant(spoil(key.text)) is None
    assert table.asked == []


async def test_what_is_known_is_not_asked_again(keys: IssuedKeys, key: Minted, table: Table) -> None:
    for _ in range(20):
        assert await keys.grant(key.text) is not None
    stranger = mint(PEPPER).text
    for _ in range(20):
        assert await keys.grant(stranger) is None
    assert len(table.asked) == 2


async def test_many_who_ask_for_one_key_at_once_ask_once(keys: IssuedKeys, key: Minted, table: Table) -> None:
    table.gate.clear()
    asking = [asyncio.create_task(keys.grant(key.text)) for _ in range(50)]
    await asyncio.sleep(0.01)
    for one in asking[:20]:
        one.cancel()
    table.gate.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [True] * 20 + [False] * 30
    assert all(isinstance(one, Grant) for one in outcomes[20:])
    assert len(table.asked) == 1


async def test_the_databases_word_is_believed_for_a_limited_time(
    keys: IssuedKeys, key: Minted, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.KNOWN_S <= 60
    monkeypatch.setattr(module, "KNOWN_S", 1.0)
    assert await keys.grant(key.text) is not None
    table.candidates_ = [candidate(key, revoked_at=1.0)]  # by another process
    assert await keys.grant(key.text) is not None
    await asyncio.sleep(1.1)
    assert await keys.grant(key.text) is None


async def test_no_key_outlives_its_expiry_in_memory(key: Minted) -> None:
    table = Table(candidate(key, expires_at=time.time() + 1))
    keys = IssuedKeys(table, PEPPER)
    assert await keys.grant(key.text) is not None
    await asyncio.sleep(1.1)
    assert await keys.grant(key.text) is None
    assert len(table.asked) == 2


async def test_no_rotated_key_outlives_its_overlap_in_memory(key: Minted) -> None:
    old = candidate(key, prefix="f" * 12, old_prefix=key.prefix)
    table = Table(Candidate(old.row, key.mac, time.time() + 1))
    keys = IssuedKeys(table, PEPPER)
    assert await keys.grant(key.text) is not None
    await asyncio.sleep(1.1)
    assert await keys.grant(key.text) is None


async def test_a_change_here_is_in_force_at_once(keys: IssuedKeys, key: Minted, table: Table) -> None:
    assert await keys.grant(key.text) is not None
    table.candidates_ = [candidate(key, revoked_at=1.0)]
    keys.forget("key_other")
    assert await keys.grant(key.text) is not None
    keys.forget("key_1")
    assert await keys.grant(key.text) is None
    table.candidates_ = [candidate(key, scopes=("admin",))]
    keys.forget("key_1")
    assert await keys.grant(key.text) is not None, "what was refused is not remembered either"


async def test_what_was_read_before_a_change_is_not_kept_after_it(keys: IssuedKeys, key: Minted, table: Table) -> None:
    table.gate.clear()
    early = asyncio.create_task(keys.grant(key.text))
    await asyncio.sleep(0.01)
    table.candidates_ = [candidate(key, revoked_at=1.0)]
    keys.forget("key_1")
    late = asyncio.create_task(keys.grant(key.text))
    await asyncio.sleep(0.01)
    table.gate.set()
    assert await early is not None, "it asked before"
    assert await late is None
    assert await keys.grant(key.text) is None


async def test_without_the_database_known_keys_go_on_for_a_while_and_then_nobody_gets_in(
    keys: IssuedKeys, key: Minted, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_S", 1.0)
    assert await keys.grant(key.text) is not None
    table.down = True
    assert await keys.grant(key.text) is not None
    with pytest.raises(Overloaded):
        await keys.grant(mint(PEPPER).text)
    await asyncio.sleep(1.1)
    outcomes = await asyncio.gather(*(keys.grant(key.text) for _ in range(5)), return_exceptions=True)
    for error in outcomes:
        assert isinstance(error, Overloaded)
        assert (error.status, error.code, error.retry_after_s) == (503, "auth_unavailable", 1.0)
    assert len({id(error) for error in outcomes}) == 5, "each has its own"
    table.down = False
    assert await keys.grant(key.text) is not None


async def test_a_database_that_hangs_is_as_good_as_none(
    keys: IssuedKeys, key: Minted, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKUP_S", 0.05)
    table.gate.clear()
    with pytest.raises(Overloaded):
        await keys.grant(key.text)


async def test_memory_is_bounded(keys: IssuedKeys, key: Minted, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 10)
    made = [mint(PEPPER) for _ in range(30)]
    table.candidates_ += [candidate(one, id=f"key_{one.prefix}") for one in made]
    for one in made:
        assert await keys.grant(one.text) is not None
        assert await keys.grant(mint(PEPPER).text) is None
    asked = len(table.asked)
    for one in made[-10:]:
        assert await keys.grant(one.text) is not None
    assert len(table.asked) == asked
    assert await keys.grant(made[0].text) is not None
    assert len(table.asked) == asked + 1
    assert max(len(part) for part in (keys._known, keys._unknown, keys._used)) <= 10


async def test_strangers_do_not_take_every_connection(keys: IssuedKeys, table: Table) -> None:
    table.gate.clear()
    asking = [asyncio.create_task(keys.grant(mint(PEPPER).text)) for _ in range(40)]
    await asyncio.sleep(0.02)
    assert len(table.asked) == module.LOOKUPS
    table.gate.set()
    assert await asyncio.gather(*asking) == [None] * 40


async def test_uses_are_written_in_batches_once_a_minute_for_each_key(
    key: Minted, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    other, recent = mint(PEPPER), mint(PEPPER)
    table.candidates_ += [candidate(other, id="key_2"), candidate(recent, id="key_3", last_used_at=time.time() - 5)]
    keys = IssuedKeys(table, PEPPER)
    for one in (key, other, recent):
        await keys.grant(one.text)
    writing = asyncio.create_task(keys.write())
    while not table.uses:
        await asyncio.sleep(0.02)
    assert [set(batch) for batch in table.uses] == [{"key_1", "key_2"}]
    assert table.uses[0]["key_1"] == pytest.approx(time.time(), abs=30)
    for stored in list(table.candidates_):  # as the database has it now
        table.candidates_.remove(stored)
        table.candidates_.append(Candidate(replace(stored.row, last_used_at=time.time()), stored.mac, None))
    keys.forget("key_1")
    await keys.grant(key.text)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert len(table.uses) == 1


async def test_a_use_that_could_not_be_written_is_written_later(keys: IssuedKeys, key: Minted, table: Table) -> None:
    await keys.grant(key.text)
    table.down = True
    await keys._flush()
    table.down = False
    writing = asyncio.create_task(keys.write())
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert [set(batch) for batch in table.uses] == [{"key_1"}], "at the end at the latest"


def test_a_gateway_whose_database_is_gone_lets_nobody_new_in(tmp_path: Path) -> None:
    tree = config("http://127.0.0.1:9/v1") | {"auth": AUTH}
    with gateway(tmp_path, tree, prelude="import gateway.auth.issued as i; i.KNOWN_S = 1.0") as running:
        with speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as admin:
            headers = {"authorization": f"Bearer {admin.post('/v1/keys', json={'name': 'app'}).json()['key']}"}

        def answer() -> httpx2.Response:
            return httpx2.post(running.url + CHAT, json=chat("fake/fake"), headers=headers, timeout=30, verify=False)

        def renamed(old: str, new: str) -> None:
            with closing(sqlite3.connect(tmp_path / "data" / "gateway.db", timeout=10)) as database:
                database.execute(f"ALTER TABLE {old} RENAME TO {new}")

        assert answer().status_code == 200
        renamed("keys", "keys_gone")
        refused = until(lambda: found if (found := answer()).status_code != 200 else None)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "auth_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert "keys_gone" not in refused.text
        with speaking(running, {"authorization": f"Bearer {APP_KEY}"}) as app:
            assert app.post(CHAT, json=chat("fake/fake")).status_code == 200, "configured keys need no database"
        renamed("keys_gone", "keys")
        assert until(lambda: answer().status_code == 200)
        assert [line["event"] for line in running.log if line["event"].startswith("keys_")].count(
            "keys_unavailable"
        ) == 1
