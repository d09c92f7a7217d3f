"""Cleaning up: told before it is done, never outside the folder, and whole again after a death at any moment."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.registry.entry import Version
from gateway.storage import disk
from gateway.storage.retention import Kind
from tests.gateway.storage.stage import DAY_S, Stage, job

MODELS = ("one", "two", "three")


class Killed(BaseException):
    """Instead of kill -9: nothing catches it."""


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the storage take it to be so many days later."""
    real = time.time

    def set_to(days: float) -> None:
        monkeypatch.setattr("gateway.storage.time.time", lambda: real() + days * DAY_S)

    return set_to


async def mixed(folder: Path, **settings: Any) -> Stage:
    stage = await Stage(folder, **settings).open()
    await stage.model("served", 10, used_days=0.5, commits=("c2", "c1"))
    await stage.model("cut", 10, used_days=0.5)
    (stage.root / "org--cut/c1/cut.gguf").write_bytes(b"short")
    stage.file("org--left/c1/left.gguf.part", 7)
    stage.file("org--left/c1/left.gguf.part.json", 2)
    stage.file("org--left/c1/config.json", 3)
    stage.file("org--going/c1/going.gguf.part", 4)
    stage.file("org--served/c2/stray.bin", 5)
    stage.jobs = [job("job_1", "org/going", "local/going", status="paused")]
    return stage


async def test_what_lies_there_is_told_as_what_it_is(tmp_path: Path) -> None:
    stage = await mixed(tmp_path, model_bytes_max=1000)
    report = await stage.storage.survey()
    assert (report.models_bytes, report.partials_bytes, report.orphans_bytes) == (25, 16, 5)
    assert (report.limit_bytes, report.min_free_bytes, report.keep, report.root) == (1000, 0, "all", None)
    assert report.disk_bytes > report.free_bytes > 0
    served, cut = report.models[1], report.models[0]
    assert (served.id, served.size_bytes, served.files, served.status) == ("local/served", 20, 2, "here")
    assert [(v.commit, v.served, v.truncated) for v in served.versions] == [("c2", True, False), ("c1", False, False)]
    assert [v.truncated for v in cut.versions] == [True]
    assert {(one.path, one.job, one.size_bytes) for one in report.partials} == {
        ("org--left/c1", None, 12),
        ("org--going/c1/going.gguf.part", "job_1", 4),
    }
    assert [one.path for one in report.orphans] == ["org--served/c2/stray.bin"]
    others = await stage.storage.survey(tenant="another")
    assert {one.job for one in others.partials} == {None}


async def test_a_dry_run_says_what_would_go_and_the_run_does_just_that(tmp_path: Path, later: Any) -> None:
    stage = await mixed(tmp_path)
    later(8)
    before = stage.left()
    would = await stage.storage.clean(dry_run=True)
    assert stage.left() == before
    assert (would.dry_run, stage.renewed) == (True, 0)
    assert [(one.kind, one.path, one.size_bytes, one.model) for one in would.removed] == [
        ("truncated", "org--cut/c1/cut.gguf", 5, "local/cut"),
        ("partial", "org--left/c1", 12, None),
        ("orphan", "org--served/c2/stray.bin", 5, None),
    ]
    assert would.total_bytes == 22
    assert all(one.reason for one in would.removed)
    did = await stage.storage.clean(dry_run=False)
    assert (did.removed, did.total_bytes) == (would.removed, would.total_bytes)
    assert stage.left() == {
        "org--served/c2/served.gguf",
        "org--served/c1/served.gguf",
        "org--going/c1/going.gguf.part",
    }
    cut = stage.rows.kept["local/cut"]
    assert (cut.status, cut.path) == ("registered", None)
    assert "shorter" in (cut.reason or "")
    assert (await stage.storage.clean(dry_run=False)).removed == []


@pytest.mark.parametrize(("kind", "gone"), [("version", "org--served/c1/served.gguf"), ("partial", None)])
async def test_only_what_is_asked_for_goes(tmp_path: Path, kind: Kind, gone: str | None) -> None:
    stage = await mixed(tmp_path)
    before = stage.left()
    await stage.storage.clean(dry_run=False, kinds=[kind])
    assert before - stage.left() == ({gone} if gone else set())
    assert stage.rows.kept["local/served"].status == "ready"
    assert len(stage.rows.kept["local/served"].versions) == (1 if kind == "version" else 2)


async def test_what_came_a_moment_ago_is_nobodys_orphan_yet(tmp_path: Path) -> None:
    stage = await mixed(tmp_path)
    would = await stage.storage.clean(dry_run=True)
    assert [one.kind for one in would.removed] == ["truncated"]


async def test_links_are_removed_and_never_followed(tmp_path: Path, later: Any) -> None:
    stage = await Stage(tmp_path).open()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.gguf").write_bytes(b"precious")
    stage.file("org--a/c1/a.gguf", 1)
    (stage.root / "org--a/c1/link.gguf").symlink_to(outside / "precious.gguf")
    (stage.root / "org--b").symlink_to(outside)
    path = str(stage.root / "org--b/precious.gguf")
    entry = await stage.model("c", 1, used_days=1)
    version = Version(commit="c9", path=path, files=(path,), size_bytes=8, added_at=0.0)
    await stage.entries.put(replace(entry, versions=(*entry.versions, version)))
    later(100)
    report = await stage.storage.survey()
    assert report.orphans_bytes == 1
    gone = await stage.storage.clean(dry_run=False, kinds=["version", "orphan"])
    assert {one.path for one in gone.removed} == {"org--a/c1/a.gguf", "org--a/c1/link.gguf", "org--b"}
    assert (outside / "precious.gguf").read_bytes() == b"precious"
    # Where a folder becomes a link after it was looked at, what is behind it stays as well.
    (stage.root / "org--d").symlink_to(outside)
    assert disk.unlink(stage.root, ["org--d/precious.gguf"]) == ["org--d/precious.gguf"]
    assert (outside / "precious.gguf").read_bytes() == b"precious"


async def test_a_file_that_two_versions_have_takes_its_room_once(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    entry = await stage.model("m", 40, used_days=1, commits=("c2", "c1"))
    new, old = (Path(version.path) for version in entry.versions)
    old.unlink()
    os.link(new, old)
    assert (await stage.storage.survey()).models_bytes == 40
    gone = await stage.storage.clean(dry_run=False, kinds=["version"])
    assert (gone.total_bytes, new.stat().st_size, old.exists()) == (0, 40, False)


async def test_models_that_share_a_file_go_together_or_not_at_all(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=50, keep="lru").open()
    entry = await stage.model("m", 40, used_days=9)
    await stage.entries.put(replace(entry, name="alias", last_used_at=None))
    stage.pool.status = {"alias": "busy"}
    with pytest.raises(Exception, match="No room"):
        await stage.storage.reserve("job", 20)
    stage.pool.status = {}
    await stage.storage.reserve("job", 20)
    assert {one.status for one in stage.rows.kept.values()} == {"registered"}
    assert stage.left() == set()


async def test_what_was_found_and_not_downloaded_is_never_removed(tmp_path: Path, later: Any) -> None:
    stage = await Stage(tmp_path, keep="lru", model_bytes_max=10).open()
    entry = await stage.model("m", 10)
    stage.file("org--m/c1/m-00002-of-00002.gguf", 10)
    await stage.entries.put(replace(entry, versions=()))
    elsewhere = tmp_path / "mine.gguf"
    elsewhere.write_bytes(b"mine")
    await stage.entries.put(replace(entry, name="own", path=str(elsewhere), versions=()))
    later(400)
    assert (await stage.storage.clean(dry_run=False)).removed == []
    assert (len(stage.left()), elsewhere.exists()) == (2, True)


async def test_what_another_gateway_on_the_same_database_has_registered_is_no_orphan(
    tmp_path: Path, later: Any
) -> None:
    stage = await Stage(tmp_path, unused_days=30, keep="lru", model_bytes_max=15).open()
    other = await Stage(tmp_path, stage.rows).open()
    await other.model("theirs", 10)
    later(400)
    assert (await stage.storage.clean(dry_run=False)).removed == []
    with pytest.raises(Exception, match="No room"):
        await stage.storage.reserve("job", 10)
    assert stage.left() == {"org--theirs/c1/theirs.gguf"}


@pytest.mark.parametrize("step", range(16))
async def test_after_a_death_at_any_moment_each_model_is_here_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    steps = 0

    def counted(work: Any) -> Any:
        def perhaps(*given: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > step:
                raise Killed
            return work(*given, **named)

        return perhaps

    stage = await Stage(tmp_path, model_bytes_max=100, keep="lru").open()
    for n, name in enumerate(MODELS):
        await stage.model(name, 30, used_days=n + 1, commits=("c2", "c1"))
    with monkeypatch.context() as patched:
        for name in ("write_down", "strike"):
            patched.setattr(disk, name, counted(getattr(disk, name)))
        patched.setattr(stage.rows, "put", counted(stage.rows.put))
        patched.setattr(stage.house, "renew", counted(stage.house.renew))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        try:
            await stage.storage.reserve("job", 90)
        except Killed:
            assert steps > step
        else:
            assert steps <= step

    again = await Stage(tmp_path, stage.rows, model_bytes_max=100, keep="lru").open()
    await again.storage._finish()
    assert disk.unfinished(again.root) == []
    registered = {path for entry in again.rows.kept.values() for version in entry.versions for path in version.files}
    assert {str(again.root / path) for path in again.left()} == registered
    assert all(one.versions[0].size_bytes == 30 for one in (await again.storage.survey()).models)
    for entry in again.rows.kept.values():
        assert (entry.status == "ready") == (entry.path is not None)


async def test_what_is_fetched_again_by_then_is_not_removed_after_all(tmp_path: Path) -> None:
    stage = await Stage(tmp_path).open()
    await stage.model("m", 10)
    stage.file("org--n/c1/n.gguf", 10)
    assert disk.write_down(stage.root, ["org--m/c1/m.gguf", "org--n/c1/n.gguf"]) is not None
    stage.jobs = [job("job_1", "org/n", "local/n")]
    await stage.storage._finish()
    assert stage.left() == {"org--m/c1/m.gguf", "org--n/c1/n.gguf"}
    assert disk.unfinished(stage.root) == []


async def test_on_a_disk_without_room_for_a_note_what_is_to_go_still_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = await Stage(tmp_path, model_bytes_max=10, keep="lru").open()
    await stage.model("m", 10, used_days=3)
    stage.rows.failure = OSError(errno.ENOSPC, "No space left on device")
    real = disk.unlink

    def unlink(*given: Any) -> list[str]:
        stage.rows.failure = None
        return real(*given)

    monkeypatch.setattr(disk, "write_down", lambda *_: None)
    monkeypatch.setattr(disk, "unlink", unlink)
    await stage.storage.reserve("job", 10)
    assert stage.left() == set()
    assert stage.rows.kept["local/m"].status == "registered"


async def test_the_watch_removes_what_has_become_too_old_and_nothing_else(tmp_path: Path, later: Any) -> None:
    stage = await mixed(tmp_path, unused_days=30, keep="lru", model_bytes_max=1)
    before = stage.left()
    later(8)
    await stage.storage._age()
    gone = {"org--left/c1/" + name for name in ("left.gguf.part", "left.gguf.part.json", "config.json")}
    assert before - stage.left() == gone | {"org--served/c1/served.gguf"}
    later(31)
    await stage.storage._age()
    assert stage.left() == {"org--cut/c1/cut.gguf", "org--going/c1/going.gguf.part", "org--served/c2/stray.bin"}
    assert stage.storage.removed == {"partial": 1, "version": 1, "model": 1}
