"""A program that keeps artifacts as fast as it can, in children that it kills in the middle of it, time after time.

Its arguments: the URL of the database, the section `artifacts` as JSON, and how many children.  It prints the ids of
all artifacts that were acknowledged, one a line.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import obstore  # noqa: F401  before the children, which would all import it anew

from gateway.artifacts.store import Store
from gateway.db.artifacts import ArtifactRows
from gateway.db.engine import connect
from gateway.keeping import Artifacts as Settings
from tests.gateway.artifacts.conftest import grant, service

AT_ONCE = 6


async def write(url: str, section: dict[str, Any], said: int) -> None:
    """For ever."""
    engine = connect(url)
    store = Store(msgspec.convert(section, Settings), Path())
    artifacts = service(ArtifactRows(engine), store, section)

    async def keep() -> None:
        while True:
            # Some are there already, in this child or from one before.
            dice = os.urandom(3)
            data = os.urandom((10, 3_000, 200_000)[dice[0] % 3]) if dice[1] % 5 else b"again"
            made = await artifacts.put(grant(), data, kind="file", mime="text/plain")
            if dice[2] % 5 == 0:
                await artifacts.delete("acme", made.id)
            else:
                os.write(said, f"{made.id}\n".encode())

    await asyncio.gather(*(keep() for _ in range(AT_ONCE)))


def killed(url: str, section: dict[str, Any]) -> bytes:
    """What one child was told, until it was killed."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        try:
            asyncio.run(write(url, section, writing))
        finally:
            os._exit(1)
    os.close(writing)
    told = os.read(reading, 65_536)  # its first artifact is kept
    time.sleep(os.urandom(1)[0] / 5_000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 65_536):
        told += more
    os.close(reading)
    return told[: told.rfind(b"\n") + 1]


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        sys.stdout.write(killed(sys.argv[1], json.loads(sys.argv[2])).decode())
