"""Whatever bytes lie in a folder or a cache, it is looked through to its end, and what is sound in it is served."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.discovery import discover
from gateway.discovery.problem import Problem
from tests.gateway.discovery import pipeline, safetensors, sentences, write

HUGE = 10**30
NUMBERS: list[Any] = [0, -1, 1 << 63, HUGE, 1e308, True, None, "7", [], {}]
DEEP = "[" * 5000 + "]" * 5000


def looked_through(root: Path) -> tuple[set[str], list[Problem]]:
    problems: list[Problem] = []
    found = discover("local", [str(root)], root / "data", {}, problems)
    for local in found.values():
        assert 0 <= (local.model.parameters or 0) < 1 << 63
        assert 0 <= (local.model.context_length or 0) < 1 << 63
        assert local.traits.kv_bytes_per_token < 1 << 63
    return {name for name, local in found.items() if local.path.startswith(str(root / "m"))}, problems


@pytest.mark.parametrize("content", ["", "{", "null", DEEP, '{"a":' * 3000 + "1" + "}" * 3000, "\x00", '"\\ud800"'])
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_a_pipeline_whose_descriptions_are_damaged_harms_nobody(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path / "m" / "good.gguf")
    (pipeline(tmp_path / "m" / "drawn") / name).write_text(content)
    served, problems = looked_through(tmp_path)
    assert (served, [problem.kind for problem in problems]) == ({"good"}, ["unreadable"])


@settings(max_examples=60, deadline=None)
@given(field=st.sampled_from(["shape", "data_offsets", "dtype"]), value=st.sampled_from([*NUMBERS, [HUGE], [-1, 8]]))
def test_weights_that_lie_harm_nobody(tmp_path_factory: pytest.TempPathFactory, field: str, value: object) -> None:
    root = tmp_path_factory.mktemp("lies")
    said = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | {field: value}
    head = json.dumps({"w": said, "__metadata__": value}).encode()
    for folder in (pipeline(root / "m" / "drawn") / "unet", sentences(root / "m" / "words")):
        weights = safetensors(folder / "model.safetensors")
        weights.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    looked_through(root)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=40))
def test_weights_of_any_bytes_harm_nobody(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("bytes")
    (pipeline(root / "m" / "drawn") / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    (root / "m" / "x.gguf").write_bytes(b"GGUF" + content)
    assert looked_through(root)[0] <= {"drawn"}


@pytest.mark.parametrize("value", NUMBERS)
def test_a_bert_with_impossible_settings_is_told_of(tmp_path: Path, value: object) -> None:
    sentences(tmp_path / "m" / "words", hidden_size=value)
    served, problems = looked_through(tmp_path)
    assert served == set()
    assert [problem.kind for problem in problems] == ["unreadable"]


def test_a_classless_pipeline_and_parts_of_strange_kinds_are_no_crash(tmp_path: Path) -> None:
    pipeline(tmp_path / "m" / "a", kind=[])  # type: ignore[arg-type]
    pipeline(tmp_path / "m" / "b", unet=[["os"], {}])
    pipeline(tmp_path / "m" / "c", unet=[{"os": 1}])
    served, problems = looked_through(tmp_path)
    assert served == {"a"}
    assert [problem.kind for problem in problems] == ["unsafe", "unsafe"]


def test_a_folder_that_may_not_be_read_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m" / "good.gguf")
    (tmp_path / "m" / "closed").mkdir()
    refuse(monkeypatch, lambda path: path.name == "closed", PermissionError(13, "Permission denied"))
    served, [problem] = looked_through(tmp_path)
    assert served == {"good"}
    assert (problem.kind, Path(problem.path).name) == ("unreadable", "closed")


def test_a_folder_that_vanishes_while_it_is_looked_through_is_not_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m" / "good.gguf")
    (tmp_path / "m" / "gone").mkdir()
    refuse(monkeypatch, lambda path: path.name == "gone", FileNotFoundError(2, "No such file"))
    assert looked_through(tmp_path) == ({"good"}, [])


def refuse(monkeypatch: pytest.MonkeyPatch, which: Callable[[Path], bool], error: OSError) -> None:
    """Have the system refuse to list some folders; as root, nothing is ever refused by their modes."""
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if which(Path(path)):
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
