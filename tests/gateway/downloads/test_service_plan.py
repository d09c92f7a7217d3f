"""What is decided before and after a transfer, without one: plans, versions, and what is removed."""

from pathlib import Path

import msgspec
import pytest

from compat.canonical.error import BadResponse, Corrupted, InvalidRequest
from gateway.downloads import landing
from gateway.downloads.piece import part_at
from gateway.downloads.plan import Plan, drawn, read, same
from gateway.hub.choice import Wanted, choose
from gateway.hub.repo import Repo, RepoFile
from tests.gateway.discovery import write

COMMIT, OTHER = "c" * 40, "d" * 40
PARTS = tuple(f"big-Q4_K_M-0000{n}-of-00002.gguf" for n in (1, 2))


def repo(*paths: str, commit: str = COMMIT, sha256: str = "a" * 64, size: int = 100) -> Repo:
    files = tuple(RepoFile(path=path, size_bytes=size, sha256=sha256) for path in paths)
    return Repo(id="acme/noise", commit=commit, revision="main", files=files)


def plan(there: Repo, **wanted: str) -> Plan:
    choice = choose(there, Wanted(repo=there.id, **wanted), memory_bytes=1 << 33)
    return drawn(there, choice, name=None, backend="local", revision=None)


def laid(root: Path, made: Plan, *, short: str | None = None) -> None:
    for file in made.files:
        path = write(made.folder(root) / file.path)
        if file.path == short:
            path.write_bytes(path.read_bytes()[:-64])


def test_a_plan_is_the_same_after_it_was_kept() -> None:
    made = plan(repo(*PARTS))
    assert read(msgspec.json.decode(msgspec.json.encode(made.spec))) == made
    assert [file.path for file in made.files] == list(PARTS)
    assert made.opens == PARTS[0]
    assert "/" not in made.folder(Path("x")).name


def test_any_part_of_a_split_model_means_all_of_it() -> None:
    assert plan(repo(*PARTS), file=PARTS[1]) == plan(repo(*PARTS), file=PARTS[0])


def test_who_wants_the_same_flies_together() -> None:
    one = plan(repo("m.gguf"))
    assert one.flight == plan(repo("m.gguf")).flight
    assert one.flight != plan(repo("m.gguf", commit=OTHER)).flight
    assert one.flight != plan(repo("m.gguf", sha256="b" * 64)).flight
    assert one.flight != msgspec.structs.replace(one, name="other").flight
    assert len(one.flight) <= 200


@pytest.mark.parametrize("path", ["../x.gguf", "/x.gguf", "a\\b.gguf", "a/../b.gguf", "x.gguf.part", "a//b.gguf", "\n"])
def test_a_hub_cannot_have_us_write_elsewhere(path: str) -> None:
    there = repo("m.gguf")
    choice = choose(there, Wanted(repo=there.id), memory_bytes=1 << 33)
    odd = msgspec.structs.replace(choice, files=(RepoFile(path=path, size_bytes=1),))
    with pytest.raises(BadResponse):
        drawn(there, odd, name=None, backend="local", revision=None)


@pytest.mark.parametrize("commit", ["", ".", "..", "../../..", "a/b", "x" * 65, "1.part"])
def test_a_commit_is_one(commit: str) -> None:
    there = repo("m.gguf", commit=commit)
    with pytest.raises(BadResponse):
        plan(there)


def test_what_a_mirror_calls_a_commit_is_a_folder_of_its_own() -> None:
    one, other = (plan(repo("m.gguf", commit=f"release-2024-{n}")) for n in (1, 2))
    assert one.folder(Path("x")) != other.folder(Path("x"))
    old = msgspec.structs.replace(one, repo="gpt2", commit=COMMIT)
    assert old.folder(Path("x")) == Path("x/gpt2") / COMMIT[:12]


def test_only_files_with_a_hash_are_the_same() -> None:
    before, after = repo("a", "b"), repo("a", "b", commit=OTHER)
    assert same(before, after, ("a", "b")) == ("a", "b")
    changed = msgspec.structs.replace(after, files=(after.files[0], RepoFile(path="b", size_bytes=100)))
    assert same(before, changed, ("a", "b", "c")) == ("a",)


def test_a_split_model_lands_whole_or_not_at_all(tmp_path: Path) -> None:
    made = plan(repo(*PARTS))
    laid(tmp_path, made)
    local = landing.landed(made, tmp_path)
    assert (local.name, Path(local.path).name) == (made.name, PARTS[0])
    (made.folder(tmp_path) / PARTS[1]).unlink()
    with pytest.raises(Corrupted) as refused:
        landing.landed(made, tmp_path)
    assert refused.value.code == "model_incomplete"
    assert str(tmp_path) not in refused.value.message


def test_a_file_that_ends_before_its_tensors_is_refused(tmp_path: Path) -> None:
    made = plan(repo("m.gguf"))
    laid(tmp_path, made, short="m.gguf")
    with pytest.raises(Corrupted) as refused:
        landing.landed(made, tmp_path)
    assert refused.value.code == "model_truncated"


def test_code_that_a_description_names_is_refused(tmp_path: Path) -> None:
    made = plan(repo("m.gguf"))
    made = msgspec.structs.replace(made, files=(*made.files, RepoFile(path="config.json", size_bytes=20)))
    laid(tmp_path, made)
    (made.folder(tmp_path) / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    with pytest.raises(InvalidRequest) as refused:
        landing.landed(made, tmp_path)
    assert refused.value.code == "unsafe_repo"


def test_of_the_versions_the_one_in_use_and_the_one_before_are_kept(tmp_path: Path) -> None:
    entry, served = None, []
    for n, digit in enumerate("abc"):
        made = plan(repo("m.gguf", commit=digit * 40))
        laid(tmp_path, made)
        local = landing.landed(made, tmp_path)
        version = landing.version(made, local, tmp_path, float(n))
        entry = landing.serving(entry or made.entry(0.0, tenant="t", owner="o"), version, float(n), made, local)
        served.append(version)
    assert entry is not None
    assert [one.commit[0] for one in entry.versions] == ["c", "b"]
    assert (entry.status, entry.path, entry.version) == ("ready", served[2].path, "c" * 40)
    back = landing.serving(entry, served[1], 9.0)
    assert (back.path, back.version, [one.commit[0] for one in back.versions]) == (
        served[1].path,
        "b" * 40,
        ["c", "b"],
    )


def test_what_is_removed_takes_its_empty_folders_along_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    made = plan(repo("deep/m.gguf"))
    laid(root, made)
    path = made.folder(root) / "deep" / "m.gguf"
    part_at(path).write_bytes(b"x")
    stranger = tmp_path / "mine.gguf"
    stranger.write_bytes(b"x")
    landing.remove([path, stranger], root)
    assert list(root.iterdir()) == []
    assert stranger.exists()


def test_what_is_the_same_as_before_takes_no_room(tmp_path: Path) -> None:
    old = plan(repo("m.gguf"))
    laid(tmp_path, old)
    size = (old.folder(tmp_path) / "m.gguf").stat().st_size
    made = plan(repo("m.gguf", commit=OTHER, size=size))
    landing.reuse(msgspec.structs.replace(made, replaces=COMMIT, unchanged=("m.gguf",)), tmp_path)
    assert (made.folder(tmp_path) / "m.gguf").samefile(old.folder(tmp_path) / "m.gguf")
    assert landing.here(made, tmp_path) == {"m.gguf": size}
