"""`pluggably models list|load|unload|status|ps`, as processes before a gateway that runs."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import ADMIN_KEY, READER_KEY
from tests.gateway.test_cli import run
from tests.process import ROOT, Gateway

MODEL = "local/smollm2-135m-instruct"


@pytest.fixture
def url(local_gateway: Gateway) -> Iterator[str]:
    yield local_gateway.url
    assert run("models", "unload", MODEL, "--url", local_gateway.url).returncode == 0


def test_a_model_is_loaded_shown_and_unloaded(url: str) -> None:
    loaded = run("models", "load", "auto", "--url", url)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert loaded.stdout.startswith(f"{MODEL}: ready, ")
    listed = run("models", "ps", "--url", url).stdout.splitlines()
    assert listed[0].split() == ["MODEL", "STATUS", "MEMORY", "RUNNING", "WAITING", "UNLOADS"]
    assert any(line.split()[:2] == [MODEL, "ready"] for line in listed)
    assert listed[-1].startswith("local: ")
    told = json.loads(run("models", "status", MODEL, "--json", "--url", url).stdout)
    assert (told["object"], told["status"]) == ("model.status", "ready")
    assert {one["id"] for one in json.loads(run("models", "ps", "--json", "--url", url).stdout)["data"]} >= {MODEL}
    assert run("models", "unload", MODEL, "--url", url).stdout == f"{MODEL}: unloaded\n"


def test_a_list_shows_how_models_stand_in_the_gateway_that_is_asked(url: str) -> None:
    run("models", "load", MODEL, "--url", url)
    head, *lines = run("models", "list", "--url", url).stdout.splitlines()
    assert head.split() == ["MODEL", "MODALITY", "SIZE", "QUANTIZATION", "CONTEXT", "STATUS"]
    of_model = next(line for line in lines if line.startswith(MODEL))
    assert of_model[head.index("SIZE") : head.index("QUANTIZATION")].strip() == "94 MiB"
    assert of_model[head.index("STATUS") :] == "ready"
    port = url.rpartition(":")[2]
    listed = json.loads(run("models", "list", "--json", PLUGGABLY__SERVER__PORT=port).stdout)
    assert {"auto", MODEL} <= {one["id"] for one in listed}, "the one at the configured address is asked"


def test_without_a_gateway_a_list_shows_what_can_run(tmp_path: Path) -> None:
    shapes = tmp_path / "models" / "shapes"
    shutil.copytree(ROOT / "backends/local/models/tiny-shapes", shapes, ignore=shutil.ignore_patterns("*.onnx"))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"backends: {{local: {{kind: local, model_dirs: [{tmp_path / 'models'}]}}}}\nserver: {{port: 0}}\n"
    )
    without = "import sys, importlib.util as u; f = u.find_spec; "
    without += "u.find_spec = lambda name, *rest: None if name == 'diffusers' else f(name, *rest); "
    without += f"from gateway.__main__ import main; sys.exit(main(['models', 'list', '--config', {str(config)!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.startswith("No gateway answers (start one with `pluggably serve`): ")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["local/tiny-3d"].split()[-1] == "available"
    assert "unavailable (needs diffusers: pip install 'pluggably[image]')" in lines["local/shapes"]


def test_a_terminal_is_shown_how_far_it_is(url: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway", "models", "load", MODEL, "--url", url]
    done = subprocess.run(command, cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.endswith("\r\x1b[K"), "the line is cleared"
    assert all(MODEL in line for line in shown.split("\r\x1b[K") if line)
    assert done.stdout.startswith(f"{MODEL}: ready")


def test_a_refusal_is_the_gateways_own(url: str) -> None:
    for model, words in (("local/nothing", "does not exist"), ("nothing at all", "does not exist")):
        done = run("models", "load", model, "--url", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_keys_come_from_the_configuration_or_a_variable(house: Gateway) -> None:
    asked = ("models", "load", "fake/fake", "--url", house.url)
    without = run(*asked)
    assert without.returncode == 1
    assert "--key-env" in without.stderr
    configured = run(*asked, "--config", str(house.folder / "config.yaml"))
    named = run(*asked, "--key-env", "A_KEY", A_KEY=ADMIN_KEY)
    for done in (configured, named):
        assert "no local model" in done.stderr
    lacking = run(*asked, "--key-env", "A_KEY", A_KEY=READER_KEY)
    assert "models:write" in lacking.stderr
    none = run("storage", "clean", "--url", house.url)
    assert none.stderr == (
        "pluggably: The gateway wants a key, and no key in the configuration has the scope admin; put the "
        "administrator's key in a variable and name it with --key-env.\n"
    )
    unset = run(*asked, "--key-env", "NOBODY_SET_THIS")
    assert (unset.returncode, unset.stderr.strip()) == (
        1,
        "pluggably: --key-env: the environment has no NOBODY_SET_THIS",
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:9/v1", "no-such-host.invalid", "http://h:x", ""])
def test_where_nobody_answers_it_says_so(url: str) -> None:
    done = run("models", "ps", "--url", url)
    assert done.returncode == 1
    assert "--url" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "usage", "hint"),
    [
        (("models", "ps", "--jsn"), "usage: pluggably models ps ", "did you mean '--json'?"),
        (("models", "donwload", "x"), "usage: pluggably models ", "did you mean 'download'?"),
        (("jobz",), "usage: pluggably ", "did you mean 'jobs'?"),
    ],
)
def test_a_slip_is_told_beside_the_usage_of_its_command(command: tuple[str, ...], usage: str, hint: str) -> None:
    done = run(*command)
    assert (done.returncode, done.stderr.startswith(usage), hint in done.stderr) == (2, True, True)
