"""What local models run goes on over a changed configuration, and new files are taken up with it."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionChunk

from gateway import embedded
from tests.gateway.test_reload import QUICK, Reloading
from tests.http import CHAT, chat, until
from tests.process import gateway

MODEL, OTHER = "local/smollm2-135m-instruct", "local/all-minilm-l6-v2"
LOCAL: dict[str, Any] = {"kind": "local", "threads": 1, "slots": 1, "context_max": 2048}


@pytest.fixture(scope="module")
def one_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    folder = tmp_path_factory.mktemp("reload-local")
    (folder / "models").mkdir()
    base = {
        "data_dir": str(folder / "data"),
        "server": {"port": 0},
        "backends": {"local": LOCAL | {"model_dirs": [str(folder / "models")]}},
        # Shorter than any answer here: what is addressed as BACKEND/MODEL is not held to it.
        "models": {"auto": {"routes": [MODEL], "timeouts": {"total_s": 0.1}}},
    }
    with gateway(folder, base, prelude=QUICK) as running:
        yield Reloading(running, base)


@pytest.fixture
def running(one_gateway: Reloading) -> Iterator[Reloading]:
    yield one_gateway
    one_gateway.write(models={"reset": {"routes": [MODEL]}})
    one_gateway.outcome("config_reloaded")
    one_gateway.write()
    one_gateway.outcome("config_reloaded")
    for model in (MODEL, OTHER):
        unloaded = post(one_gateway, f"/v1/models/{model}/unload", {"force": True})
        assert unloaded.json()["status"] == "unloaded"


def post(running: Reloading, path: str, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(running.gateway.url + path, json=body, timeout=30, verify=False)


def get(running: Reloading, path: str) -> httpx2.Response:
    return httpx2.get(running.gateway.url + path, timeout=10, verify=False)


def status(running: Reloading, model: str = MODEL) -> dict[str, Any]:
    told: dict[str, Any] = get(running, f"/v1/models/{model}/status").json()
    return told


def begun(running: Reloading) -> openai.Stream[ChatCompletionChunk]:
    """A long answer of which something has come."""
    sdk = openai.OpenAI(base_url=f"{running.gateway.url}/v1", api_key="none", max_retries=0)
    story = sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=60, stream=True
    )
    next(story)
    return story


def finished(story: openai.Stream[ChatCompletionChunk]) -> bool:
    """Whether all the rest comes.  Raises APIError for an error in the stream."""
    return [chunk.choices[0].finish_reason for chunk in story if chunk.choices][-1] in ("length", "stop")


def workers(running: Reloading) -> list[int]:
    return [child.pid for child in psutil.Process(running.gateway.process.pid).children()]


def local(running: Reloading, **settings: Any) -> dict[str, Any]:
    return {"local": running.base["backends"]["local"] | settings}


def test_a_stream_finishes_and_the_next_request_meets_the_same_worker(running: Reloading) -> None:
    post(running, f"/v1/models/{MODEL}/load", {})
    [worker] = workers(running)
    story = begun(running)
    running.write(backends=local(running, idle_unload_s=601))
    running.outcome("config_reloaded")
    assert status(running)["running"] == 1, "the new backend sees what the old one began"
    assert post(running, CHAT, chat(MODEL, max_tokens=3)).status_code == 200
    assert finished(story)
    assert workers(running) == [worker]


def test_a_model_to_be_run_otherwise_finishes_what_it_runs_and_is_loaded_anew(running: Reloading) -> None:
    post(running, f"/v1/models/{MODEL}/load", {})
    [worker] = workers(running)
    story = begun(running)
    running.write(backends=local(running, context_max=1024))
    running.outcome("config_reloaded")
    assert status(running)["status"] == "draining"
    assert post(running, CHAT, chat(MODEL, max_tokens=3)).status_code == 200
    assert finished(story)
    [other] = workers(running)
    assert other != worker


def test_the_bound_on_memory_holds_for_what_was_loaded_before(running: Reloading) -> None:
    post(running, f"/v1/models/{MODEL}/load", {})
    taken = status(running)["memory_bytes"]
    running.write(backends=local(running, memory_max=taken + 1_000_000))
    running.outcome("config_reloaded")
    assert status(running)["status"] == "ready"
    assert post(running, f"/v1/models/{OTHER}/load", {}).json()["status"] == "ready"
    assert status(running)["status"] == "unloaded", "it had to make room"
    assert len(workers(running)) == 1


def test_what_is_pinned_is_loaded_once_and_what_is_no_longer_may_go(running: Reloading) -> None:
    running.write(backends=local(running, pin=["smollm2-135m-instruct"]))
    running.outcome("config_reloaded")
    until(lambda: status(running)["status"] == "ready", 20.0)
    [worker] = workers(running)
    running.write(backends=local(running, pin=["smollm2-135m-instruct"], idle_unload_s=602))
    running.outcome("config_reloaded")
    assert post(running, f"/v1/models/{MODEL}/unload", {}).status_code == 409
    assert workers(running) == [worker]
    running.write()
    running.outcome("config_reloaded")
    assert not status(running)["pinned"]
    assert post(running, f"/v1/models/{MODEL}/unload", {}).json()["status"] == "unloaded"


@pytest.mark.parametrize("change", [{"idle_unload_s": 603}, {"context_max": 1024}], ids=["the same", "otherwise"])
def test_a_load_that_nobody_waits_for_goes_on(running: Reloading, change: dict[str, Any]) -> None:
    assert post(running, f"/v1/models/{MODEL}/load", {"wait": False}).status_code == 202
    running.write(backends=local(running, **change))
    running.outcome("config_reloaded")
    until(lambda: status(running)["status"] == "ready", 20.0)
    assert len(workers(running)) == 1


def test_a_refused_configuration_changes_nothing(running: Reloading) -> None:
    post(running, f"/v1/models/{MODEL}/load", {})
    [worker] = workers(running)
    running.write(backends=local(running, context_max=1024), models={"bad": {"routes": ["nowhere/x"]}})
    running.outcome("config_refused")
    assert status(running)["status"] == "ready"
    assert workers(running) == [worker]


def test_a_new_file_is_served_after_a_signal_and_a_removed_one_is_gone(running: Reloading) -> None:
    file = running.path.parent / "models" / "Mine.gguf"
    shutil.copyfile(embedded.models("local", Path())["smollm2-135m-instruct"].path, file)
    mark = len(running.gateway.log)
    running.gateway.process.send_signal(signal.SIGHUP)
    assert running.gateway.wait_for("models_changed", since=mark)["came"] == ["local/mine"]
    sdk = openai.OpenAI(base_url=f"{running.gateway.url}/v1", api_key="none", max_retries=0)
    assert "local/mine" in [model.id for model in sdk.models.list()]
    answer = sdk.chat.completions.create(
        model="local/mine", messages=[{"role": "user", "content": "Hello."}], max_tokens=5
    )
    assert answer.choices[0].message.content
    file.unlink()
    mark = len(running.gateway.log)
    running.gateway.process.send_signal(signal.SIGHUP)
    assert running.gateway.wait_for("models_changed", since=mark)["went"] == ["local/mine"]
    assert post(running, CHAT, chat("local/mine")).status_code == 404
    until(lambda: not workers(running))
