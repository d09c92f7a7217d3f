"""Key rows and the audit log, on every database the gateway runs on."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.audit import Act, AuditRows
from gateway.db.engine import connect, upgrade
from gateway.db.keys import KeyRow, KeyRows
from gateway.db.tables import audit
from gateway.settings import Limit
from gateway.visit import new_id
from tests.gateway.conftest import ADMIN_KEY, AUTH, config, speaking
from tests.http import CHAT, chat, until
from tests.process import gateway

ACT = Act(actor="root", action="key.test", target="key_x", tenant="acme")


def row(n: int = 0, **changes: Any) -> KeyRow:
    fields: dict[str, Any] = {
        "id": f"key_{n:032x}",
        "tenant": "acme",
        "owner": "ann",
        "name": f"key {n} \U0001f642",
        "prefix": f"{n:012x}",
        "scopes": ("inference", "models:read"),
        "models": ("gpt-*",),
        "backends": ("up",),
        "tags": {"team": "a b"},
        "limits": Limit(requests_per_minute=5, budget_usd_per_day=0.25),
        "created_at": 1763769600.0 + n,
        "created_by": "root",
    }
    return KeyRow(**(fields | changes))


def mac(n: int = 0) -> str:
    return f"{n:064x}"


@pytest.fixture
async def rows(engine: AsyncEngine) -> KeyRows:
    await upgrade(engine)
    return KeyRows(engine)


async def test_a_key_is_kept_whole(rows: KeyRows) -> None:
    bare = row(1, models=None, backends=None, limits=None, tags={}, owner="bob", tenant="other")
    await rows.add(row(), mac(), ACT)
    await rows.add(bare, mac(1), ACT)
    assert await rows.get(row().id) == row()
    assert await rows.get(bare.id) == bare
    assert await rows.get("key_unknown") is None
    assert [(one.row, one.mac, one.expires_at) for one in await rows.candidates(row().prefix)] == [(row(), mac(), None)]
    assert await rows.candidates("ffffffffffff") == []


async def test_keys_are_listed_newest_first_page_by_page(rows: KeyRows) -> None:
    for n in range(7):
        await rows.add(row(n, tenant="other" if n == 3 else "acme", owner="bob" if n == 5 else "ann"), mac(n), ACT)
    await rows.revoke(row(6).id, ACT)

    async def listed(*args: Any, **filters: Any) -> list[int]:
        return [int(one.prefix, 16) for one in await rows.page(*args, **filters)]

    assert await listed(50) == [5, 4, 3, 2, 1, 0]
    assert await listed(50, revoked=True) == [6, 5, 4, 3, 2, 1, 0]
    assert await listed(2, row(5).id) == [4, 3]
    assert await listed(50, tenant="other") == [3]
    assert await listed(50, owner="bob") == [5]
    assert await listed(50, tenant="other", owner="bob") == []


async def test_fields_can_be_changed_until_the_key_is_revoked(rows: KeyRows) -> None:
    await rows.add(row(), mac(), ACT)
    await rows.add(row(1), mac(1), ACT)
    changed = await rows.change(row().id, {"name": "new", "models": None, "limits": Limit(concurrent=2)}, ACT)
    assert changed == row(name="new", models=None, limits=Limit(concurrent=2)) == await rows.get(row().id)
    assert await rows.get(row(1).id) == row(1)
    ended = await rows.revoke(row().id, ACT)
    assert ended is not None
    assert ended.revoked_at == pytest.approx(time.time(), abs=30)
    assert await rows.change(row().id, {"name": "again"}, ACT) is None
    assert await rows.rotate(row().id, "a" * 12, mac(9), None, ACT) is None
    assert await rows.revoke(row().id, ACT) is None
    assert await rows.change("key_unknown", {"name": "x"}, ACT) is None


async def test_after_a_rotation_the_old_key_is_a_candidate_until_the_next(rows: KeyRows) -> None:
    await rows.add(row(expires_at=2000.0), mac(), ACT)

    async def found(prefix: str) -> list[tuple[str, float | None]]:
        return [(one.mac, one.expires_at) for one in await rows.candidates(prefix)]

    await rows.rotate(row().id, "a" * 12, mac(1), 1000.0, ACT)
    assert await found(row().prefix) == [(mac(), 1000.0)]
    assert await found("a" * 12) == [(mac(1), 2000.0)]
    await rows.rotate(row().id, "b" * 12, mac(2), 3000.0, ACT)
    assert await found(row().prefix) == []
    assert await found("a" * 12) == [(mac(1), 2000.0)], "an overlap does not outlive the key"
    await rows.rotate(row().id, "c" * 12, mac(3), None, ACT)
    assert (await found("a" * 12), await found("b" * 12)) == ([], [])
    assert await found("c" * 12) == [(mac(3), 2000.0)]
    await rows.rotate(row().id, "d" * 12, mac(4), 1000.0, ACT)
    await rows.revoke(row().id, ACT)
    assert await found("c" * 12) == []


async def test_uses_are_written_in_batches_and_never_go_back(rows: KeyRows) -> None:
    for n in range(3):
        await rows.add(row(n), mac(n), ACT)
    await rows.used({row(0).id: 100.0, row(1).id: 200.0, "key_gone": 5.0})
    await rows.used({row(0).id: 50.0, row(1).id: 300.0})
    assert [(await rows.get(row(n).id) or row()).last_used_at for n in range(3)] == [100.0, 300.0, None]


async def test_of_many_that_start_at_once_one_issues_the_first_admin(url: str) -> None:
    engines = [connect(url) for _ in range(6)]
    await upgrade(engines[0])
    outcomes = await asyncio.gather(
        *(KeyRows(e).add_first_admin(row(n, scopes=("admin",)), mac(n), ACT) for n, e in enumerate(engines))
    )
    assert sorted(outcomes) == [False] * 5 + [True]
    assert len(await KeyRows(engines[0]).page(50)) == 1
    assert len(await AuditRows(engines[0]).page(50)) == 1
    await asyncio.gather(*(e.dispose() for e in engines))


@pytest.mark.parametrize(
    ("there", "added"),
    [
        ({}, False),
        ({"scopes": ("models:read", "admin")}, False),
        ({"expires_at": time.time() + 3600}, False),
        ({"expires_at": time.time() - 1}, True),
        ({"revoked_at": 5.0}, True),
        ({"scopes": ("inference", "models:read")}, True),
    ],
)
async def test_an_active_admin_key_makes_another_needless(rows: KeyRows, there: dict[str, Any], added: bool) -> None:
    await rows.add(row(**({"scopes": ("admin",)} | there)), mac(), ACT)
    assert await rows.add_first_admin(row(1, scopes=("admin",)), mac(1), ACT) is added


async def test_an_act_and_its_note_are_one(rows: KeyRows, engine: AsyncEngine) -> None:
    async def notes() -> int:
        async with engine.connect() as connection:
            return (await connection.execute(select(func.count()).select_from(audit))).scalar_one()

    await rows.add(row(), mac(), ACT)
    assert await notes() == 1
    with pytest.raises(IntegrityError):
        await rows.add(row(1, prefix=row().prefix), mac(1), ACT)
    assert await rows.get(row(1).id) is None
    assert await rows.change("key_unknown", {"name": "x"}, ACT) is None
    assert await notes() == 1
    await rows.change(row().id, {"name": "y"}, Act(actor="root", action="key.update", target=row().id, tenant="?"))
    [newest, _] = await AuditRows(engine).page(50)
    assert (newest.action, newest.tenant) == ("key.update", "acme"), "the tenant is the key's"


async def test_the_audit_log_is_read_newest_first_and_filtered(engine: AsyncEngine) -> None:
    await upgrade(engine)
    log = AuditRows(engine)
    begin = time.time()
    for n in range(5):
        act = Act(
            actor="x" * 100 if n == 4 else f"actor{n}",
            action="key.revoke" if n == 3 else "key.create",
            target=new_id("key"),
            tenant="other" if n == 2 else "acme",
            request_id=f"req_{n}",
            detail={"n": n},
        )
        await log.add(act)
        await asyncio.sleep(0.002)  # ids sort by the millisecond

    async def listed(*args: Any, **filters: Any) -> list[Any]:
        return [one.detail["n"] for one in await log.page(*args, **filters)]

    assert await listed(50) == [4, 3, 2, 1, 0]
    events = await log.page(2)
    assert await listed(2, events[-1].id) == [2, 1]
    assert (events[0].actor, events[1].request_id) == ("x" * 64, "req_3")
    assert await listed(50, tenant="other") == [2]
    assert await listed(50, action="key.revoke") == [3]
    assert await listed(50, actor="actor1") == [1]
    assert await listed(50, since=begin + 3600) == []
    assert await listed(50, until=begin - 3600) == []
    assert await listed(50, since=begin - 1, until=events[0].at) == [3, 2, 1, 0]


async def test_a_gateway_gives_out_keys_there(url: str, tmp_path: Path) -> None:
    tree = config("http://127.0.0.1:9/v1") | {"auth": AUTH, "database": {"url": url}}
    with (
        gateway(tmp_path, tree, prelude="import gateway.auth.issued as i; i.FLUSH_S = 0.05") as running,
        speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as admin,
        speaking(running) as nobody,
    ):

        def status(key: dict[str, Any]) -> int:
            headers = {"authorization": f"Bearer {key['key']}"}
            return nobody.post(CHAT, json=chat("fake/fake"), headers=headers).status_code

        key = admin.post(
            "/v1/keys", json={"name": "é \U0001f642", "limits": {"concurrent": 5}, "tags": {"a": "ü"}}
        ).json()
        path = f"/v1/keys/{key['id']}"
        assert status(key) == 200
        until(lambda: admin.get(path).json()["last_used_at"])
        second = admin.post(f"{path}/rotate", json={"overlap_s": 0}).json()
        assert [status(key), status(second)] == [401, 200]
        assert admin.patch(path, json={"name": "b"}).json()["tags"] == {"a": "ü"}
        assert admin.delete(path).status_code == 200
        assert status(second) == 401
        acts = admin.get("/v1/audit", params={"from": "2020-01-01T00:00:00Z"}).json()["data"]
        assert [act["action"] for act in acts] == ["key.revoke", "key.update", "key.rotate", "key.create"]
        assert admin.get("/v1/keys", params={"owner": "\x00"}).status_code == 400
