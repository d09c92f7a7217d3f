"""How much memory there is, what a process takes of it, and what engines say of both.

Sizes are in bytes.  A process counts with its resident set: mapped weights are in it, which have to stay in
memory for the model to be quick, and it is there on every platform and read in microseconds.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from backends.local.engine import Name

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CONTAINERS = (
    ("/sys/fs/cgroup", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where Linux says what a container may take and takes, since version 2 of its control groups and before."""

RUNTIME_BYTES: dict[Name, int] = {
    "xllamacpp": 50 << 20,
    "llama_server": 50 << 20,
    "llama_cpp_python": 90 << 20,
    "diffusers": 450 << 20,
    "shap_e": 450 << 20,
    "onnx": 95 << 20,
    "field": 88 << 20,
}
"""What an engine's process takes besides the model and what it computes: the program and its libraries."""

TOKEN_BYTES = 400
"""What llama.cpp keeps for each token of a vocabulary: 250 to 440 in those of BERT, Phi-3, Qwen 2 and Llama 3."""

_HOST = ("CPU", "BLAS")
_vocabulary = re.compile(r"print_info: n_vocab += (\d+)").search
_buffer = re.compile(r"(\S+) +(\w+) buffer size *= *(\d+\.\d+) MiB").search
_SHORTAGES = (
    # llama.cpp and ggml
    r"failed to allocate(?!.*(pinned memory|reorder))",
    r"unable to allocate",
    r"insufficient memory",
    r"cudaMalloc failed: out of memory",
    r"CUDA error: out of memory",
    r"ErrorOutOfDeviceMemory",
    r"ErrorOutOfHostMemory",
    r"kIOGPUCommandBufferCallbackErrorOutOfMemory",
    # C++, Python, numpy
    r"std::bad_alloc",
    r"\bMemoryError\b",
    r"Cannot allocate memory",
    # torch and onnxruntime
    r"CUDA out of memory",
    r"MPS backend out of memory",
    r"DefaultCPUAllocator: (can't|not enough)",
    r"Failed to allocate memory for requested buffer",
)
"""What engines print when memory runs out."""
_shortage = re.compile("|".join(_SHORTAGES), re.IGNORECASE).search


@cache
def machine_bytes() -> int:
    """The memory of this machine, or of the container this is."""
    total: int = psutil.virtual_memory().total
    return min([total, *filter(None, map(_number, _LIMITS))])


def available_bytes() -> int:
    """What programs could still take of it now, without anything having to be swapped out."""
    free: int = psutil.virtual_memory().available
    for folder, current, idle in _CONTAINERS:
        used, limit = _number(f"{folder}/{current}"), machine_bytes()
        if used is not None:
            # Files that were read and are not in use are given up when memory is wanted.
            free = min(free, limit - used + _counters(f"{folder}/memory.stat").get(idle, 0))
    return max(free, 0)


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def kills() -> int | None:
    """How many processes the kernel has ended for want of memory since it started; None: it does not say."""
    return _counters("/proc/vmstat").get("oom_kill")


def tree_bytes(pid: int) -> int | None:
    """What a process and all it started take now; None when it has ended."""
    return sum(_resident(one) for one in family(pid)) or None


def tree_s(pid: int) -> float:
    """The seconds that a process and all it started have taken of processors so far."""
    return sum(map(_computed_s, family(pid)))


def family(pid: int) -> list[int]:
    """A process and all it started.  Where the kernel lists children, that is a hundred times quicker than to go
    through all the processes there are."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        with suppress(psutil.Error):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return []
    found = [pid]
    for one in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    with suppress(psutil.Error):
        size: int = psutil.Process(pid).memory_info().rss
        return size
    return 0  # it has ended meanwhile


def _computed_s(pid: int) -> float:
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        seconds: float = times.user + times.system
        return seconds
    return 0.0  # it has ended meanwhile


def _counters(path: str) -> dict[str, int]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in map(str.split, lines)}


class Said:
    """What an engine says while it loads of the memory it takes, read from what it prints."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], int] = {}
        """By device and kind."""
        self._vocabulary = 0

    def read(self, line: str) -> None:
        if found := _vocabulary(line):
            self._vocabulary = int(found[1])
        if (found := _buffer(line)) is None:
            return
        device, kind, mib = found.groups()
        size = int(float(mib) * 2**20)
        # Space to compute in is made anew as it proves too small; of all else there may be several pieces.
        before = 0 if kind == "compute" else self._buffers.get((device, kind), 0)
        self._buffers[device, kind] = before + size

    @property
    def size_bytes(self) -> int | None:
        """All its buffers together, and what a vocabulary of its size takes; None while it has named none."""
        buffers = sum(self._buffers.values())
        return buffers + self._vocabulary * TOKEN_BYTES if buffers else None

    @property
    def device_bytes(self) -> int:
        """What is not in the machine's own memory."""
        return sum(size for (device, _), size in self._buffers.items() if not device.startswith(_HOST))


def died_of_memory(lines: Iterable[str]) -> bool:
    """Whether what an engine printed means that it wanted more memory than it got."""
    return any(_shortage(line) for line in lines)
