"""What is shipped: the wheel, the locks behind it, and the bill of materials of both."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.process import ROOT

BINARIES = Path(sys.executable).parent
PACKAGES = ("gateway", "compat", "backends")
LOCKS = ("lock.txt", "models.txt", "dev.txt", "clients.txt", "llama-cpp-python.txt")
EPOCH = "1577836800"
_pinned = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    own = {name for name in names if ".dist-info/" not in name}
    assert own == set(_files())
    assert {name.rpartition("/")[2] for name in names - own} <= {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE",
    }  # fmt: skip
    for needed in (
        "gateway/__main__.py",
        "gateway/api/swagger/swagger-ui-bundle.js",
        "gateway/api/swagger/LICENSE",
        "gateway/db/migrations/env.py",
        "gateway/db/migrations/versions/0001_models_and_usage.py",
        "compat/sse.py",
        "backends/openai.py",
    ):
        assert needed in names


def test_nothing_in_the_wheel_runs_by_being_installed(wheel: Path) -> None:
    # A .pth file runs at every start of the interpreter: the way a trojaned release of a peer stole its keys.
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    assert not [name for name in names if name.endswith((".pth", ".so", ".exe", ".sh")) or ".data/" in name]
    assert not [name for name in names if name.rpartition("/")[2] in ("sitecustomize.py", "usercustomize.py")]


def test_the_same_sources_make_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    # Elsewhere, later, by somebody with other habits about permissions.
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    for name in _files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        os.utime(target, (1, 1))
    again = _build(copy, tmp_path / "again")
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_pinned_by_hash_and_names_no_place(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#") and entry.strip()]
    assert entries
    for entry in entries:
        assert _pinned.match(entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_bill_of_materials_lists_what_is_locked_and_is_the_same_each_time() -> None:
    locked = "".join((ROOT / "requirements" / name).read_text() for name in ("lock.txt", "models.txt"))
    bill = _bill(locked)
    assert bill == _bill(locked)
    told: dict[str, Any] = json.loads(bill)
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["component"]["name"] == "pluggably"
    listed = {(part["name"], part["version"]) for part in told["components"]}
    assert listed == {(name, version) for name, version in _pinned.findall(locked)}
    for part in told["components"]:
        assert any(reference.get("hashes") for reference in part["externalReferences"]), part["name"]


def _files() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def _build(project: Path, into: Path) -> Path:
    environ = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    subprocess.run(command, cwd=project, env=environ, check=True, capture_output=True)
    (wheel,) = into.glob("*.whl")
    return wheel


def _bill(locked: str) -> bytes:
    """As `make sbom` writes it."""
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", "--no-validate"]
    command += ["--output-reproducible", "--pyproject", str(ROOT / "pyproject.toml"), "-"]
    return subprocess.run(command, input=locked.encode(), check=True, capture_output=True).stdout
