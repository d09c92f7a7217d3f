"""A changed configuration file is swapped in whole, or refused."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.gateway.conftest import ADMIN_KEY, AUTH, config
from tests.gateway.test_stopping import Reading
from tests.http import CHAT, chat, events_of, text_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider

QUICK = "import gateway.app as app; app.RELOAD_S = 0.05"
CRASHING = """
build = app.build
app.build = lambda config, *rest, **more: 1 / 0 if "crash" in config.models else build(config, *rest, **more)
"""
FAKE: dict[str, Any] = {"backends": {"fake": {"kind": "fake"}}, "models": {"auto": {"routes": ["fake/fake"]}}}


class Reloading:
    """A gateway and its configuration file."""

    def __init__(self, gateway: Gateway, base: dict[str, Any]) -> None:
        self.gateway = gateway
        self.path = gateway.folder / "config.yaml"
        self.base = base
        self._mark = 0

    def write(self, text: bytes | None = None, **changes: Any) -> None:
        """Replace the file as editors do."""
        self._mark = len(self.gateway.log)
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(msgspec.yaml.encode(self.base | changes) if text is None else text)
        fresh.replace(self.path)

    def outcome(self, event: str) -> dict[str, Any]:
        """What the gateway says of the last change."""
        return self.gateway.wait_for(event, since=self._mark)

    def status(self, model: str) -> int:
        http = httpx2.post(self.gateway.url + CHAT, json=chat(model), timeout=10, verify=False)
        return http.status_code


@pytest.fixture(scope="module")
def one_gateway(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    folder = tmp_path_factory.mktemp("reload")
    base = config(running_provider.url)
    base["models"] = {"again": {"routes": ["up/status:503"], "retries": 0}, "auto": {"routes": ["fake/fake"]}}
    base |= {"data_dir": str(folder / "data"), "server": {"port": 0, "drain_s": 1}}
    with gateway(folder, base, prelude=QUICK + CRASHING) as running:
        yield Reloading(running, base)


@pytest.fixture
def running(one_gateway: Reloading, upstream: Provider) -> Iterator[Reloading]:
    yield one_gateway
    one_gateway.write(models=one_gateway.base["models"] | {"reset": {"routes": ["fake/fake"]}})
    one_gateway.outcome("config_reloaded")
    one_gateway.write()
    one_gateway.outcome("config_reloaded")


def test_a_changed_file_swaps_the_models(running: Reloading) -> None:
    assert running.status("fresh") == 404
    assert running.status("again") == 503
    running.write(models={"fresh": {"routes": ["fake/fake"]}})
    running.outcome("config_reloaded")
    assert running.status("fresh") == 200
    assert running.status("again") == 404


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {"bad": {"routes": ["nowhere/x"]}}}, "nowhere"),
        ({"modles": {}}, "did you mean 'models'"),
        ({"backends": {"x": {"kind": "openai", "preset": "nonsense"}}, "models": {}}, "nonsense"),
        ({"server": {"host": "0.0.0.0"}}, "auth.mode"),
    ],
)
def test_a_wrong_file_is_refused_and_the_old_one_stays(running: Reloading, change: dict[str, Any], words: str) -> None:
    running.write(**change)
    assert words in running.outcome("config_refused")["reason"]
    assert running.status("auto") == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"models: [", "not YAML"),
        (b"x: &a [*a]", "alias"),
        (b"x: 2020-13-45", "in quotes"),
        (b"x: !!int y", "in quotes"),
        (b"data_dir: ~nosuchuser/x", "data_dir: '~nosuchuser/x' names no home folder"),
        (b"data_dir: ${file:~nosuchuser/x}", "data_dir: '~nosuchuser/x' names no home folder"),
        (b"backends: {local: {kind: local, model_dirs: [~nosuchuser/x]}}", "backends.local.model_dirs"),
        (b'data_dir: "${file:/tmp/\\0}"', "data_dir"),
        (b"models: {crash: {routes: [local/x]}}", "ZeroDivisionError"),
    ],
)
def test_whatever_is_wrong_with_a_file_a_good_one_is_taken_after_it(
    running: Reloading, text: bytes, words: str
) -> None:
    running.write(text)
    assert words in running.outcome("config_refused")["reason"]
    assert running.status("auto") == 200
    running.write(models={"anew": {"routes": ["fake/fake"]}})
    running.outcome("config_reloaded")
    assert running.status("anew") == 200


def test_a_stream_finishes_on_the_configuration_it_began_with(running: Reloading) -> None:
    reading = Reading(running.gateway, "up/events:30:0.05")
    reading.has(b"word0")
    running.write(backends={"fake": {"kind": "fake"}}, models={"auto": {"routes": ["fake/fake"]}})
    running.outcome("config_reloaded")
    assert running.status("up/answer") == 404
    assert text_of(reading.end()).endswith("word29 ")
    assert events_of(reading.body)[-1] == b"[DONE]"


def test_a_stream_finishes_though_all_named_models_have_less_time(running: Reloading) -> None:
    quick = {"auto": {"routes": ["fake/fake"], "timeouts": {"total_s": 0.1}}}
    running.write(models=quick)
    running.outcome("config_reloaded")
    reading = Reading(running.gateway, "up/events:30:0.05")
    reading.has(b"word0")
    running.write(backends={"fake": {"kind": "fake"}}, models=quick)
    running.outcome("config_reloaded")
    assert text_of(reading.end()).endswith("word29 ")


def test_a_long_stream_does_not_hold_up_the_next_change(running: Reloading) -> None:
    reading = Reading(running.gateway, "up/stall:1")
    reading.has(b"word0")
    for n in range(2):
        backend = {f"fake{n}": {"kind": "fake"}}
        running.write(backends=backend, models={f"model-{n}": {"routes": [f"fake{n}/fake"]}})
        running.outcome("config_reloaded")
        assert running.status(f"model-{n}") == 200
    assert b"error" not in reading.body


def test_keys_are_swapped_too(running: Reloading) -> None:
    assert running.status("auto") == 200
    running.write(auth={"mode": "api_key", "keys": [{"name": "new", "key": "a-new-key-of-some-length"}]})
    running.outcome("config_reloaded")
    assert running.status("auto") == 401


ANYWHERE = {"server": {"port": 0, "host": "0.0.0.0"}}


@pytest.mark.parametrize(
    ("tree", "arguments"), [(FAKE, ("--host", "0.0.0.0")), (FAKE | ANYWHERE, ())], ids=["command line", "file"]
)
def test_no_change_opens_a_socket_that_others_can_reach(
    tmp_path: Path, tree: dict[str, Any], arguments: Sequence[str]
) -> None:
    base = tree | {"auth": AUTH, "data_dir": str(tmp_path / "data")}
    with gateway(tmp_path, base, prelude=QUICK, arguments=arguments) as gate:
        url = f"http://127.0.0.1:{gate.port}"
        running = Reloading(gate, base)

        def status(path: str, key: str = "") -> int:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return httpx2.get(url + path, headers=headers, timeout=10, verify=False).status_code

        running.write(auth={"mode": "local"}, server={"port": 0})
        assert "auth.mode" in running.outcome("config_refused")["reason"]
        assert [status(path) for path in ("/v1/models", "/metrics")] == [401, 401]
        # What the file says of the address is for the next start: the socket is where it was.
        running.write(server={"port": 0, "host": "127.0.0.1"}, models=FAKE["models"] | {"x": {"routes": ["fake/fake"]}})
        running.outcome("config_reloaded")
        if not arguments:
            running.outcome("config_needs_restart")
        assert [status("/metrics", key) for key in ("", ADMIN_KEY)] == [401, 200]
        # Not even the second time, when that is what the file said before.
        running.write(auth={"mode": "local"}, server={"port": 0, "host": "127.0.0.1"})
        running.outcome("config_refused")
        assert status("/v1/models") == 401


def test_the_command_line_counts_when_the_file_is_read_again(tmp_path: Path) -> None:
    base = FAKE | ANYWHERE | {"data_dir": str(tmp_path / "data")}
    with gateway(tmp_path, base, prelude=QUICK, arguments=("--host", "127.0.0.1")) as gate:
        running = Reloading(gate, base)
        running.write(models={"more": {"routes": ["fake/fake"]}})
        running.outcome("config_reloaded")
        assert running.status("more") == 200
        assert not [line for line in gate.log if line["event"] == "config_needs_restart"]


def test_whoever_turns_keys_on_is_given_one_that_may_administer(tmp_path: Path) -> None:
    base = FAKE | {"data_dir": str(tmp_path / "data"), "server": {"port": 0}}
    with gateway(tmp_path, base, prelude=QUICK) as gate:
        running = Reloading(gate, base)
        running.write(auth={"mode": "api_key"})
        running.outcome("admin_key_issued")
        [key] = until(lambda: re.findall(r"sk-gw-\w+", gate.said))
        admin = {"authorization": f"Bearer {key}"}
        events = httpx2.get(gate.url + "/v1/audit", headers=admin, timeout=10, verify=False).json()["data"]
        assert [event["detail"]["by"] for event in events if event["actor"] == "system"] == ["gateway"] * 2
        running.write(auth={"mode": "api_key"}, breaker={"failures": 9})
        running.outcome("config_reloaded")
        assert gate.said.count("sk-gw-") == 1
