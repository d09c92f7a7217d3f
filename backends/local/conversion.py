"""Makes the file of a model that came in another format, when it is first wanted."""

import asyncio
import os
import sys
from pathlib import Path

from backends.local.worker import Failed, environment
from backends.ports import Local

TIMEOUT_S = 300.0
"""The model that comes with the house takes two seconds."""
_PASSING = 3
"""The program's status for what is not the files' fault; see there."""
_PROGRAM = Path(__file__).with_name("bert.py")


async def made(local: Local) -> None:
    """Return once the model's file is there.  Raises Failed.

    In a process of its own, which holds the weights in memory several times over for a moment and is gone when this
    is cancelled.  However many ask, in however many processes, the file is made once.
    """
    if local.made_from is None or await asyncio.to_thread(os.path.exists, local.path):
        return
    pins = () if local.sha256 is None else (local.sha256,)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(_PROGRAM), local.made_from, local.path, *pins),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=environment(os.environ),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            # Not `communicate`, which would end its stdin and with that the process.
            said, log = await asyncio.gather(process.stdout.read(), process.stderr.read())
            await process.wait()
    except TimeoutError as e:
        raise Failed(f"The file of model '{local.name}' could not be made in {TIMEOUT_S:g} s.") from e
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        reason = said.decode("utf-8", "replace").strip() or "its files are not what they should be"
        lasting = process.returncode not in (_PASSING, None) and process.returncode > 0
        lines = log.decode("utf-8", "replace").splitlines()
        raise Failed(
            f"The file of model '{local.name}' could not be made: {reason}.", tuple(lines[-40:]), lasting=lasting
        )
