"""A studio whose engine does what it is told to: the program of a child process, and what starts it.

The body of a job says what happens: {"steps": 3, "pause_s": 0.1, "then": "made" | "refuse" | "fail" | "memory"}.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from msgspec import Struct

from backends.local import studio
from backends.local.studio import Job, Refused

KEY = "easel-key"


def make(job: Job) -> None:
    told = job.body
    for step in range(told.get("steps", 0)):
        job.step(step, told["steps"])
        print(f"step {step}", file=sys.stderr, flush=True)
        time.sleep(told.get("pause_s", 0))
    match told.get("then", "made"):
        case "refuse":
            raise Refused("That is too large.", "size")
        case "fail":
            raise RuntimeError("secret /path/of/a/weight")
        case "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    job.preview(b"half", "image/png", 0, 0)
    job.made(b"whole", "image/png")


class Easel(Struct):
    url: str
    process: "subprocess.Popen[str]"
    said: list[str]
    """What it printed, a line each."""

    def has_said(self, line: str, within_s: float = 10.0) -> bool:
        until = time.monotonic() + within_s
        while line not in self.said and time.monotonic() < until:
            time.sleep(0.01)
        return line in self.said


@contextmanager
def easel() -> Iterator[Easel]:
    """A child that is ready; ended with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backends.local.easel"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=_listen, args=(process.stderr, said))
    try:
        url = json.loads(process.stdout.readline())["url"]
        reader.start()
        yield Easel(url, process, said)
    finally:
        process.kill()
        process.wait()
        if reader.is_alive():
            reader.join()
        process.stdout.close()
        process.stderr.close()


def _listen(stderr: IO[str], said: list[str]) -> None:
    for line in stderr:
        said.append(line.rstrip("\n"))


if __name__ == "__main__":
    studio.serve({"key": KEY}, lambda what: print(json.dumps(what), flush=True), make)
