"""Rows of artifacts, on every database the gateway runs on."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.artifacts.artifact import Artifact
from gateway.db.artifacts import ArtifactRows, _insert, hold
from gateway.db.audit import Act, AuditRows
from gateway.db.tables import blobs

NOW = 1_763_769_600.0
ACT = Act(actor="ann", action="artifact.delete", target="art_0", tenant="acme")


def artifact(n: int = 0, sha: str | None = None, **changes: Any) -> Artifact:
    fields: dict[str, Any] = {
        "id": f"art_{n:032x}",
        "tenant": "acme",
        "owner": "ann",
        "key_id": "key_1",
        "kind": "image",
        "mime": "image/png",
        "name": "é \U0001f642.png",
        "size_bytes": 10,
        "sha256": sha or f"{n:064x}",
        "meta": {"width": 3, "nul": "\x00", "bounds": [[0.5]]},
        "request_id": "gen_1",
        "created_at": NOW + n,
        "expires_at": NOW + 100,
    }
    return Artifact(**(fields | changes))


async def put(rows: ArtifactRows, *given: Artifact) -> None:
    for one in given:
        key = f"{one.tenant}/{one.sha256}"
        if not await rows.refer(one, key, NOW):
            await rows.add(one, key, NOW)


async def test_an_artifact_is_kept_whole_and_is_its_tenants(rows: ArtifactRows) -> None:
    plain = artifact(1, key_id=None, name=None, meta={}, request_id=None, expires_at=None, kind="file")
    await put(rows, artifact(), plain)
    assert await rows.get(artifact().id, "acme") == artifact()
    assert await rows.get(plain.id) == plain
    assert await rows.get(plain.id, "other") is None
    assert await rows.get("art_none", "acme") is None


async def test_the_same_bytes_are_one_blob_of_a_tenant_and_of_no_other(rows: ArtifactRows) -> None:
    sha = "a" * 64
    assert not await rows.refer(artifact(1, sha), "x/1", NOW)
    assert await rows.add(artifact(1, sha), "x/1", NOW) == "x/1"
    assert await rows.refer(artifact(2, sha), "x/1", NOW)
    assert not await rows.refer(artifact(2, sha), "x/2", NOW), "not any more under this key"
    assert await rows.add(artifact(3, sha), "x/3", NOW) == "x/1"
    assert not await rows.refer(artifact(4, sha, tenant="other"), "x/1", NOW)
    assert await rows.add(artifact(4, sha, tenant="other"), "y/4", NOW) == "y/4"
    assert (await rows.key("acme", sha), await rows.key("other", sha)) == ("x/1", "y/4")
    assert await rows.known(["x/1", "x/3", "y/4", "z"]) == {"x/1", "y/4"}
    assert await rows.totals() == (4, 20)


async def test_many_at_once_with_the_same_bytes_agree_on_one_key(rows: ArtifactRows) -> None:
    sha = "b" * 64
    keys = await asyncio.gather(*(rows.add(artifact(n, sha), f"k/{n}", NOW) for n in range(12)))
    assert len(set(keys)) == 1
    assert await rows.totals() == (12, 10)


async def test_bytes_go_when_nobody_has_them_and_nobody_is_about_to(rows: ArtifactRows) -> None:
    sha = "c" * 64
    await put(rows, artifact(1, sha), artifact(2, sha))
    assert await rows.delete("acme", artifact(1).id) == [("acme", sha)]
    assert await rows.drop(("acme", sha)) is None, "the other one has them"
    assert await rows.delete("acme", artifact(2).id) == [("acme", sha)]
    assert await rows.unused(NOW) == []
    assert await rows.unused(NOW + 1) == [("acme", sha)]
    assert await rows.drop(("acme", sha)) == f"acme/{sha}"
    assert await rows.drop(("acme", sha)) is None
    assert not await rows.refer(artifact(3, sha), f"acme/{sha}", NOW)


async def test_whoever_refers_while_the_bytes_go_has_them_or_is_told(rows: ArtifactRows) -> None:
    for n in range(25):
        sha = f"{n:064x}"
        await put(rows, artifact(2 * n, sha))
        await rows.delete("acme", artifact(2 * n).id)
        referring = rows.refer(artifact(2 * n + 1, sha), f"acme/{sha}", NOW + 5)
        referred, gone = await asyncio.gather(referring, rows.drop(("acme", sha)))
        assert referred == (gone is None)
        assert (await rows.key("acme", sha) is not None) == referred


async def test_bytes_that_somebody_is_just_referring_to_stay(rows: ArtifactRows, engine: AsyncEngine) -> None:
    sha = "c" * 64
    await put(rows, artifact(1, sha))
    await rows.delete("acme", artifact(1).id)
    async with engine.begin() as connection:
        await connection.execute(update(blobs).values(wanted_at=NOW + 5))
        await _insert(connection, artifact(2, sha))
        dropping = asyncio.create_task(rows.drop(("acme", sha)))
        await asyncio.sleep(0.2)  # it has read the row, and waits to remove it
    assert await dropping is None
    assert await rows.key("acme", sha) == f"acme/{sha}"


async def test_what_is_just_being_held_does_not_expire(rows: ArtifactRows, engine: AsyncEngine) -> None:
    await put(rows, artifact(1))
    async with engine.begin() as connection:
        await hold(connection, "acme", "ses_1", "ann", [artifact(1).id], NOW + 500)
        expiring = asyncio.create_task(rows.expire(NOW + 101))
        await asyncio.sleep(0.2)
    assert await expiring == []
    assert await rows.uses("acme", artifact(1).id) == 1


async def test_what_was_made_from_it_goes_with_it_and_its_deletion_is_written_down(rows: ArtifactRows) -> None:
    mesh, poster = artifact(1), artifact(2, parent_id=artifact(1).id)
    thumb = artifact(3, parent_id=poster.id)
    await put(rows, mesh, poster, thumb, artifact(4))
    await rows.hold("acme", "ses_1", "ann", [poster.id], NOW)
    assert [one.id for one in await rows.children("acme", mesh.id)] == [poster.id]
    assert await rows.children("other", mesh.id) == []
    assert await rows.delete("other", mesh.id, ACT) is None
    gone = await rows.delete("acme", mesh.id, ACT)
    assert gone is not None
    assert {sha for _, sha in gone} == {mesh.sha256, poster.sha256, thumb.sha256}
    assert await rows.delete("acme", mesh.id, ACT) is None
    assert [one.id for one in await rows.page("acme", 9)] == [artifact(4).id]
    assert await rows.uses("acme", poster.id) == 0
    acts = await AuditRows(rows._engine).page(9, tenant="acme")
    assert [one.action for one in acts] == ["artifact.delete"]


async def test_nothing_is_made_from_what_is_gone(rows: ArtifactRows) -> None:
    child = artifact(1, parent_id="art_gone")
    with pytest.raises(LookupError):
        await rows.add(child, "k", NOW)
    assert await rows.totals() == (0, 0)
    await put(rows, artifact(2, tenant="other"))
    with pytest.raises(LookupError):
        await rows.add(artifact(1, parent_id=artifact(2).id), "k", NOW)


async def test_a_child_that_is_made_while_its_parent_goes_goes_too_or_is_refused(rows: ArtifactRows) -> None:
    for n in range(0, 50, 2):
        parent, child = artifact(n), artifact(n + 1, parent_id=artifact(n).id)
        await put(rows, parent)
        await asyncio.gather(rows.add(child, f"k/{n}", NOW), rows.delete("acme", parent.id), return_exceptions=True)
        assert (await rows.get(parent.id), await rows.get(child.id)) == (None, None)


async def test_what_has_expired_goes_unless_a_session_holds_it_or_what_was_made_from_it(rows: ArtifactRows) -> None:
    over, held, kept = artifact(1), artifact(2), artifact(3, expires_at=None)
    mesh, poster = artifact(4), artifact(5, parent_id=artifact(4).id)
    told, part = artifact(6), artifact(7, parent_id=artifact(6).id, expires_at=NOW + 1)
    await put(rows, over, held, kept, mesh, poster, told, part)
    await rows.hold("acme", "ses_1", "ann", [held.id, poster.id], NOW)
    assert await rows.expire(NOW + 99) is None, "a child's own time does not count"
    gone = await rows.expire(NOW + 100)
    assert gone is not None
    assert {sha for _, sha in gone} == {over.sha256, told.sha256, part.sha256}
    assert await rows.expire(NOW + 1e9) is None
    assert {one.id for one in await rows.page("acme", 9)} == {held.id, kept.id, mesh.id, poster.id}


async def test_what_is_held_while_it_expires_is_held_or_gone_whole(rows: ArtifactRows) -> None:
    for n in range(25):
        await put(rows, artifact(n))
        await asyncio.gather(rows.hold("acme", "ses_1", "ann", [artifact(n).id], NOW + 500), rows.expire(NOW + 101))
        there = await rows.get(artifact(n).id) is not None
        assert await rows.uses("acme", artifact(n).id) == int(there)


async def test_a_session_holds_what_is_there_and_is_its_tenants_and_each_once(rows: ArtifactRows) -> None:
    await put(rows, artifact(1), artifact(2, tenant="other"))
    ids = [artifact(1).id, artifact(2).id, "art_none"]
    for _ in range(2):
        await rows.hold("acme", "ses_1", "ann", ids, NOW)
    await rows.hold("acme", "ses_2", "ann", ids, NOW + 200)
    assert (await rows.uses("acme", ids[0]), await rows.uses("other", ids[1])) == (2, 0)
    found = await rows.get(ids[0])
    assert found is not None
    assert found.expires_at == NOW + 200, "not before who holds it can be seen to"


async def test_a_tenants_artifacts_are_listed_newest_first_by_pages_kind_and_type(rows: ArtifactRows) -> None:
    await put(
        rows,
        *(artifact(n) for n in range(5)),
        artifact(5, kind="mesh", mime="model/gltf-binary"),
        artifact(6, mime="imag_/x"),
        artifact(7, tenant="other"),
    )

    async def page(*given: Any, **more: Any) -> list[int]:
        return [int(one.id[4:], 16) for one in await rows.page("acme", *given, **more)]

    assert await page(3) == [6, 5, 4]
    assert await page(3, artifact(4).id) == [3, 2, 1]
    assert await page(9, kind="mesh") == [5]
    assert await page(9, mime="image/") == [4, 3, 2, 1, 0]
    assert await page(9, mime="imag_") == [6]


async def test_what_artifacts_take_is_counted_by_tenant_key_and_user(rows: ArtifactRows) -> None:
    same = "d" * 64
    await put(
        rows,
        artifact(1, same),
        artifact(2, same, key_id="key_2"),
        artifact(3, key_id=None, size_bytes=2**40),
        artifact(4, owner="bob"),
        artifact(5, tenant="other"),
    )
    assert await rows.used("acme") == 30 + 2**40
    assert await rows.used("acme", key_id="key_1") == 20
    assert await rows.used("acme", owner="ann") == 20 + 2**40
    assert await rows.used("acme", owner="ann", keyless=True) == 2**40
    assert await rows.used("nobody") == 0
    assert await rows.stored_bytes() == 30 + 2**40


async def test_a_client_that_leaves_does_not_leave_half(rows: ArtifactRows) -> None:
    putting = asyncio.create_task(rows.add(artifact(), "k", NOW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await rows.settle()
    assert await rows.get(artifact().id) == artifact()
