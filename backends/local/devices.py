"""The GPUs of this machine: whether there are any, and how much memory they have.

Invariant: no driver and no engine is loaded into this process: a child asks, once, and only where there may be one.
"""

import json
import logging
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from backends.local.worker import environment

ASK_S = 20.0
"""A driver that wakes up takes seconds."""
_NODES = ("nvidia0", "kfd", "dri/renderD*", "dxg")
"""Under /dev: NVIDIA's, AMD's, anybody's, and those of Windows under Linux."""
_PROGRAM = """
import json, xllamacpp
devices = [d for d in xllamacpp.get_device_info() if not d["type"].name.endswith("_CPU")]
print(json.dumps([d["memory_total"] for d in devices]))
"""

_log = logging.getLogger(__name__)


@cache
def may_be() -> bool:
    """Whether this machine may have a GPU: one look, no driver is asked."""
    return sys.platform == "darwin" or any(any(Path("/dev").glob(node)) for node in _NODES)


@cache
def memory_bytes() -> int:
    """What all GPUs that the engine can use have together; 0 without one.  The first call may take seconds."""
    if not may_be():
        return 0
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_S,
            check=True,
            env=environment(os.environ),
        )
        return sum(json.loads(asked.stdout))
    except (subprocess.SubprocessError, ValueError, TypeError) as e:
        _log.warning("gpu_unknown", extra={"error": type(e).__name__})
        return 0
