"""SIGTERM: not ready, finish what runs, an error for the rest, exit 0."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.gateway.conftest import config
from tests.http import CHAT, chat, error_of, events_of, in_band_error, text_of, until, usage_row
from tests.process import Gateway, gateway
from tests.provider import Provider


@contextmanager
def draining(folder: Path, upstream: Provider, drain_s: float) -> Iterator[Gateway]:
    tree = config(upstream.url)
    tree["server"] = {"drain_s": drain_s}
    with gateway(folder, tree) as running:
        yield running


class Reading:
    """A streamed request read in a thread."""

    def __init__(self, running: Gateway, model: str, path: str = CHAT) -> None:
        self.body = b""
        self.status = 0
        self.trouble: Exception | None = None
        self.id = f"reading-{time.monotonic_ns()}"
        self._url = running.url
        self._json = (
            chat(model, stream=True) if path == CHAT else {"model": model, "stream": True, "input": {"prompt": "x"}}
        )
        self._path = path
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def has(self, words: bytes) -> None:
        until(lambda: words in self.body, 10)

    def end(self) -> bytes:
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert self.trouble is None, self.trouble
        return self.body

    def _read(self) -> None:
        try:
            with (
                httpx2.Client(base_url=self._url, timeout=20, verify=False) as http,
                http.stream("POST", self._path, json=self._json, headers={"x-request-id": self.id}) as answer,
            ):
                self.status = answer.status_code
                for piece in answer.iter_bytes():
                    self.body += piece
        except Exception as e:
            self.trouble = e


def test_a_running_stream_finishes_and_newcomers_are_turned_away(tmp_path: Path, upstream: Provider) -> None:
    with draining(tmp_path, upstream, 10) as running, httpx2.Client(base_url=running.url, verify=False) as http:
        reading = Reading(running, "up/events:20:0.05")
        reading.has(b"word0")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("gateway_draining", signal="SIGTERM", in_flight=1)
        ready = http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert http.get("/health").status_code == 200
        late = http.post(CHAT, json=chat("up/answer"))
        assert late.status_code == 503
        assert error_of(late)["code"] == "server_shutting_down"
        assert late.headers["retry-after"] == "1"
        assert text_of(reading.end()).endswith("word19 ")
        assert events_of(reading.body)[-1] == b"[DONE]"
        assert running.process.wait(3) == 0
        assert usage_row(running.folder, reading.id)["output_tokens"] == 12


def test_what_takes_too_long_is_ended_with_an_error(tmp_path: Path, upstream: Provider) -> None:
    with draining(tmp_path, upstream, 0.5) as running:
        chatting = Reading(running, "up/events:10000:0.02")
        native = Reading(running, "up/events:10000:0.02", "/v1/generate")
        waiting = Reading(running, "up/silent")
        chatting.has(b"word0")
        native.has(b"word0")
        upstream.asked(count=3)
        began = time.monotonic()
        assert running.stop(timeout_s=3.5) == 0
        assert time.monotonic() - began < 0.5 + 3
        assert in_band_error(chatting.end())["code"] == "server_shutting_down"
        assert native.end().rstrip().split(b"\n\n")[-1].startswith(b"event: error\ndata: ")
        assert waiting.end()
        assert waiting.status == 503
        assert json.loads(waiting.body)["error"]["code"] == "server_shutting_down"
        for call in upstream.seen:
            assert call.left_within(2.0, began + 0.5)
        assert usage_row(running.folder, chatting.id)["code"] == "server_shutting_down"


def test_an_idle_keep_alive_connection_does_not_hold_it_up(tmp_path: Path, upstream: Provider) -> None:
    with draining(tmp_path, upstream, 25) as running, httpx2.Client(base_url=running.url, verify=False) as http:
        assert http.get("/health").status_code == 200
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 2


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, upstream: Provider) -> None:
    with draining(tmp_path, upstream, 60) as running:
        Reading(running, "up/events:10000:0.02").has(b"word0")
        running.process.send_signal(signal.SIGINT)
        running.wait_for("gateway_draining", signal="SIGINT")
        began = time.monotonic()
        running.stop(signal.SIGINT, timeout_s=8)
        assert time.monotonic() - began < 6
