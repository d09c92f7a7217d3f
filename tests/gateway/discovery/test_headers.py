"""What files say of themselves is read once, as long as they stay as they are."""

import os
import shutil
import time
from pathlib import Path

import pytest

from backends.local import gguf
from gateway import embedded
from gateway.discovery import discover
from gateway.discovery.headers import remembered
from gateway.discovery.problem import Problem
from tests.gateway.discovery import write


class Reads:
    """Counts the files that are opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._read = gguf.read
        monkeypatch.setattr(gguf, "read", self)

    def __call__(self, path: Path) -> gguf.Header:
        self.names.append(path.name)
        return self._read(path)

    def take(self) -> list[str]:
        names, self.names = sorted(self.names), []
        return names


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def look(folder: Path) -> tuple[set[str], list[Problem]]:
    data, problems = folder / "data", list[Problem]()
    data.mkdir(exist_ok=True)
    with remembered(data):
        found = discover("local", [str(folder / "models")], data, {}, problems)
    return {local.name for local in found.values() if local.model.source == f"file:{Path(local.path).name}"}, problems


def test_a_file_is_read_again_only_when_it_is_another(tmp_path: Path, reads: Reads) -> None:
    one, two = write(tmp_path / "models" / "one.gguf"), write(tmp_path / "models" / "two.gguf")
    (tmp_path / "models" / "bad.gguf").write_bytes(b"GGUF and nothing else")
    assert look(tmp_path) == look(tmp_path)
    assert reads.take() == ["bad.gguf", "one.gguf", "two.gguf"]
    os.utime(one, ns=(1, 1))
    write(tmp_path / "three.gguf").replace(two)
    names, problems = look(tmp_path)
    assert (names, [problem.kind for problem in problems]) == ({"one", "two"}, ["unreadable"])
    assert reads.take() == ["one.gguf", "two.gguf"]


def test_what_is_gone_is_forgotten_and_what_is_damaged_is_read_anew(tmp_path: Path, reads: Reads) -> None:
    write(tmp_path / "models" / "one.gguf")
    gone = write(tmp_path / "models" / "gone.gguf")
    look(tmp_path)
    kept = tmp_path / "data" / "cache" / "headers.json"
    assert b"gone.gguf" in kept.read_bytes()
    gone.unlink()
    look(tmp_path)
    assert b"gone.gguf" not in kept.read_bytes()
    reads.take()
    for damage in (b"", b"{", b"[]", kept.read_bytes()[:-9], b'{"format": 0, "files": {}}', b"\xff" * 100):
        kept.write_bytes(damage)
        assert look(tmp_path)[0] == {"one"}
        assert reads.take() == ["one.gguf"]
    assert os.listdir(kept.parent) == [kept.name]


def test_a_folder_that_cannot_be_written_to_costs_time_only(tmp_path: Path, reads: Reads) -> None:
    write(tmp_path / "models" / "one.gguf")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cache").write_text("a file where the folder should be")
    assert look(tmp_path)[0] == look(tmp_path)[0] == {"one"}
    assert reads.take() == ["one.gguf", "one.gguf"]


def test_a_hundred_files_of_real_size_are_found_in_five_seconds_and_then_in_one(tmp_path: Path) -> None:
    shipped = embedded.models("local", tmp_path)["smollm2-135m-instruct"].path
    (tmp_path / "models").mkdir()
    shutil.copyfile(shipped, tmp_path / "models" / "m0.gguf")
    for n in range(1, 100):
        os.link(tmp_path / "models" / "m0.gguf", tmp_path / "models" / f"m{n}.gguf")
    took = []
    for _ in range(2):
        began = time.process_time()  # others may keep this machine busy
        assert len(look(tmp_path)[0]) == 100
        took.append(time.process_time() - began)
    assert took[0] < 5
    assert took[1] < 1
