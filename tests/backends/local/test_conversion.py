"""A model's file made of what was published: whole or not at all, once, and the same each time."""

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from backends.local import Settings, connect, gguf
from backends.local.conversion import made
from backends.local.worker import Failed
from backends.ports import Ports
from compat.canonical.error import ModelUnavailable
from compat.canonical.event import fold
from compat.canonical.request import EmbeddingRequest
from tests.backends.contract import call
from tests.backends.local.bert import minilm


def digest(path: str) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()


def identity(path: str) -> tuple[int, int]:
    """Changes when the file is written anew."""
    stat = os.stat(path)
    return stat.st_ino, stat.st_mtime_ns


async def test_the_file_is_the_same_each_time_and_says_what_it_is(tmp_path: Path) -> None:
    first, second = minilm(tmp_path / "a"), minilm(tmp_path / "b")
    await asyncio.gather(made(first), made(second))
    assert digest(first.path) == digest(second.path)
    header = gguf.read(first.path)
    assert (header.architecture, header.quantization, header.embeds) == ("bert", "Q8_0", True)
    assert (header.context_length, header.size_bytes) == (512, first.model.size_bytes)
    assert os.listdir(Path(first.path).parent) == [Path(first.path).name]


async def test_it_is_made_once_however_many_want_it(tmp_path: Path) -> None:
    local = minilm(tmp_path)
    part = Path(local.path).with_name(f".{Path(local.path).name}.part")
    part.parent.mkdir()
    part.write_bytes(b"left behind by a process that was killed")
    await asyncio.gather(*(made(local) for _ in range(3)))
    before = identity(local.path)
    assert os.listdir(part.parent) == [Path(local.path).name]
    await made(local)
    assert identity(local.path) == before


async def test_other_weights_are_refused(tmp_path: Path) -> None:
    local = replace(minilm(tmp_path), sha256="0" * 64)
    with pytest.raises(Failed, match="its weights are not the ones that were published") as failed:
        await made(local)
    assert str(tmp_path) not in failed.value.reason
    assert os.listdir(tmp_path / "models") == []


async def test_who_waits_for_the_model_is_told_why_there_is_none(tmp_path: Path) -> None:
    local = replace(minilm(tmp_path), sha256="0" * 64)
    backend = connect("local", Settings(threads=1), Ports(catalogue=lambda: {local.name: local}))
    try:
        with pytest.raises(ModelUnavailable, match="not the ones that were published"):
            await fold(backend.run(EmbeddingRequest(model=local.name, inputs=("a",)), call()))
    finally:
        await backend.aclose()


async def test_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "roberta", "hidden_act": "gelu"}')
    (folder / "model.py").write_text("raise AssertionError('nothing of the folder is run')")
    local = replace(minilm(tmp_path), made_from=str(folder), sha256=None)
    with pytest.raises(Failed, match="those of another architecture"):
        await made(local)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
async def test_a_full_disk_is_named(tmp_path: Path) -> None:
    local = minilm(tmp_path)
    part = Path(local.path).with_name(f".{Path(local.path).name}.part")
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(Failed, match="the disk is full"):
        await made(local)
    assert os.listdir(part.parent) == []


async def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"a file where a folder should be")
    with pytest.raises(Failed, match="cannot be read or written") as failed:
        await made(minilm(tmp_path))
    assert str(tmp_path) not in failed.value.reason


async def test_whoever_stops_waiting_ends_the_work(tmp_path: Path) -> None:
    local = minilm(tmp_path)
    (tmp_path / "models").mkdir()
    waiting = asyncio.create_task(made(local))
    own = psutil.Process()
    while not own.children():  # nobody tells when a process has been started
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not own.children()
    assert Path(local.path).name not in os.listdir(tmp_path / "models")
