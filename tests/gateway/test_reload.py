"""A changed configuration file is swapped in whole, or refused."""

from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from tests.gateway.conftest import config
from tests.gateway.test_stopping import Reading
from tests.http import CHAT, chat, events_of, text_of
from tests.process import Gateway, gateway
from tests.provider import Provider


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
    with gateway(folder, base, prelude="import gateway.app; gateway.app.RELOAD_S = 0.05") as running:
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


def test_a_file_that_is_no_yaml_is_refused_and_a_good_one_taken_after_it(running: Reloading) -> None:
    running.write(b"models: [")
    running.outcome("config_refused")
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
