"""The gateway's OpenAPI document, as `pluggably openapi` prints it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ROOT


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    printing = [sys.executable, "-m", "gateway", "openapi"]
    path.write_bytes(subprocess.run(printing, check=True, stdout=subprocess.PIPE, cwd=ROOT, timeout=60).stdout)
    return path
