"""Credential rows, on each database: one for each user and backend, and never half of one."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.vault import Sealed, Vault
from gateway.db.audit import Act
from gateway.db.credentials import Credential, CredentialRows, Draft, Use
from gateway.db.engine import upgrade
from gateway.db.tables import audit

VAULT = Vault(b"m" * 32)


@pytest.fixture
async def rows(engine: AsyncEngine) -> CredentialRows:
    await upgrade(engine)
    return CredentialRows(engine)


def draft(key: str = "sk-canary", owner: str = "alice", tenant: str = "acme", **fields: Any) -> Draft:
    def act(id_: str, fresh: bool) -> Act:
        return Act(actor=owner, action="credential." + ("create" if fresh else "replace"), target=id_, tenant=tenant)

    return Draft(
        tenant=tenant,
        owner=owner,
        backend=fields.pop("backend", "openai"),
        kind="api_key",
        seal=lambda bond: VAULT.seal(key.encode(), bond),
        act=act,
        **fields,
    )


def delete_act(row: Credential) -> Act:
    return Act(actor="root", action="credential.delete", target=row.id, tenant=row.tenant)


def opened(row: Credential) -> str:
    return VAULT.open(row.sealed, row.bond).decode()


async def acts(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(audit.c.action).order_by(audit.c.id))).scalars())


async def test_what_is_kept_opens_at_its_place(rows: CredentialRows) -> None:
    row, fresh = await rows.put(draft(base_url="https://box.example/v1"))
    assert fresh
    assert opened(row) == "sk-canary"
    assert await rows.get(row.id) == row
    assert row.status == "unused"
    assert row.base_url == "https://box.example/v1"


async def test_a_second_one_takes_the_place_of_the_first(rows: CredentialRows, engine: AsyncEngine) -> None:
    first, _ = await rows.put(draft())
    await rows.used({first.id: Use(1000.0, "accepted", first.updated_at)})
    second, fresh = await rows.put(draft("sk-other"))
    assert not fresh
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert second.updated_at > first.updated_at
    assert (second.status, second.last_used_at) == ("unused", None)
    assert opened(second) == "sk-other"
    assert await acts(engine) == ["credential.create", "credential.replace"]


async def test_two_at_once_leave_one(rows: CredentialRows, engine: AsyncEngine) -> None:
    done = await asyncio.gather(*(rows.put(draft(f"sk-number-{n}")) for n in range(4)))
    assert len({row.id for row, _ in done}) == 1
    assert sum(fresh for _, fresh in done) == 1
    (left,) = await rows.of("acme", "alice")
    assert opened(left).startswith("sk-number-")
    assert len(await acts(engine)) == 4


async def test_a_users_own_are_told_from_everybody_elses(rows: CredentialRows) -> None:
    mine, _ = await rows.put(draft())
    await rows.put(draft(owner="bob"))
    await rows.put(draft(tenant="rival"))
    also, _ = await rows.put(draft(backend="claude"))
    assert {row.id for row in await rows.of("acme", "alice")} == {mine.id, also.id}
    assert await rows.of("acme", "nobody") == []


async def test_pages_go_back_in_time(rows: CredentialRows) -> None:
    made = [(await rows.put(draft(owner=f"user-{n}")))[0].id for n in range(5)]
    newest = sorted(made, reverse=True)
    first = [row.id for row in await rows.page(2)]
    assert first == newest[:2]
    assert [row.id for row in await rows.page(10, before=first[-1])] == newest[2:]
    assert [row.owner for row in await rows.page(10, tenant="acme", owner="user-3")] == ["user-3"]
    assert await rows.page(10, tenant="rival") == []


async def test_what_is_deleted_is_gone_and_written_down_once(rows: CredentialRows, engine: AsyncEngine) -> None:
    row, _ = await rows.put(draft())
    assert await rows.some()
    assert await rows.delete(row.id, delete_act(row))
    assert not await rows.delete(row.id, delete_act(row))
    assert await rows.get(row.id) is None
    assert not await rows.some()
    assert await acts(engine) == ["credential.create", "credential.delete"]


async def test_it_is_sealed_anew_only_if_nobody_came_before(rows: CredentialRows) -> None:
    row, _ = await rows.put(draft())
    fresh = VAULT.seal(b"sk-fresh", row.bond)
    assert await rows.reseal(row, fresh)
    assert not await rows.reseal(row, Sealed("x", "y")), "it is not what was known any more"
    found = await rows.get(row.id)
    assert found is not None
    assert opened(found) == "sk-fresh"
    assert found.updated_at == row.updated_at, "to its user it is the same"


async def test_a_use_of_what_was_replaced_says_nothing_of_what_came(rows: CredentialRows) -> None:
    old, _ = await rows.put(draft())
    new, _ = await rows.put(draft("sk-other"))
    await rows.used({old.id: Use(1000.0, "rejected", old.updated_at)})
    assert await rows.get(new.id) == new
    await rows.used({new.id: Use(1060.0, "accepted", new.updated_at), "cred_gone": Use(1.0, "accepted", 1.0)})
    found = await rows.get(new.id)
    assert found is not None
    assert (found.status, found.last_used_at) == ("accepted", 1060.0)
