"""A backup taken under load, and what is there when it is restored elsewhere."""

import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.deployment.conftest import config
from tests.gateway.artifacts.test_running import picture
from tests.gateway.db.postgres import cluster, programs
from tests.http import CHAT, chat, until
from tests.process import ROOT, Gateway, gateway
from tests.provider import Provider

PICTURE = picture()
ADMIN_KEY = "admin-key-canary-of-the-backup"


def _config(upstream: Provider) -> dict[str, Any]:
    tree = config(upstream.url)
    tree["auth"]["keys"].append({"name": "root", "key": ADMIN_KEY, "scopes": ["admin"]})
    return tree


class Load(threading.Thread):
    """Asks without a pause, with a key that was issued."""

    def __init__(self, running: Gateway) -> None:
        super().__init__(daemon=True)
        self._url = running.url
        self.key = _issued(running, "before")
        self.asked = 0
        self.statuses: set[int] = set()
        self.over = threading.Event()

    def run(self) -> None:
        with httpx2.Client(headers={"authorization": f"Bearer {self.key}"}, timeout=30, verify=False) as http:
            while not self.over.is_set():
                self.statuses.add(http.post(f"{self._url}{CHAT}", json=chat("fake/fake")).status_code)
                self.asked += 1


def test_a_backup_under_load_is_whole_and_restores_elsewhere(upstream: Provider, tmp_path: Path) -> None:
    live, restored, target = tmp_path / "live", tmp_path / "restored", tmp_path / "backup"
    for folder in (live, restored / "data"):
        folder.mkdir(parents=True)
    with gateway(live, _config(upstream)) as running:
        load = Load(running)
        load.start()
        until(lambda: _rows(live / "data") >= 50, 30)
        before = _rows(live / "data")
        kept = httpx2.post(
            f"{running.url}/v1/artifacts", content=PICTURE, headers={"x-api-key": load.key}, verify=False, timeout=30
        ).json()["id"]
        command = [sys.executable, str(ROOT / "deploy/backup.py"), str(live / "data"), str(target)]
        subprocess.run([*command, str(live / "config.yaml")], check=True, timeout=60)
        assert "File exists" in _refused(*command)  # not twice
        later = _issued(running, "later")
        load.over.set()
        load.join(30)
        assert load.statuses == {200}
    assert {file.name for file in target.iterdir()} == {"gateway.db", "secrets.json", "config.yaml", "artifacts"}
    files = [path for path in target.rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700

    for name in ("gateway.db", "secrets.json"):
        shutil.copy(target / name, restored / "data")
    shutil.copytree(target / "artifacts", restored / "data" / "artifacts")
    with gateway(restored, _config(upstream)) as running:
        assert before <= _rows(restored / "data") <= load.asked
        with httpx2.Client(base_url=running.url, timeout=30, verify=False) as http:
            assert http.post(CHAT, json=chat("auto"), headers={"x-api-key": load.key}).status_code == 200
            assert http.post(CHAT, json=chat("auto"), headers={"x-api-key": later}).status_code == 401
            picture = http.get(f"/v1/artifacts/{kept}/content", headers={"x-api-key": load.key})
            assert picture.content == PICTURE
            names = {key["name"] for key in http.get("/v1/keys", headers={"x-api-key": ADMIN_KEY}).json()["data"]}
            assert "before" in names
            assert "later" not in names


def test_without_its_secrets_issued_keys_are_worth_nothing(upstream: Provider, tmp_path: Path) -> None:
    # What the page on backups warns of: a database alone lets nobody in who was given a key.
    with gateway(tmp_path, _config(upstream)) as running:
        key = _issued(running, "app-2")
    (tmp_path / "data" / "secrets.json").unlink()
    with gateway(tmp_path, _config(upstream)) as running, httpx2.Client(base_url=running.url, verify=False) as http:
        assert http.post(CHAT, json=chat("auto"), headers={"x-api-key": key}, timeout=30).status_code == 401


def test_what_is_named_and_missing_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    command, target = [sys.executable, str(ROOT / "deploy/backup.py")], tmp_path / "backup"
    assert "gateway.db" in _refused(*command, str(tmp_path), str(target))
    (tmp_path / "gateway.db").touch()
    assert "config.yml" in _refused(*command, str(tmp_path), str(target), str(tmp_path / "config.yml"))
    assert not target.exists()


def _refused(*command: str) -> str:
    """What it says in one line."""
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    return done.stderr


def _issued(running: Gateway, name: str) -> str:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    answer = httpx2.post(f"{running.url}/v1/keys", json={"name": name}, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def _rows(data: Path) -> int:
    with closing(sqlite3.connect(data / "gateway.db", timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM usage").fetchone()[0])


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_a_dump_of_postgresql_under_load_restores_elsewhere(upstream: Provider, tmp_path: Path) -> None:
    live, restored, dump = tmp_path / "live", tmp_path / "restored", tmp_path / "gateway.dump"
    for folder in (live, restored / "data"):
        folder.mkdir(parents=True)
    with cluster() as url:
        plain = url.replace("+asyncpg", "")
        with gateway(live, _config(upstream) | {"database": {"url": url}}) as running:
            load = Load(running)
            load.start()
            until(lambda: load.asked >= 100, 30)
            _run("pg_dump", "--format=custom", f"--file={dump}", plain)
            later = _issued(running, "later")
            load.over.set()
            load.join(30)
            assert load.statuses == {200}
        _run("psql", "--quiet", "--command=CREATE DATABASE restored", plain)
        elsewhere = url.rpartition("/")[0] + "/restored"
        _run("pg_restore", "--no-owner", f"--dbname={elsewhere.replace('+asyncpg', '')}", str(dump))
        shutil.copy(live / "data" / "secrets.json", restored / "data")
        with gateway(restored, _config(upstream) | {"database": {"url": elsewhere}}) as running:
            for key, status in ((load.key, 200), (later, 401)):
                answer = httpx2.post(f"{running.url}{CHAT}", json=chat("auto"), headers={"x-api-key": key}, timeout=30)
                assert answer.status_code == status


def _run(program: str, *arguments: str) -> None:
    folder = programs()
    assert folder is not None
    subprocess.run([str(folder / program), *arguments], check=True, timeout=60)
