"""A child process of the benchmark: started, waited for, measured, ended.

Children run in sessions of their own and are ended by the id of their group, so nothing outlives the
benchmark and nothing else is hit.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
POLL_S = 0.01


class StartFailed(Exception):
    """A process did not become ready; the message says why."""


class Process:
    """`log` takes its standard error, and its standard output unless `pipes`."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, *, pipes: bool = False
    ) -> None:
        self._log = log
        self._begun = time.perf_counter()
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=environment(env or {}),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                start_new_session=True,
            )
        self._root = psutil.Process(self._popen.pid)

    def ask(self, line: bytes | None = None) -> bytes:
        """Send a line (None: nothing), read a line.  Only with `pipes`."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        if line is not None:
            self._popen.stdin.write(line + b"\n")
            self._popen.stdin.flush()
        answer = self._popen.stdout.readline()
        if not answer:
            raise StartFailed(f"ended: {self._last_words()}")
        return answer

    def await_ready(self, port: int, path: str, limit_s: float) -> float:
        """Seconds from exec to the first 200 on `path`.  Raises StartFailed."""
        while (waited := time.perf_counter() - self._begun) < limit_s:
            if self._popen.poll() is not None:
                raise StartFailed(f"exited with {self._popen.returncode}: {self._last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                try:
                    connection.request("GET", path)
                    if connection.getresponse().status == 200:
                        return time.perf_counter() - self._begun
                finally:
                    connection.close()
            time.sleep(POLL_S)
        raise StartFailed(f"no 200 on {path} within {waited:.0f} s: {self._last_words()}")

    def cpu_s(self) -> float:
        """CPU time, user and system, of the process and its children."""
        return sum(_cpu_s(process) for process in self._tree())

    def rss_bytes(self) -> int:
        """Resident memory of the process and its children; what they share counts more than once."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGTERM)
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(5)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "no output"


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would send loopback traffic to a proxy or change the gateway's configuration."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("PLUGGABLY__")
    }
    return {**ours, "NO_PROXY": "*", **more}


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cpu_s(process: psutil.Process) -> float:
    try:
        if psutil.LINUX:
            # The process's own clock counts nanoseconds where /proc counts hundredths of a second:
            # clock_getcpuclockid(3), which Python does not wrap.
            return time.clock_gettime((~process.pid << 3) | 2)
        used = process.cpu_times()
        return float(used.user + used.system)
    except (OSError, psutil.Error):
        return 0.0
