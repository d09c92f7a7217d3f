"""What goes by itself, and what is left after a process was killed in the middle of its work."""

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from compat.canonical.error import NotFound
from gateway.artifacts import Artifacts
from gateway.artifacts.artifact import Artifact
from gateway.artifacts.cleanup import expire, folder_of, sweep
from gateway.artifacts.store import Store
from gateway.db.artifacts import ArtifactRows
from tests.gateway.artifacts.conftest import grant, service
from tests.process import ROOT

KILLS = {"folder": 20, "s3": 3}


async def put(artifacts: Artifacts, data: bytes, tenant: str = "acme", **more: Any) -> Artifact:
    given = {"kind": "file", "mime": "application/octet-stream"} | more
    return await artifacts.put(grant(tenant), data, **given)


async def objects(artifacts: Artifacts) -> set[str]:
    return {one.key async for one in artifacts.store.list()}


async def test_what_has_expired_goes_with_its_bytes_and_what_is_held_stays(
    rows: ArtifactRows, store: Store, artifacts_config: dict[str, Any], artifacts: Artifacts
) -> None:
    brief = service(rows, store, artifacts_config | {"retention_s": 0.001, "grace_s": 0.001})
    over, held = await put(brief, b"over"), await put(brief, b"held")
    shared, lasting = await put(brief, b"shared"), await put(artifacts, b"shared")
    mesh = await put(brief, b"mesh")
    poster = await put(brief, b"poster", parent_id=mesh.id)
    await brief.hold("acme", "ses_1", "ann", [held.id])
    await asyncio.sleep(0.01)
    assert await expire(brief) == 4
    for gone in (over, shared, mesh, poster):
        with pytest.raises(NotFound):
            await artifacts.get("acme", gone.id)
    assert await artifacts.read(held) == b"held"
    assert await artifacts.read(lasting) == b"shared"
    assert len(await objects(artifacts)) == 2
    assert brief.removed["expired"] == 4


async def test_without_retention_nothing_expires(
    rows: ArtifactRows, store: Store, artifacts_config: dict[str, Any], artifacts: Artifacts
) -> None:
    for_ever = service(rows, store, artifacts_config | {"retention_s": None})
    assert (await put(for_ever, b"x")).expires_at is None
    assert await expire(for_ever) == 0


async def test_orphans_go_when_they_are_older_than_their_grace_and_nothing_else_does(artifacts: Artifacts) -> None:
    kept = [await put(artifacts, os.urandom(9), tenant) for tenant in ("acme", "other", "acme")]
    known = await objects(artifacts)
    orphans = {f"{folder_of('acme')}/{n:032x}" for n in range(20)}
    foreign = {"backup.tar", f"{folder_of('acme')}/readme.txt", "some/where/else"}
    for key in orphans | foreign:
        await artifacts.store.put(key, b"left behind")
    assert await sweep(artifacts, 3600) == 0
    assert await objects(artifacts) == known | orphans | foreign
    # A bucket's server tells times to the second.
    assert await sweep(artifacts, -2) == 20
    assert await objects(artifacts) == known | foreign
    for one in kept:
        assert len(await artifacts.read(one)) == 9


async def test_bytes_of_artifacts_that_went_when_the_store_was_away_go_later(artifacts: Artifacts) -> None:
    made = await put(artifacts, b"x")
    # As by a process that was killed after the one and before the other.
    assert await artifacts.rows.delete("acme", made.id) is not None
    assert await expire(artifacts) == 0
    assert len(await objects(artifacts)) == 1
    assert await sweep(artifacts, 3600) == 0
    assert await sweep(artifacts, -2) == 1
    assert await objects(artifacts) == set()


async def test_putting_goes_on_while_all_is_swept_without_any_grace(artifacts: Artifacts) -> None:
    """Of bytes that others have, and delete: whoever was told that they are kept has them."""
    until = time.monotonic() + 1.0
    lasting = await put(artifacts, b"lasting")

    async def write(n: int) -> None:
        while time.monotonic() < until:
            made = await put(artifacts, b"lasting" if n % 2 else b"again")
            if n % 2:
                assert await artifacts.read(made) == b"lasting"
            await artifacts.delete("acme", made.id)

    async def clean() -> None:
        while time.monotonic() < until:
            await expire(artifacts)
            for blob in await artifacts.rows.unused(time.time() + 10):
                await artifacts.free(blob)

    await asyncio.gather(*(write(n) for n in range(4)), clean())
    assert await artifacts.read(lasting) == b"lasting"
    assert len(await objects(artifacts)) == 1


async def test_a_process_that_is_killed_leaves_no_artifact_without_bytes_and_no_bytes_for_good(
    artifacts: Artifacts, artifacts_config: dict[str, Any], place: str, database_url: str
) -> None:
    config = msgspec.json.encode(artifacts_config).decode()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.gateway.artifacts.writer", database_url, config, str(KILLS[place])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.split()
    assert len(told) >= KILLS[place]
    known = {one.id: one for one in await artifacts.page("acme", 100_000)}
    assert set(told) <= set(known), "whoever was told that it is kept finds it"
    for one in known.values():
        await artifacts.read(one)
    await sweep(artifacts, -2)
    blobs = {one.sha256 for one in known.values()}
    assert len(await objects(artifacts)) == len(blobs)
    if artifacts.store.folder is not None:
        files = sum(len(files) for _, _, files in os.walk(artifacts.store.folder))
        assert files == len(blobs), "nothing half-written either"
    for one in known.values():
        await artifacts.read(one)
