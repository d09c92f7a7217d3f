"""The gateway as its users meet it: a process, started from a configuration, spoken to over HTTP."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
START_S = 30.0


class Gateway:
    """A running gateway process."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.lines: list[str] = []
        """Everything it has logged so far."""
        self.url = ""
        """http://127.0.0.1:PORT"""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def said(self) -> str:
        """What it has written to standard output."""
        return (self.folder / "stdout").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def wait_for(self, event: str, timeout_s: float = 10.0, *, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first log line of this event with these fields, waited for; `since` skips that many lines."""
        end = time.monotonic() + timeout_s
        with self._news:
            while True:
                for line in self.log[since:]:
                    if line.get("event") == event and all(line.get(k) == v for k, v in fields.items()):
                        return line
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no {event} {fields} in:\n" + "".join(self.lines))
                self._news.wait(min(left, 0.2))

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = 15.0) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(5)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()


@contextmanager
def gateway(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    prelude: str = "",
    arguments: Sequence[str] = (),
) -> Iterator[Gateway]:
    """Start a gateway on a free port with its data under `folder`; stop it at the end.

    prelude: Python that runs in the process before the gateway does.
    arguments: of the command line, besides the configuration.
    """
    tree = {"data_dir": str(folder / "data"), **(config or {})}
    tree["server"] = {"port": 0, **tree.get("server", {})}
    path = folder / "config.yaml"
    path.write_bytes(msgspec.yaml.encode(tree))
    program = ["-m", "gateway"]
    if prelude:
        program = ["-c", f"{prelude}\nimport sys; from gateway.__main__ import main; sys.exit(main(sys.argv[1:]))"]
    with (folder / "stdout").open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, *program, "serve", "--config", str(path), *arguments],
            cwd=ROOT,
            # No test asks the real hub.
            env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    running = Gateway(process, folder)
    try:
        running.url = running.wait_for("gateway_started", START_S)["url"]
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        if process.stderr is not None:
            process.stderr.close()
