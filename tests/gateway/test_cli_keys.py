"""`pluggably keys` beside a running gateway, and the key that the first start gives out."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.gateway.conftest import AUTH
from tests.gateway.test_cli import run
from tests.http import CHAT, chat, until
from tests.process import Gateway, gateway

KEY = re.compile(r"sk-gw-[0-9a-f]{12}_[0-9a-f]{64}")
CONFIG: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "models": {"auto": {"routes": ["fake/fake"]}}}
WANTS_KEYS: dict[str, Any] = CONFIG | {"auth": {"mode": "api_key"}}
FORGETFUL = "import gateway.auth.issued as issued; issued.KNOWN_S = 0.3"


def status(gateway: Gateway, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(gateway.url + CHAT, json=chat("auto"), headers=headers, timeout=30, verify=False).status_code


def written(folder: Path, tree: dict[str, Any]) -> str:
    path = folder / "cli.yaml"
    path.write_bytes(msgspec.yaml.encode({"data_dir": str(folder / "data")} | tree))
    return str(path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("keys"), CONFIG | {"auth": AUTH}, prelude=FORGETFUL) as running:
        yield running


def test_keys_are_made_rotated_and_revoked_beside_a_running_gateway(running: Gateway) -> None:
    file = str(running.folder / "config.yaml")
    create = (
        "--name",
        "my app",
        "--scope",
        "inference",
        "--scope",
        "models:read",
        "--tenant",
        "acme",
        "--owner",
        "ann",
    )
    more = ("--model", "auto", "--model", "fake/*", "--backend", "fake", "--tag", "team=a=b", "--expires-in", "90d")
    done = run("keys", "create", *create, *more, "--json", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    key = json.loads(done.stdout)
    assert (key["name"], key["tenant"], key["owner"]) == ("my app", "acme", "ann")
    assert (key["scopes"], key["models"]) == (["inference", "models:read"], ["auto", "fake/*"])
    assert (key["backends"], key["tags"]) == (["fake"], {"team": "a=b"})
    assert key["created_by"].startswith("cli:")
    assert status(running, key["key"]) == 200

    rotated = run("keys", "rotate", key["id"], "--overlap", "0s", "--config", file)
    assert rotated.returncode == 0, rotated.stderr
    [second] = KEY.findall(rotated.stdout)
    assert status(running, second) == 200
    until(lambda: status(running, key["key"]) == 401)

    listed = run("keys", "list", "--config", file)
    head, *lines = listed.stdout.splitlines()
    assert head.startswith("ID")
    [line] = [line for line in lines if line.startswith(key["id"])]
    assert {"acme", "ann", "active", f"sk-gw-{second[6:18]}"} <= set(line.split())
    assert any(line.startswith("root ") and "(configuration)" in line for line in lines)
    assert not KEY.search(listed.stdout)

    for _ in range(2):
        revoked = run("keys", "revoke", key["id"], "--config", file)
        assert (revoked.returncode, key["id"] in revoked.stdout) == (0, True)
    until(lambda: status(running, second) == 401)
    told = json.loads(run("keys", "list", "--json", "--config", file).stdout)
    assert key["id"] not in [one["id"] for one in told]
    told = json.loads(run("keys", "list", "--all", "--json", "--config", file).stdout)
    assert [one["status"] for one in told if one["id"] == key["id"]] == ["revoked"]

    root = {"authorization": f"Bearer {AUTH['keys'][2]['key']}"}  # type: ignore[index]
    audit = httpx2.get(running.url + "/v1/audit?tenant=acme", headers=root, timeout=30, verify=False).json()["data"]
    assert [one["action"] for one in audit] == ["key.revoke", "key.rotate", "key.create"]
    assert {one["actor"] for one in audit} == {key["created_by"]}
    assert {one["detail"]["by"] for one in audit} == {"cli"}, "no user who is called so"


def test_the_first_command_makes_the_database(tmp_path: Path) -> None:
    done = run("keys", "create", "--name", "first", "--scope", "admin", "--config", written(tmp_path, WANTS_KEYS))
    assert done.returncode == 0, done.stderr
    [key] = KEY.findall(done.stdout)
    with gateway(tmp_path, WANTS_KEYS) as running:
        assert status(running, key) == 200
        assert running.said == "", "there is a key that may administer"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--name", "x", "--scope", "everything"), "valid are admin, inference"),
        (("create", "--name", "a\nb"), "control character"),
        (("create", "--name", "x", "--backend", "fakke"), "did you mean 'fake'"),
        (("revoke", "key_nothing"), "key_nothing"),
        (("rotate", "key_nothing", "--overlap", "31d"), "30 days"),
        (("revoke", "root"), "auth.keys"),
    ],
)
def test_what_cannot_be_is_told_on_one_line(running: Gateway, arguments: tuple[str, ...], words: str) -> None:
    done = run("keys", *arguments, "--config", str(running.folder / "config.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_not_there_is_told_on_one_line(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://someone:pw-canary-5521@127.0.0.1:9/nothing"
    done = run("keys", "list", "--config", written(tmp_path, WANTS_KEYS | {"database": {"url": url}}))
    assert done.returncode == 1
    assert "database.url" in done.stderr
    assert "canary" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_time_without_a_unit_is_refused() -> None:
    done = run("keys", "create", "--name", "x", "--expires-in", "90")
    assert done.returncode == 2
    assert "90d" in done.stderr


def test_the_first_start_gives_out_one_key_that_may_administer(tmp_path: Path) -> None:
    with gateway(tmp_path, WANTS_KEYS) as running:
        [key] = KEY.findall(running.said)
        assert status(running, key) == 200
        admin = {"authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=running.url, headers=admin, timeout=30, verify=False) as http:
            [listed] = http.get("/v1/keys").json()["data"]
            [event] = http.get("/v1/audit").json()["data"]
        assert (listed["name"], listed["owner"], listed["scopes"]) == ("admin", "admin", ["admin"])
        assert (event["action"], event["actor"], event["target"]) == ("key.create", "system", listed["id"])
        line = running.wait_for("admin_key_issued")
        assert set(line) == {"timestamp", "level", "event", "id"}
        assert line["id"] == listed["id"]
        assert running.stop() == 0
        assert key.rpartition("_")[2] not in "".join(running.lines)
    with gateway(tmp_path, WANTS_KEYS) as running:
        assert status(running, key) == 200
        assert running.said == ""
    assert run("keys", "revoke", listed["id"], "--config", str(tmp_path / "config.yaml")).returncode == 0
    with gateway(tmp_path, WANTS_KEYS) as running:
        [another] = KEY.findall(running.said)
        assert [status(running, one) for one in (key, another)] == [401, 200]


def test_two_that_start_at_once_give_out_one_key(tmp_path: Path) -> None:
    tree = WANTS_KEYS | {"data_dir": str(tmp_path / "shared")}
    folders = [tmp_path / "a", tmp_path / "b"]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        for folder in folders:
            folder.mkdir()
        starting = [pool.submit(stack.enter_context, gateway(folder, tree)) for folder in folders]
        both = [one.result() for one in starting]
        [key] = KEY.findall("".join(one.said for one in both))
        assert [status(one, key) for one in both] == [200, 200]


@pytest.mark.parametrize("tree", [CONFIG, CONFIG | {"auth": AUTH}], ids=["no key needed", "configured"])
def test_a_key_that_nobody_needs_is_not_given_out(tmp_path: Path, tree: dict[str, Any]) -> None:
    with gateway(tmp_path, tree) as running:
        assert running.said == ""
        assert not [line for line in running.log if line.get("event") == "admin_key_issued"]
