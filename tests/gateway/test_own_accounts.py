"""Users' own accounts in memory: looked up seldom, opened once, closed when nobody uses them."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compat.canonical.error import AuthFailed, Forbidden, Overloaded
from compat.canonical.principal import Principal
from gateway import accounts as module
from gateway.account import Account, Secret
from gateway.accounts import Accounts, Own, served
from gateway.auth.vault import Sealed, Vault
from gateway.config import load
from gateway.db.credentials import Credential, Use
from gateway.estate import build
from gateway.house import Estate
from gateway.settings import ConfigError
from gateway.visit import Visit

VAULT = Vault(b"m" * 32)


class Shelf:
    """Rows in memory; `away` is a database that cannot be asked."""

    def __init__(self) -> None:
        self.rows: dict[str, Credential] = {}
        self.asked = 0
        self.away = False
        self.uses: dict[str, Use] = {}

    def keep(self, owner: str, backend: str = "up", at: float = 1.0, key: str = "", **fields: Any) -> Credential:
        id_ = f"cred_{owner}_{backend}"
        bond = [id_, "acme", owner, backend, "api_key", fields.get("base_url")]
        sealed = VAULT.seal(msgspec.json.encode(Secret(api_key=key or f"sk-{owner}-canary")), bond)
        row = Credential(
            id=id_,
            tenant="acme",
            owner=owner,
            backend=backend,
            kind="api_key",
            status="unused",
            sealed=sealed,
            created_at=1.0,
            updated_at=at,
            **fields,
        )
        self.rows[id_] = row
        return row

    async def of(self, tenant: str, owner: str) -> list[Credential]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return [row for row in self.rows.values() if (row.tenant, row.owner) == (tenant, owner)]

    async def get(self, id_: str) -> Credential | None:
        return self.rows.get(id_)

    async def some(self) -> bool:
        if self.away:
            raise OSError("away")
        return bool(self.rows)

    async def reseal(self, known: Credential, sealed: Sealed) -> bool:
        self.rows[known.id] = msgspec.structs.replace(known, sealed=sealed)
        return True

    async def used(self, uses: Any) -> None:
        self.uses |= uses


class Bank(Accounts):
    """With what it told others."""

    def __init__(self, shelf: Shelf) -> None:
        self.words: list[str] = []
        self.forgotten: list[tuple[str, str]] = []

        def learn(words: Iterable[str]) -> None:
            self.words = list(words)

        super().__init__(shelf, VAULT, learn=learn, forget=lambda *route: self.forgotten.append(route))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def bank(shelf: Shelf) -> AsyncIterator[Bank]:
    bank = Bank(shelf)
    keeping = asyncio.create_task(bank.keep())
    await asyncio.sleep(0)
    yield bank
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    path = tmp_path / "config.yaml"
    backends = {
        "up": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "house"},
        "need": {"kind": "openai", "own_keys": "required"},
        "never": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "own_keys": "refused"},
    }
    path.write_bytes(msgspec.yaml.encode({"data_dir": str(tmp_path), "backends": backends}))
    return build(load(path, {}))


def visit_of(owner: str) -> Visit:
    visit = Visit(request_id="r", method="POST", path="/", began=0.0)
    visit.principal = Principal(id=owner, tenant="acme")
    return visit


async def account_of(bank: Accounts, estate: Estate, visit: Visit, backend: str = "up") -> Account:
    own = await bank.of(visit, estate)
    assert own is not None
    return own.account(backend)


async def until(look: Callable[[], bool]) -> None:
    for _ in range(200):
        if look():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def test_while_nobody_has_one_nobody_asks(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    await bank.look()
    assert bank.idle
    row = shelf.keep("alice")
    bank.changed(row)
    assert not bank.idle


async def test_a_user_is_looked_up_once_for_all_who_wait(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    shelf.keep("alice")
    found = await asyncio.gather(*(bank.of(visit_of("alice"), estate) for _ in range(10)))
    assert all(found)
    assert await bank.of(visit_of("bob"), estate) is None
    assert await bank.of(visit_of("bob"), estate) is None
    assert shelf.asked == 2


async def test_what_other_processes_did_is_seen_within_a_minute(
    shelf: Shelf, bank: Bank, estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.keep("alice")
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    first = await account_of(bank, estate, visit_of("alice"))
    shelf.keep("alice", at=2.0, key="sk-another-canary")
    second = await account_of(bank, estate, visit_of("alice"))
    assert first is not second
    assert second.words == ["sk-another-canary"]
    shelf.rows.clear()
    assert await bank.of(visit_of("alice"), estate) is None


async def test_a_change_that_comes_while_it_is_looked_up_is_not_missed(
    shelf: Shelf, bank: Bank, estate: Estate
) -> None:
    row = shelf.keep("alice")
    asking = asyncio.create_task(bank.of(visit_of("alice"), estate))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    shelf.rows.clear()
    bank.changed(row)
    assert await asking is None
    assert await bank.of(visit_of("alice"), estate) is None


async def test_it_is_closed_when_the_last_who_uses_it_has_gone(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    row = shelf.keep("alice")
    visits = [visit_of("alice") for _ in range(2)]
    account, again = [await account_of(bank, estate, visit) for visit in visits]
    assert account is again
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    account.backend.aclose = close  # type: ignore[method-assign]
    bank.changed(row)
    bank.give_back(visits[0])
    await asyncio.sleep(0.01)
    assert not closed.is_set()
    assert "sk-alice-canary" in bank.words, "what is in use stays masked"
    bank.give_back(visits[1])
    await asyncio.wait_for(closed.wait(), 5)
    assert bank.words == []
    assert bank.forgotten == [("up", row.id)]
    bank.give_back(visits[1])
    assert account.lent == 0


async def test_only_so_many_stay_open(
    shelf: Shelf, bank: Bank, estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 3)
    held = visit_of("user0")
    for n in range(8):
        shelf.keep(f"user{n}")
        visit = held if n == 0 else visit_of(f"user{n}")
        await account_of(bank, estate, visit)
        if n:
            bank.give_back(visit)
    assert [word for word in bank.words if "user0" in word], "whoever is in use stays"
    assert len(bank.words) == 3
    assert (await account_of(bank, estate, visit_of("user1"))).words == ["sk-user1-canary"]


async def test_who_is_not_used_is_closed(shelf: Shelf, estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    monkeypatch.setattr(module, "TICK_S", 0.02)
    bank = Bank(shelf)
    keeping = asyncio.create_task(bank.keep())
    shelf.keep("alice")
    visit = visit_of("alice")
    await account_of(bank, estate, visit)
    await asyncio.sleep(0.2)
    assert bank.words
    bank.give_back(visit)
    await until(lambda: not bank.words)
    assert shelf.uses["cred_alice_up"].status == "unused"
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_while_the_database_is_away(
    shelf: Shelf, bank: Bank, estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.keep("alice")
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    await account_of(bank, estate, visit_of("alice"))
    shelf.away = True
    assert (await account_of(bank, estate, visit_of("alice"))).words == ["sk-alice-canary"]
    with pytest.raises(Overloaded):
        await bank.of(visit_of("bob"), estate)
    bank.idle = False
    await bank.look()
    assert not bank.idle, "who cannot be asked says nothing"


async def test_a_backend_that_refuses_them_uses_none(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    shelf.keep("alice", backend="never")
    shelf.keep("alice", backend="gone")
    assert await bank.of(visit_of("alice"), estate) is None


async def test_one_that_does_not_open_leaves_the_other_routes(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    row = shelf.keep("alice")
    shelf.rows[row.id] = msgspec.structs.replace(row, sealed=Sealed(row.sealed.master_id, "AAAA"))
    visit = visit_of("alice")
    own = await bank.of(visit, estate)
    assert isinstance(own, Own)
    plan = await estate.router.plan("up/x")
    with pytest.raises(AuthFailed):
        served(plan, own, estate.demanding, visit)
    both = msgspec.structs.replace(plan, routes=(*plan.routes, *(await estate.router.plan("never/x")).routes))
    assert [route.name for route in served(both, own, estate.demanding, visit).routes] == ["never/x"]
    await until(lambda: bool(shelf.uses))
    assert shelf.uses[row.id].status == "unreadable"


async def test_an_address_that_is_not_allowed_any_more_is_not_used(shelf: Shelf, bank: Bank, estate: Estate) -> None:
    shelf.keep("alice", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(Forbidden) as refused:
        await account_of(bank, estate, visit_of("alice"))
    assert refused.value.code == "credential_refused"


@pytest.mark.parametrize(
    ("backend", "at"),
    [
        ({"kind": "fake", "own_keys": "required"}, "backends.b.own_keys"),
        ({"kind": "openai", "own_keys": "sometimes"}, "backends.b.own_keys"),
        ({"kind": "openai", "user_endpoints": ["https://"]}, "backends.b.user_endpoints[0]"),
        ({"kind": "openai", "user_endpoints": ["http://a.example/v1", "10.0.0.5"]}, "backends.b.user_endpoints[1]"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(backend: dict[str, Any], at: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(msgspec.yaml.encode({"backends": {"b": backend}}))
    with pytest.raises(ConfigError, match=re.escape(at)):
        load(path, {})


def test_a_backend_for_users_own_keys_needs_none_and_takes_none_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    kinds = ("openai", "anthropic", "huggingface")
    path.write_bytes(
        msgspec.yaml.encode({"backends": {kind: {"kind": kind, "own_keys": "required"} for kind in kinds}})
    )
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "sk-of-the-house-canary")
    estate = build(load(path, {}))
    assert estate.demanding == set(kinds)
    for backend in estate.backends.values():
        assert "canary" not in str(vars(backend)["_headers"])


async def test_who_needs_a_key_of_their_own_is_told(estate: Estate) -> None:
    visit = visit_of("alice")
    with pytest.raises(Forbidden) as refused:
        served(await estate.router.plan("need/x"), None, estate.demanding, visit)
    assert refused.value.code == "credential_required"
    assert visit.trail == [("need/x", "needs the user's own key")]
