"""Whether a model fits this machine, before anything of it is here: an estimate from what the hub says."""

from typing import Literal

Fit = Literal["fits", "tight", "no"]
"""tight: alone it does, but there is little room for anything else."""

COMFORTABLE = 0.7
"""Of the memory that models may take: more is tight."""
OVERHEAD = 1.1
"""What an engine takes for a model's file, against its size."""
_PIPELINE_BYTES = 1 << 30
"""What a pipeline takes besides its weights."""
_CONTEXT = 8192
"""Tokens of context that a model is loaded with, unless the configuration says otherwise."""
_BITS = 5.0
"""That a number takes of a file, where it is not said how many numbers there are."""
ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert"}
)
"""Architectures that read a text in one piece and keep nothing of it."""


def memory(size_bytes: int, *, parameters: int | None, context: int | None, architecture: str | None) -> int:
    """Bytes that a model of GGUF files may take, its context included.

    The hub does not say how wide a model is.  Keys and values of one token were 18 KiB at 135 million parameters
    (SmolLM2), 32 at 1.2 billion, 128 at 8 and 320 at 70 (Llama 3): about 14 KiB times the root of the hundred millions.
    """
    if architecture is not None and architecture.lower() in ENCODERS:
        return int(size_bytes * OVERHEAD)
    numbers = parameters or size_bytes * 8 / _BITS
    each = 14 * 1024 * (numbers / 1e8) ** 0.5
    return int(size_bytes * OVERHEAD + each * min(context or _CONTEXT, _CONTEXT))


def pipeline_memory(size_bytes: int) -> int:
    """Bytes that a pipeline of several models may take."""
    return int(size_bytes * OVERHEAD) + _PIPELINE_BYTES


def fit(memory_needed: int, memory_bytes: int, *, size_bytes: int = 0, disk_bytes: int | None = None) -> Fit:
    """memory_bytes: what models may take; disk_bytes: what a download may; None is as much as it wants."""
    if memory_needed > memory_bytes or (disk_bytes is not None and size_bytes > disk_bytes):
        return "no"
    return "fits" if memory_needed <= memory_bytes * COMFORTABLE else "tight"
