"""The provider and the proxy as processes: each says in a line of JSON where it listens."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.process import ROOT


@contextmanager
def running(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a module until the end of the block; gives what it says first."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{module} did not start"
        yield cast(dict[str, Any], json.loads(line))
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
