"""Clients for Node: each program here prints what happened as JSON; fixtures, for conftest files."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.process import Gateway

HERE = Path(__file__).parent
INSTALL_S = 300
Said = dict[str, Any]
"""Case → what came of it; `{"failed": …}` when it threw."""


def install(folder: Path = HERE) -> None:
    """Install from the folder's lock, unless what is there was."""
    lock, mark = folder / "package-lock.json", folder / "node_modules" / ".installed"
    if not mark.exists() or mark.read_bytes() != lock.read_bytes():
        npm = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(npm, cwd=folder, check=True, timeout=INSTALL_S)
        mark.write_bytes(lock.read_bytes())


@pytest.fixture(scope="session")
def node(local_gateway: Gateway, stand_in_gateway: Gateway) -> Callable[[str], Said]:
    """Runs a program by its name, once a session, and gives what it said, case by case."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    install()

    @cache
    def run(name: str) -> Said:
        done = subprocess.run(
            ["node", str(HERE / f"{name}.mjs")],
            env={**os.environ, "LOCAL_URL": local_gateway.url, "STAND_IN_URL": stand_in_gateway.url},
            capture_output=True,
            encoding="utf-8",
            timeout=100,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert done.stderr == ""
        said: Said = json.loads(done.stdout)
        return said

    return run
