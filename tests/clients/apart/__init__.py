"""Clients that need an environment of their own, and programs that use them; fixtures, for conftest files.

The environment is made from `requirements/clients.txt`, once for each version of it, in the user's
cache.  The programs here print what happened as JSON, like those of `tests.clients.node`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.process import ROOT, Gateway

HERE = Path(__file__).parent
LOCK = ROOT / "requirements" / "clients.txt"
INSTALL_S = 600
Said = dict[str, Any]
"""Case → what came of it; `{"failed": …}` when it raised."""


def environment() -> Path:
    """The environment's folder of programs, made first if it is not there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluggably-tests"
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = base / f"clients-{key}"
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs of the tests may start at once
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
            flags = ["--disable-pip-version-check", "--no-deps", "--require-hashes"]
            _run(*pip, *flags, "-r", str(LOCK))
            (folder / "installed").touch()
    return folder / "bin"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_S, capture_output=True, text=True)


@pytest.fixture(scope="session")
def apart_bin() -> Path:
    return environment()


@pytest.fixture(scope="session")
def apart(apart_bin: Path, local_gateway: Gateway, stand_in_gateway: Gateway) -> Callable[[str], Said]:
    """Runs a program by its name, once a session, and gives what it said, case by case."""

    @cache
    def run(name: str) -> Said:
        done = subprocess.run(
            [str(apart_bin / "python"), str(HERE / f"{name}.py")],
            env={**os.environ, "LOCAL_URL": local_gateway.url, "STAND_IN_URL": stand_in_gateway.url},
            capture_output=True,
            encoding="utf-8",
            timeout=100,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        said: Said = json.loads(done.stdout)
        return said

    return run
