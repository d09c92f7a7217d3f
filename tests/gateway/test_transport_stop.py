"""SIGTERM and SIGHUP under load: whoever got through is answered, whole, and never reset."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.gateway.conftest import config
from tests.gateway.test_stopping import Reading
from tests.http import CHAT, chat, error_of, in_band_error, post, raw
from tests.process import Gateway, gateway
from tests.provider import Provider

STOPS = 50 if os.environ.get("SOAK") else 5
JSON = "content-type: application/json"
ANSWER = post(CHAT, json.dumps(chat("up/events:3:0.02")).encode(), JSON)
STREAM = post(CHAT, json.dumps(chat("up/events:5:0.02", stream=True)).encode(), JSON)


class Crowd:
    """Clients that ask until nobody listens any more, and what became of every request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outcomes: Counter[str] = Counter()
        self.stop = False
        self._lock = threading.Lock()
        kinds: list[Callable[[], None]] = [self._anew, self._again, self._in_halves] * 4
        self._threads = [threading.Thread(target=kind, daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def end(self) -> Counter[str]:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.outcomes

    def _connect(self) -> socket.socket | None:
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        except ConnectionRefusedError:
            self._note("refused")
            return None
        except OSError as e:  # while the kernel ignores newcomers
            self._note("refused" if isinstance(e, TimeoutError | ConnectionResetError) else repr(e))
            return None
        return connection

    def _anew(self) -> None:
        """Each request on a connection of its own."""
        while not self.stop and (connection := self._connect()):
            with closing(connection):
                self._ask(connection, STREAM)

    def _again(self) -> None:
        """One after the other on one connection, at once, as long as it is offered."""
        while not self.stop and (connection := self._connect()):
            with closing(connection):
                while self._ask(connection, ANSWER) and not self.stop:
                    pass

    def _in_halves(self) -> None:
        """Half a request, and the rest a little later."""
        while not self.stop and (connection := self._connect()):
            with closing(connection):
                self._ask(connection, ANSWER[:60], ANSWER[60:])

    def _ask(self, connection: socket.socket, *pieces: bytes) -> bool:
        """Whether the connection can be used again."""
        got = b""
        try:
            for n, piece in enumerate(pieces):
                time.sleep(0.1 * n)
                connection.sendall(piece)
            while not _complete(got):
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
        except OSError as e:
            self._note(f"{type(e).__name__} after {got[:40]!r} {len(pieces)}")
            return False
        status = got[9:12].decode()
        whole = _complete(got) and status in ("200", "503")
        self._note(status if whole else f"closed after {got[-60:]!r} {len(pieces)}")
        return whole and b"\r\nconnection: close" not in got

    def _note(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


def _complete(got: bytes) -> bool:
    head, ends, body = got.partition(b"\r\n\r\n")
    if not ends:
        return False
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"\r\n0\r\n\r\n") or body == b"0\r\n\r\n"
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length.partition(b":")[2])


@contextmanager
def running_with(folder: Path, upstream: Provider, **server: Any) -> Iterator[Gateway]:
    folder.mkdir(exist_ok=True)
    with gateway(folder, config(upstream.url) | {"server": server}) as running:
        yield running


@pytest.mark.parametrize("n", range(STOPS))
def test_nobody_who_got_through_is_reset(tmp_path: Path, upstream: Provider, n: int) -> None:
    with running_with(tmp_path, upstream, drain_s=10) as running:
        crowd = Crowd(running.port)
        time.sleep(0.4 + 0.1 * (n % 5))
        assert running.stop() == 0
        outcomes = crowd.end()
        assert set(outcomes) <= {"200", "503", "refused"}, outcomes
        assert outcomes["200"] > 20


def test_a_request_that_has_begun_to_arrive_is_served(tmp_path: Path, upstream: Provider) -> None:
    with (
        running_with(tmp_path, upstream, drain_s=10) as running,
        raw(running.port, ANSWER[:30]) as head,
        raw(running.port, ANSWER[:-10]) as body,
        raw(running.port, b"") as silent,
        httpx2.Client(base_url=running.url) as idle,
    ):
        assert idle.get("/health").status_code == 200
        running.wait_for("gateway_started")
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("gateway_draining")
        time.sleep(0.8)
        again = idle.post(CHAT, json=chat("up/answer"))
        assert again.status_code == 200, "it was connected before"
        assert again.headers["connection"] == "close"
        with httpx2.Client(base_url=running.url) as newcomer:
            late = newcomer.post(CHAT, json=chat("up/answer"))
            assert error_of(late)["code"] == "server_shutting_down"
        for connection, rest in ((head, ANSWER[30:]), (body, ANSWER[-10:])):
            connection.sendall(rest)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close" in answer
        assert running.process.wait(5) == 0
        assert silent.recv(1) == b""


def test_half_a_request_is_not_waited_for_beyond_the_drain(tmp_path: Path, upstream: Provider) -> None:
    with (
        running_with(tmp_path, upstream, drain_s=0.5) as running,
        raw(running.port, ANSWER[:30]) as head,
        raw(running.port, ANSWER[:-10]) as body,
    ):
        time.sleep(0.2)
        assert running.stop(timeout_s=8) == 0
        for connection in (head, body):
            assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_runs_in_words(tmp_path: Path, upstream: Provider, sig: signal.Signals) -> None:
    with running_with(tmp_path, upstream, drain_s=60) as running:
        reading = Reading(running, "up/events:10000:0.02")
        reading.has(b"word0")
        running.process.send_signal(sig)
        running.wait_for("gateway_draining", in_flight=1)
        running.stop(sig, timeout_s=8)
        assert in_band_error(reading.end())["code"] == "server_shutting_down"


def test_a_configuration_is_swapped_under_load_and_nobody_notices(tmp_path: Path, upstream: Provider) -> None:
    with running_with(tmp_path, upstream) as running:
        crowd, path = Crowd(running.port), tmp_path / "config.yaml"
        tree = msgspec.yaml.decode(path.read_bytes())
        for n in range(5):
            # The provider's backend is another one each time, and the old one is closed.
            tree["backends"]["up"]["headers"] = {"x-generation": str(n)}
            tree["models"][f"generation-{n}"] = {"routes": ["fake/fake"]}
            path.write_bytes(msgspec.yaml.encode(tree))
            mark = len(running.log)
            running.process.send_signal(signal.SIGHUP)
            running.wait_for("config_reloaded", since=mark)
            answer = httpx2.post(running.url + CHAT, json=chat(f"generation-{n}"), timeout=10)
            assert answer.status_code == 200
            time.sleep(0.2)
        path.write_bytes(b"models: [")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("config_refused")
        crowd.stop = True
        outcomes = crowd.end()
        assert set(outcomes) == {"200"}, outcomes
