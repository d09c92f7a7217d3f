"""The gateway is killed without a chance to tidy up: no process that it started is left three seconds later."""

import signal
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from backends.local.engine import ORDER, find
from tests.http import CHAT, chat
from tests.process import Gateway, gateway

ENGINES = [name for name in ORDER if find(name)]
GONE_WITHIN_S = 3.0


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def killed(running: Gateway) -> list[psutil.Process]:
    """Kill the gateway; what is left of its family after the time they have."""
    family = psutil.Process(running.process.pid).children(recursive=True)
    assert family
    running.stop(signal.SIGKILL)
    end = time.monotonic() + GONE_WITHIN_S
    while (left := alive(family)) and time.monotonic() < end:
        time.sleep(0.01)
    return left


def load(http: httpx2.Client, *models: str) -> None:
    for model in models:
        response = http.post(f"/v1/models/{model.replace('/', '%2F')}/load")
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("engine", ENGINES)
def test_no_model_outlives_a_killed_gateway(tmp_path: Path, engine: str) -> None:
    config = {"backends": {"local": {"kind": "local", "engine": engine, "threads": 1, "context_max": 2048}}}
    with (
        gateway(tmp_path, config) as running,
        httpx2.Client(base_url=running.url, timeout=60) as http,
        http.stream("POST", CHAT, json=chat("auto", "Count to a hundred.", stream=True, max_tokens=1500)) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        assert killed(running) == []


def test_nothing_that_makes_vectors_pictures_or_meshes_outlives_a_killed_gateway(tmp_path: Path) -> None:
    config = {"backends": {"local": {"kind": "local", "threads": 1}}}
    with gateway(tmp_path, config) as running, httpx2.Client(base_url=running.url, timeout=60) as http:
        load(http, "local/all-minilm-l6-v2", "local/tiny-shapes", "local/tiny-3d")
        assert len(psutil.Process(running.process.pid).children()) >= 3
        assert killed(running) == []
