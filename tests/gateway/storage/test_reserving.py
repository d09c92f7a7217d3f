"""Room for a download: within the limit, beside what others were promised, made by what was not used for longest."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compat.canonical.error import InsufficientStorage
from tests.gateway.storage.stage import Stage, job
from tests.process import ROOT

HOLDER = """
import asyncio, sys, time
from pathlib import Path
from gateway.storage.holds import Holds
async def main():
    root, holds = Path(sys.argv[1]), Holds()
    async with holds.alone(root):
        holds.put("theirs", int(sys.argv[2]))
        holds.write(root)
    print("held", flush=True)
    time.sleep(60)
asyncio.run(main())
"""


async def test_what_fits_is_promised_and_counts_until_it_is_released(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    await stage.storage.reserve("one", 60)
    with pytest.raises(InsufficientStorage) as refused:
        await stage.storage.reserve("two", 50)
    said = refused.value.message
    assert "50 bytes more are wanted" in said
    assert "60 bytes are reserved for other downloads" in said
    assert str(tmp_path) not in said
    await stage.storage.reserve("one", 50)
    await stage.storage.reserve("two", 50)
    stage.storage.release("one")
    await stage.storage.reserve("three", 50)


async def test_what_has_come_of_a_promise_is_counted_once(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    await stage.storage.reserve("job_1", 60)
    stage.file("org--a/c1/a.gguf.part", 50)
    stage.jobs = [job("job_1", "org/a", "local/a", bytes_total=60, bytes_done=50)]
    await stage.storage.reserve("job_2", 40)
    assert stage.storage.figures["reserved"] == 50


async def test_the_least_used_makes_room_and_stays_registered(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100, keep="lru").open()
    await stage.model("old", 40, used_days=9)
    await stage.model("never", 10, added_days=20)
    await stage.model("new", 40, used_days=1)
    await stage.storage.reserve("job", 30)
    assert stage.left() == {"org--new/c1/new.gguf"}
    assert stage.renewed == 1
    for name in ("old", "never"):
        entry = stage.rows.kept[f"local/{name}"]
        assert (entry.status, entry.path, entry.versions) == ("registered", None, ())
        assert entry.source is not None
        assert entry.source.repo == f"org/{name}"
    assert not (stage.root / "org--old").exists()
    assert stage.storage.removed == {"model": 2}


async def test_where_nothing_may_go_it_is_refused_and_nothing_goes(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100, keep="lru", pin=["pinned-*"]).open()
    await stage.model("pinned-one", 20, used_days=50)
    await stage.model("marked", 20, used_days=50, pinned=True)
    await stage.model("loaded", 20, used_days=50)
    await stage.model("wanted", 20, used_days=50)
    await stage.model("coming", 10, used_days=50)
    await stage.model("given", 5, used_days=50, source=None)
    await stage.model("free", 5, used_days=1)
    stage.pool.status = {"loaded": "ready", "wanted": "queued"}
    stage.jobs = [job("job_9", "org/coming", "local/coming")]
    before = stage.left()
    with pytest.raises(InsufficientStorage) as refused:
        await stage.storage.reserve("job", 10)
    assert "100 bytes of the 100 bytes they may" in refused.value.message
    assert (stage.left(), stage.renewed) == (before, 0)
    await stage.storage.reserve("job", 5)
    assert before - stage.left() == {"org--free/c1/free.gguf"}


async def test_without_a_policy_that_makes_room_it_is_refused_with_what_would_help(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    await stage.model("old", 90, used_days=900)
    with pytest.raises(InsufficientStorage, match=r"storage\.keep set to lru"):
        await stage.storage.reserve("job", 20)
    assert len(stage.left()) == 1


async def test_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, min_free_bytes="1MiB").open()
    with pytest.raises(InsufficientStorage, match=r"1\.0 MiB stay free \(storage\.min_free_bytes\)"):
        await stage.storage.reserve("job", 1 << 60)


async def test_a_model_that_comes_into_use_while_it_is_to_go_stays_and_the_next_one_goes(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100, keep="lru").open()
    await stage.model("old", 50, used_days=9)
    await stage.model("new", 50, used_days=1)

    async def somebody_asks() -> None:
        stage.pool.status = {"old": "loading"}

    stage.house.renew = somebody_asks
    await stage.storage.reserve("job", 10)
    assert stage.left() == {"org--old/c1/old.gguf"}
    entry = stage.rows.kept["local/old"]
    assert (entry.status, entry.path is None, len(entry.versions)) == ("ready", False, 1)
    assert stage.rows.kept["local/new"].status == "registered"


async def test_of_many_who_want_the_last_room_one_gets_it(tmp_path: Path) -> None:
    rows = await Stage(tmp_path).open()
    stages = [await Stage(tmp_path, rows.rows, model_bytes_max=100).open() for _ in range(3)]
    tries = [stage.storage.reserve(f"job_{n}", 60) for n, stage in enumerate(stages * 3)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(one is None for one in outcomes) == 1
    assert sum(isinstance(one, InsufficientStorage) for one in outcomes) == 8


async def test_another_process_counts_as_long_as_it_lives(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    command = [sys.executable, "-c", HOLDER, str(stage.root), "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220  read in a thread
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == b"held\n"
        with pytest.raises(InsufficientStorage):
            await stage.storage.reserve("ours", 60)
        os.kill(other.pid, signal.SIGKILL)
    await stage.storage.reserve("ours", 60)


async def test_who_gives_up_waiting_holds_nothing(tmp_path: Path) -> None:
    stage = await Stage(tmp_path, model_bytes_max=100).open()
    task = asyncio.create_task(stage.storage.reserve("one", 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while stage.storage._working:
            await asyncio.sleep(0.01)
    await stage.storage.reserve("two", 60)
