"""A running gateway takes up what comes into its model folders, and lets go of what goes."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import openai
import pytest

from gateway import embedded
from gateway.config import decode
from gateway.discovery import watch as watching
from gateway.house import House
from tests.gateway.discovery import write
from tests.gateway.test_reload import QUICK, Reloading
from tests.http import until
from tests.process import Gateway, gateway

SHIPPED = Path(embedded.models("local", Path())["smollm2-135m-instruct"].path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watch")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Reloading]:
    local = {"kind": "local", "threads": 1, "slots": 1, "context_max": 512, "model_dirs": [str(folder / "models")]}
    base = {"data_dir": str(folder / "data"), "server": {"port": 0}, "backends": {"local": local}}
    with gateway(folder, base, prelude=QUICK) as one:
        yield Reloading(one, base)


def listed(running: Gateway) -> set[str]:
    answer = httpx2.get(f"{running.url}/v1/models", timeout=10).json()
    return {one["id"] for one in answer["data"] if one.get("status") != "missing"}


def comes(running: Gateway, name: str, timeout_s: float = 8.0) -> None:
    until(lambda: name in listed(running), timeout_s)


def goes(running: Gateway, name: str, timeout_s: float = 8.0) -> None:
    until(lambda: name not in listed(running), timeout_s)


def ask(running: Gateway, model: str, **more: Any) -> Any:
    sdk = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    return sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi."}], **more)


def test_a_file_put_into_a_folder_that_comes_later_is_served_and_a_stream_outlives_its_removal(
    running: Reloading, folder: Path
) -> None:
    (folder / "models").mkdir(exist_ok=True)
    path = folder / "models" / "Dropped.gguf"
    shutil.copyfile(SHIPPED, path)
    comes(running.gateway, "local/dropped")
    story = ask(running.gateway, "local/dropped", max_tokens=40, temperature=0, stream=True)
    next(story)
    path.unlink()
    goes(running.gateway, "local/dropped")
    assert [chunk.choices[0].finish_reason for chunk in story if chunk.choices][-1] in ("length", "stop")


def test_a_file_that_is_still_being_copied_is_served_when_it_is_whole_and_told_of_if_it_never_is(
    running: Reloading, folder: Path
) -> None:
    (folder / "models").mkdir(exist_ok=True)
    since = len(running.gateway.lines)
    content = SHIPPED.read_bytes()
    with (folder / "models" / "slow.gguf").open("wb") as copy:
        for n in range(10):
            copy.write(content[n * len(content) // 10 : (n + 1) * len(content) // 10])
            copy.flush()
            if n == 4:
                time.sleep(1.3)
                assert "local/slow" not in listed(running.gateway)
    comes(running.gateway, "local/slow")
    (folder / "models" / "broken.gguf").write_bytes(content[:9_000_000])
    problem = running.gateway.wait_for("model_refused", since=since)
    assert (problem["kind"], Path(problem["path"]).name) == ("truncated", "broken.gguf")
    assert "local/broken" not in listed(running.gateway)
    (folder / "models" / "slow.gguf").unlink()
    goes(running.gateway, "local/slow")
    # It is told of once, however often it is looked at.
    assert len([line for line in running.gateway.log[since:] if line.get("event") == "model_refused"]) == 1


def test_a_reload_that_names_other_folders_has_those_watched(running: Reloading, folder: Path) -> None:
    (folder / "others").mkdir()
    local = running.base["backends"]["local"]
    running.write(backends={"local": local | {"model_dirs": [str(folder / "others")]}})
    running.outcome("config_reloaded")
    write(folder / "aside" / "new.gguf")
    (folder / "aside" / "new.gguf").rename(folder / "others" / "new.gguf")
    comes(running.gateway, "local/new")
    running.write()
    running.outcome("config_reloaded")
    goes(running.gateway, "local/new")


class Renewed:
    """As much of a house as is watched: counts how often it was renewed."""

    def __init__(self, root: Path) -> None:
        tree: dict[str, Any] = {"data_dir": str(root), "backends": {"local": {"kind": "local"}}}
        tree["backends"]["local"]["model_dirs"] = [str(root / "models")]
        self.estate = self
        self.config = decode(tree, {})
        self.times = 0

    async def renew(self, *, look: bool) -> None:
        assert look
        self.times += 1
        if self.times == 1:
            raise OSError("the disk is gone for a moment")

    async def reaches(self, times: int) -> None:
        async with asyncio.timeout(8):
            while self.times < times:
                await asyncio.sleep(0.02)


async def test_where_the_system_cannot_tell_of_changes_the_folders_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import watchfiles

    def refused(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "awatch", refused)
    monkeypatch.setattr(watching, "QUIET_S", 0.1)
    write(tmp_path / "models" / "old.gguf")
    os.utime(tmp_path / "models" / "old.gguf", (1, 1))
    house = Renewed(tmp_path)
    task = asyncio.create_task(watching.watch(cast(House, house), poll_s=0.2))
    await house.reaches(1)
    os.utime(write(tmp_path / "models" / "new.gguf"), (1, 1))
    await house.reaches(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_watch_ends_at_once_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    house = Renewed(tmp_path)
    task = asyncio.create_task(watching.watch(cast(House, house)))
    await house.reaches(1)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    assert len(asyncio.all_tasks()) == 1
