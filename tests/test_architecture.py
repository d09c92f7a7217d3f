"""The rules of the house, held by a test: who may import whom, what modules are called, how long they get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import KINDS
from gateway.config import load
from tests.process import ROOT

PACKAGES = ("compat", "backends", "gateway")
LINES_MAX = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}
LITESTAR = ("gateway/api/", "gateway/app.py", "gateway/auth/guard.py")
SQL = ("gateway/db/",)


def modules(*packages: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


def package_of(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("path", modules("compat"), ids=str)
def test_compat_imports_msgspec_and_the_standard_library_only(path: Path) -> None:
    for name in imports(path):
        assert package_of(name) in {"compat", "msgspec"} | sys.stdlib_module_names, name
        assert package_of(name) not in {"asyncio", "socket", "os", "pathlib", "subprocess"}, f"{name}: no I/O"


@pytest.mark.parametrize("path", modules("backends"), ids=str)
def test_backends_know_nothing_of_the_gateway(path: Path) -> None:
    assert "gateway" not in {package_of(name) for name in imports(path)}


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=str)
def test_litestar_and_sql_stay_in_their_rooms(path: Path) -> None:
    found = {package_of(name) for name in imports(path)}
    if not str(path).startswith(LITESTAR):
        assert not found & {"litestar", "starlette", "sse_starlette"}
    if not str(path).startswith(SQL):
        assert not found & {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "advanced_alchemy"}
    assert "tests" not in found


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=str)
def test_a_module_is_short_and_has_a_name_that_says_something(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= LINES_MAX
    assert path.stem not in VAGUE
    assert len(path.parts) <= 5, "two folders deep"


@pytest.mark.parametrize("path", [path for path in modules(*PACKAGES) if (ROOT / path).stat().st_size], ids=str)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert "versions" in path.parts or ast.get_docstring(ast.parse((ROOT / path).read_text())), "a docstring"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_backend_is_named_in_its_own_module_and_in_the_table_of_kinds_only(kind: str) -> None:
    """Adding a provider is one module and one line.  The local models' own files are read by discovery, and what the
    configuration says of them is held against what was found."""
    own = KINDS[kind]
    for path in modules(*PACKAGES):
        named = {name for name in imports(path) if name == own or name.startswith(f"{own}.")}
        inside = str(path).startswith(own.replace(".", "/"))
        allowed = (
            {"backends.local"}
            if path.with_suffix("").parts[:2] in {("gateway", "discovery"), ("gateway", "findings")}
            else set()
        )
        assert inside or named <= allowed | {n for n in named if any(n.startswith(f"{a}.") for a in allowed)}, path


def test_no_dialect_of_a_database_comes_along_before_one_is_open() -> None:
    program = "import sys, gateway.app; print([m for m in sys.modules if m.startswith('sqlalchemy.dialects.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "module", ["compat.openai.chat", "compat.native", "backends.base", "backends", "gateway.config"]
)
def test_importing_has_no_side_effects_and_is_quick(module: str) -> None:
    """No SDK, no server and no database comes along; nothing is printed."""
    heavy = ["openai", "anthropic", "litestar", "sqlalchemy", "aiohttp", "huggingface_hub", "uvicorn", "xllamacpp"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_defaults_load_without_any_environment() -> None:
    assert load(None, {}).backends


def test_no_file_names_a_registry_host_or_a_machines_path() -> None:
    # Put together here, so that this file passes its own test.
    hosts = ["pypi" + ".org", "files.python" + "hosted", "/ro" + "ot/", "/work/" + "main", "registry.npm" + "js"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in listed:
        if (ROOT / name).suffix in {".py", ".txt", ".in", ".toml", ".yaml", ".md", ".json", ".sh", ".mjs", ""}:
            text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
            assert not [host for host in hosts if host in text], name
