"""A Python client that openapi-python-client makes from the gateway's own document: whole, typed, and it works."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import jsonschema
import pytest

from tests.process import ROOT, Gateway, gateway

TOUR = Path(__file__).with_name("tour.py")
KEY = "generated-client-key-canary-84c1d0"
CONFIG = {
    "auth": {
        "mode": "api_key",
        "keys": [
            {
                "name": "tour",
                "key": KEY,
                "scopes": ["inference", "sessions", "models:read", "models:write", "admin"],
            }
        ],
    },
    "backends": {"fake": {"kind": "fake"}},
    "models": {"auto": {"routes": {"text": ["fake/fake"], "image": ["fake/fake"], "3d": ["fake/fake"]}}},
}


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100, cwd=cwd)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def workshop(document: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, and the program that uses it."""
    folder = tmp_path_factory.mktemp("workshop")
    settings = folder / "settings.json"
    settings.write_text('{"post_hooks": []}')
    options = ["--path", str(document), "--output-path", str(folder / "pluggably_client"), "--config", str(settings)]
    # Every schema and every operation comes through: what the generator has to leave out is a warning.
    run(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning", *options)
    (folder / "tour.py").write_text(TOUR.read_text().removeprefix("# mypy: ignore-errors\n"))
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("toured"), CONFIG) as one:
        yield one


def test_the_client_and_what_uses_it_are_typed(workshop: Path) -> None:
    run(sys.executable, "-m", "mypy", "--config-file=", "--no-incremental", "tour.py", cwd=workshop)


def test_it_speaks_to_every_native_resource(workshop: Path, running: Gateway) -> None:
    said = run(sys.executable, "-W", "error", "tour.py", running.url, KEY, cwd=workshop)
    assert said.split() == re.findall(r"\w+", re.findall(r"^TOUR = \((.*?)\)$", TOUR.read_text(), re.M | re.S)[0])


def test_every_operation_is_in_the_client(document: Path, workshop: Path) -> None:
    paths = json.loads(document.read_text())["paths"]
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    snake = {re.sub(r"([A-Z])", r"_\1", id_).lower() for id_ in ids}
    made = {path.stem for path in (workshop / "pluggably_client" / "api").glob("*/*.py")} - {"__init__"}
    assert made == snake


@pytest.mark.parametrize(
    "path",
    ["/health", "/ready", "/v1/models", "/v1/models/fake%2Ffake", "/v1/providers", "/v1/limits", "/v1/keys",
     "/v1/credentials", "/v1/audit", "/v1/usage", "/v1/usage?group_by=model,day", "/v1/storage", "/v1/jobs",
     "/v1/requests", "/v1/artifacts", "/v1/schema"],
)  # fmt: skip
def test_what_is_answered_is_what_the_document_says(document: Path, running: Gateway, path: str) -> None:
    """Answers that are written as plain objects have types in the document only: they must not part."""
    whole = json.loads(document.read_text())
    answer = httpx2.get(running.url + path, headers={"authorization": f"Bearer {KEY}"}, timeout=10, verify=False)
    assert answer.status_code == 200
    plain = path.partition("?")[0].replace("fake%2Ffake", "{model_id}")
    schema = whole["paths"][plain]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    strict = json.loads(json.dumps(whole["components"]))
    for one in strict["schemas"].values():
        if one.get("type") == "object" and "properties" in one:
            one["additionalProperties"] = one.get("additionalProperties", False)
    jsonschema.validate(answer.json(), {"$ref": f"#/components/schemas/{name}", "components": strict})
