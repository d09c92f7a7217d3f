"""On a disk that is full: what has to be kept is refused as such, what has not is answered, and all goes on after."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.exc import DBAPIError

from gateway.db.engine import is_full
from gateway.telemetry.logging import Redactor, Sink
from tests.gateway.conftest import speaking
from tests.gateway.downloads.world import FILE, World, large, repository
from tests.http import CHAT, chat, error_of, text_of, until
from tests.hub import hub
from tests.hub.files import sent as sent_by
from tests.process import gateway

TREE: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "models": {"auto": {"routes": ["fake/fake"]}}}
LONG = "A long story. " * 80_000
"""More than is left anywhere in a database on a disk that is full."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(disk).f_bavail == 0
    return filler


def refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, error_of(answer)["code"]) == (507, "insufficient_storage"), answer.text
    assert "disk is full" in error_of(answer)["message"]


def used(data: Path) -> int:
    """Usage rows in the database."""
    with closing(sqlite3.connect(data / "gateway.db", timeout=10)) as database:
        (count,) = database.execute("SELECT count(*) FROM usage").fetchone()
    return int(count)


def test_inference_goes_on_while_what_must_be_kept_is_refused(disk: Path, tmp_path: Path) -> None:
    with gateway(tmp_path, TREE | {"data_dir": str(disk / "data")}) as running, speaking(running) as http:
        assert http.post(CHAT, json=chat("auto")).status_code == 200
        assert http.post("/v1/keys", json={"name": "before"}).status_code == 201
        filler = fill(disk)
        for _ in range(500):
            answer = http.post("/v1/keys", json={"name": "x" * 60})
            if answer.status_code != 201:
                break
        refused(answer)
        refused(http.post("/v1/responses", json={"model": "auto", "input": LONG}))
        assert http.post("/v1/responses", json={"model": "auto", "input": LONG, "store": False}).status_code == 200
        for _ in range(20):
            assert http.post(CHAT, json=chat("auto")).status_code == 200
        assert text_of(http.post(CHAT, json=chat("auto", stream=True)).content)
        assert http.get("/v1/keys").status_code == 200
        assert http.get("/v1/storage").json()["free_bytes"] == 0
        running.wait_for("usage_write_failed")
        filler.unlink()
        assert http.post("/v1/keys", json={"name": "after"}).status_code == 201
        assert http.post("/v1/responses", json={"model": "auto", "input": LONG}).status_code == 200
        until(lambda: used(disk / "data") >= 25, 10)


@contextmanager
def downloading(disk: Path, tmp_path: Path, **more: Any) -> Iterator[tuple[World, str, Path]]:
    """A download that has begun and met with a disk that is full: its gateway, its job, and what fills the disk."""
    with hub(repository(files={FILE: large(16)})) as beyond:
        tree = TREE | {
            "data_dir": str(disk / "data"),
            "backends": TREE["backends"] | {"local": {"kind": "local"}},
            "hub": {"endpoint": beyond.url, "bytes_per_s": "8MiB", "retries": 0},
            "storage": {"min_free_bytes": 0},
        }
        with gateway(tmp_path, tree | more) as running:
            world = World(running, beyond)
            with closing(world.http):
                id_ = world.begun()
                world.until(id_, lambda job: job["progress"]["bytes_done"] > 2 << 20)
                filler = fill(disk)
                running.wait_for("download_failed", error="InsufficientStorage")
                assert world.post(CHAT, **chat("auto")).status_code == 200
                yield world, id_, filler


def went_on(world: World) -> bool:
    """Whether the file was fetched in two parts, of which the second did not begin at its beginning."""
    begun = [start for path, start, end in sent_by(world.hub) if end > 1 << 20]
    return len(begun) == 2 and begun[1] > 1 << 20


def test_a_download_fails_and_is_gone_on_with_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    elsewhere = {"url": f"sqlite+aiosqlite:///{tmp_path}/gateway.db"}
    with downloading(disk, tmp_path, database=elsewhere) as (world, id_, filler):
        failed = world.ended(id_)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "insufficient_storage")
        filler.unlink()
        assert world.post(f"/v1/jobs/{id_}/resume").status_code == 200
        assert world.ended(id_)["status"] == "done"
        assert went_on(world)


def test_a_download_that_could_not_even_be_said_to_have_failed_goes_on_by_itself(disk: Path, tmp_path: Path) -> None:
    with downloading(disk, tmp_path) as (world, id_, filler):
        filler.unlink()
        ended = world.ended(id_, within_s=30)
        if ended["status"] == "failed":  # there was room for that much
            world.post(f"/v1/jobs/{id_}/resume")
            ended = world.ended(id_)
        assert ended["status"] == "done"
        assert went_on(world)


def test_a_file_that_may_not_grow_is_a_disk_that_is_full(tmp_path: Path) -> None:
    """Without a file system of its own: the process may not write files beyond a size."""
    prelude = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))"
    with gateway(tmp_path, TREE, prelude=prelude) as running, speaking(running) as http:
        refused(http.post("/v1/responses", json={"model": "auto", "input": LONG}))
        assert http.post(CHAT, json=chat("auto")).status_code == 200
        assert http.post("/v1/keys", json={"name": "small"}).status_code == 201


@pytest.mark.parametrize(("state", "full"), [("53100", True), ("53300", False), (None, False)])
def test_a_server_says_by_a_code_of_its_own_that_its_disk_is_full(state: str | None, full: bool) -> None:
    class Refusal(Exception):
        sqlstate = state

    assert is_full(DBAPIError("INSERT …", None, Refusal())) is full


def test_a_log_on_a_full_disk_ends_nothing() -> None:
    out = open("/dev/full", "w")  # noqa: SIM115  closing it fails, as writing does
    sink = Sink(out, Redactor())
    for _ in range(3):
        sink.urgent("x" * 100_000)
        sink.write("a third party's line")
    with suppress(OSError):
        out.close()
