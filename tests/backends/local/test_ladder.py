"""Real engines that really get too little memory, and come up more modestly."""

import json
import subprocess
import sys
from typing import Any

import pytest

from backends.local.engine import Engine

ONE_SLOT = "1 request at a time instead of 4"
HALF_THE_CONTEXT = "a context of 4096 tokens instead of 8192"
PROGRAM = """
import asyncio, json, resource, sys
engine, limit, slots = sys.argv[1], int(sys.argv[2]) << 20, int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from backends.ports import Ports
from backends.local import Settings, connect
from compat.canonical.error import GatewayError
from tests.backends.local.bench import ask, call, smollm

async def main():
    settings = Settings(engine=engine, threads=1, context_max=8192, slots=slots)
    backend = connect("local", settings, Ports(catalogue=lambda: {"smol": smollm()}))
    said = {}
    try:
        async with backend.pool.lease("smol", call()) as lease:
            said["answered"] = (await ask(lease, tokens=2))[1]
    except GatewayError as e:
        said["error"] = e.message
    said["steps"] = backend.standing("smol")["steps"]
    await backend.aclose()
    print(json.dumps(said))

asyncio.run(main())
"""


def run(engine: Engine, limit_mib: int, slots: int) -> dict[str, Any]:
    """Ask a model, with the address space of every process limited to so much."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine.name, str(limit_mib), str(slots)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_a_model_that_gets_too_little_memory_comes_up_with_less(engine: Engine) -> None:
    limit_mib, slots, step = (850, 4, ONE_SLOT) if engine.parallel else (600, 1, HALF_THE_CONTEXT)
    said = run(engine, limit_mib, slots)
    assert said["answered"]
    assert said["steps"][:1] == [step]
