"""The types that openapi-typescript makes from the gateway's own document, and a program that is held to them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.node import INSTALL_S, install

HERE = Path(__file__).parent / "node"


@pytest.mark.timeout(INSTALL_S)  # the first run installs the packages
def test_a_typed_program_may_be_written_for_the_gateway(document: Path, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    install(HERE)
    programs = HERE / "node_modules" / ".bin"
    types = tmp_path / "api.d.ts"
    settings = {"compilerOptions": {"strict": True, "noEmit": True, "lib": ["es2022", "dom"], "module": "esnext"}}
    settings["compilerOptions"] |= {"moduleResolution": "bundler", "types": []}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings | {"files": ["tour.ts"]}))
    (tmp_path / "tour.ts").write_bytes((HERE / "tour.ts").read_bytes())
    # Else every field of a request with a default would have to be given.
    generating = ["openapi-typescript", document, "--default-non-nullable=false", "-o", types]
    for name, *options in (generating, ["tsc", "-p", tmp_path]):
        done = subprocess.run(
            [str(programs / str(name)), *map(str, options)], capture_output=True, encoding="utf-8", timeout=100
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "export interface operations" in types.read_text()


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (HERE / "package-lock.json").read_text()
