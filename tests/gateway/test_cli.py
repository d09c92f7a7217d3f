"""The command line, as a process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from tests.gateway.conftest import config
from tests.process import ROOT
from tests.provider import Provider


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path, upstream: Provider) -> str:
    path = tmp_path / "config.yaml"
    path.write_bytes(msgspec.yaml.encode(config(upstream.url) | {"data_dir": str(tmp_path)}))
    return str(path)


def test_check_config_says_ok_and_what_there_is(file: str) -> None:
    done = run("check-config", "--config", file)
    assert done.returncode == 0
    assert "ok" in done.stdout
    assert "up" in done.stdout


def test_check_config_takes_the_example() -> None:
    assert run("check-config", "--config", "config.example.yaml").returncode == 0


LOCAL_FAULTS = """
backends:
  local:
    kind: local
    models:
      smollm2-135m-instruct: {defaults: {temprature: 2, top_p: hot, dry_multiplier: 0.5}}
      tiny-shapes: {defaults: {sise: 512x512, size: 7x7, steps: 3}}
"""
LOCAL_ABSENCES = """
backends:
  local:
    kind: local
    model_dirs: [/nonexistent]
    pin: [smollm]
    models:
      smollm2-135m-instruct: {projector: nope.gguf, adapters: [{path: nope.gguf}], defaults: {temperature: 0}}
models: {quick: {routes: [local/nope]}}
"""


def test_check_config_tells_all_defaults_that_no_request_could_have(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(LOCAL_FAULTS)
    done = run("check-config", "--config", str(tmp_path / "config.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    at = "pluggably: backends.local.models."
    said = [line.removeprefix(at).partition(": ") for line in done.stderr.splitlines()]
    assert [(where, what.partition("'")[2]) for where, _, what in said] == [
        ("smollm2-135m-instruct.defaults.temprature", "temperature'?"),
        ("smollm2-135m-instruct.defaults.top_p", "top_p': expected number, but got string instead."),
        ("tiny-shapes.defaults.sise", "size'?"),
        ("tiny-shapes.defaults.size", "size': width and height must be multiples of 8."),
    ]


def test_check_config_warns_of_what_is_named_and_not_here(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(LOCAL_ABSENCES)
    done = run("check-config", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0
    said = [line.partition(": warning: ")[2].partition(": ") for line in done.stderr.splitlines()]
    assert [where for where, _, _ in said] == [
        "backends.local.model_dirs[0]",
        "backends.local.pin[0]",
        "backends.local.models.smollm2-135m-instruct.projector",
        "backends.local.models.smollm2-135m-instruct.adapters[0].path",
        "models.quick.routes[0]",
    ]


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_wrong_file_is_one_line_and_status_1(tmp_path: Path, command: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("servr: {}\n")
    done = run(command, "--config", str(path))
    assert done.returncode == 1
    assert "did you mean 'server'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serving_beyond_loopback_without_auth_is_refused_with_the_cure() -> None:
    done = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert "server.host" in done.stderr
    assert "auth.mode" in done.stderr
    assert "Traceback" not in done.stderr


DATABASES = [
    ("sqlite+aiosqlite:////proc/nothing/x.db", "/proc/nothing"),
    ("sqlite+aiosqlite:////tmp", "unable to open"),
    ("postgresql+asyncpg://u:pw-canary-5521@127.0.0.1:9/x", "Is it running"),
    ("postgresql+asyncpg://u:pw-canary-5521@127.0.0.1:9/x?sslmode=require", "sslmode"),
    ("mysql://u:pw-canary-5521@h/x", "postgresql+asyncpg://"),
    ("postgresql://u:pw-canary-5521@h/x", "postgresql+asyncpg://"),
    ("sqlite:///x.db", "sqlite+aiosqlite:///"),
    ("nonsense", "sqlite+aiosqlite:///"),
]


@pytest.mark.parametrize(("url", "words"), DATABASES)
@pytest.mark.parametrize("command", ["serve", "usage"])
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, command: str, url: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    tree = {"data_dir": str(tmp_path), "backends": {"fake": {"kind": "fake"}}, "server": {"port": 0}}
    path.write_bytes(msgspec.yaml.encode(tree | {"database": {"url": url}}))
    done = run(command, "--config", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pluggably: database.url: ")
    assert words in done.stderr
    assert "canary" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    done = run("serve", "--port", "0", PLUGGABLY__DATA_DIR="/proc/nothing", PLUGGABLY__BACKENDS="{}")
    assert done.returncode == 1
    assert "data_dir must be a folder that can be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line_and_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {mode: api_key}\nbackends: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            "serve", "--config", str(tmp_path / "config.yaml"), "--port", str(port),
            PLUGGABLY__DATA_DIR=str(tmp_path / "data"),
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "--port" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "sk-gw-" not in done.stdout


def test_what_commands_make_is_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run("usage", PLUGGABLY__DATA_DIR=str(tmp_path / "usage"))
        run("keys", "create", "--name", "x", PLUGGABLY__DATA_DIR=str(tmp_path / "keys"))
    finally:
        os.umask(before)
    made = [path for folder in ("usage", "keys") for path in (tmp_path / folder, *(tmp_path / folder).iterdir())]
    assert len(made) >= 5
    assert {path.name: path.stat().st_mode & 0o077 for path in made} == {path.name: 0 for path in made}


def test_the_schema_is_json_schema() -> None:
    done = run("check-config", "--schema")
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))


def test_explain_tells_the_routes_in_order_and_why(file: str) -> None:
    done = run("explain", "after-reset", "--config", file)
    assert done.returncode == 0
    assert done.stdout.index("up/reset") < done.stdout.index("up/answer")
    assert "configured as 'after-reset'" in done.stdout
    told = json.loads(run("explain", "once-x", "--json", "--config", file).stdout)
    assert [(route["route"], route["left_out"]) for route in told["routes"]] == [("up/once-x", None)]
    assert told["reason"] == "configured as 'once-*'"
    assert told["retries"] == 0


def test_explain_tells_which_routes_a_selection_mode_leaves_out(file: str) -> None:
    done = run("explain", "dead-then-fake", "--mode", "free_only", "--config", file)
    assert "1. fake/fake" in done.stdout
    assert "dead/anything" in done.stdout
    assert "free_only does not allow" in done.stdout


def test_explain_finds_what_a_provider_lists_and_leaves_nothing_open(file: str) -> None:
    done = run("explain", "answer", "--json", "--config", file)
    assert json.loads(done.stdout)["routes"][0]["route"] == "up/answer"
    assert "Unclosed" not in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_says_when_there_is_no_such_model(file: str) -> None:
    for name in ("nothing", "up/" + "x" * 5000):
        done = run("explain", name, "--config", file)
        assert done.returncode == 1
        assert "does not exist" in done.stderr
        assert len(done.stderr) < 600


def test_models_are_listed_as_text_and_json(file: str) -> None:
    nobody = {"PLUGGABLY__SERVER__PORT": "0"}
    assert "up/answer" in run("models", "list", "--config", file, **nobody).stdout
    listed = json.loads(run("models", "list", "--json", "--config", file, **nobody).stdout)
    assert {"up/answer", "fake/fake"} <= {model["id"] for model in listed}


def test_openapi_prints_what_the_gateway_serves(file: str) -> None:
    document = json.loads(run("openapi", "--config", file).stdout)
    assert "/v1/chat/completions" in document["paths"]


def test_no_command_shows_how(file: str) -> None:
    shown = run("--help")
    assert (shown.returncode, "serve" in shown.stdout) == (0, True)
    assert run().returncode == 2


def test_models_of_sessions_that_are_not_here_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("backends: {local: {kind: local}}\nsessions: {summary_model: nope/model, title_model: auto}\n")
    told = run("check-config", "--config", str(path)).stderr
    assert "sessions.summary_model: 'nope/model'" in told
    assert "title_model" not in told
