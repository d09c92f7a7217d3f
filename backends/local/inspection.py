"""A last look before a model is started: at its files, which may have changed since they were found, and at what
its engine cannot do.
"""

import asyncio
from pathlib import Path

from backends.local import gguf
from backends.local.engine import Engine
from backends.local.worker import Failed, Spec, TextSpec
from backends.ports import Local


async def inspect(local: Local, spec: Spec, engine: Engine) -> None:
    """Raises Failed, in words fit for clients, for a model that this engine cannot run."""
    if isinstance(spec, TextSpec):
        if limit := _limit(spec, engine):
            raise Failed(f"Model '{local.name}' cannot run on the engine {engine.name}: {limit}.")
        await asyncio.to_thread(_look, local, spec)


def _limit(spec: TextSpec, engine: Engine) -> str | None:
    """What the engine cannot do of what is asked of it."""
    if spec.projector is not None and not engine.sees:
        return "it shows no pictures to models; take projector away or set engine to xllamacpp or llama_server"
    if spec.reranking and not engine.ranks:
        return "it does not rerank; set engine to xllamacpp or llama_server"
    scaled = len(spec.adapters) > 1 or any(adapter.scale != 1 for adapter in spec.adapters)
    if scaled and not engine.scales_adapters:
        return "it takes one adapter, at scale 1; set engine to xllamacpp or llama_server"
    return None


def _look(local: Local, spec: TextSpec) -> None:
    wanted = {"projector": [spec.projector] if spec.projector else [], "adapters": [a.path for a in spec.adapters]}
    for field, paths in wanted.items():
        if not all(Path(path).is_file() for path in paths):
            raise Failed(f"A file that {field} of model '{local.name}' names is not there.", tuple(paths))
    try:
        header = gguf.read(local.path)
    except (OSError, ValueError) as e:
        raise Failed(f"The file of model '{local.name}' cannot be read.", (str(e),)) from e
    if header.truncated:
        raise Failed(f"The file of model '{local.name}' is incomplete.")
