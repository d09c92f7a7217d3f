"""A last look before a model is started: at what its engine needs, at its files, which may have changed since they
were found, and at what its engine cannot do.

What is found wanting here is wanting until somebody mends it, so it is told at once, before there is a thought of
memory, and looked for anew whenever the model is wanted.
"""

import asyncio
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from backends.local import gguf
from backends.local.engine import Engine, lacking
from backends.local.worker import Failed, Spec, TextSpec
from backends.ports import Local

Look = tuple[tuple[int, int] | None, ...]
"""How the files were that a model is run from: when each was last changed, and its size; None: it is not there."""


async def inspect(local: Local, spec: Spec, engine: Engine) -> None:
    """Raises Failed, in words fit for clients, for a model that this engine cannot run."""
    await asyncio.to_thread(glance, local, spec, engine)
    if isinstance(spec, TextSpec):
        await asyncio.to_thread(_read, local)


def glance(local: Local, spec: Spec, engine: Engine) -> Look:
    """The same without opening a file; returns how they are, by which it is known when they are others."""
    if (cure := lacking(engine.name)) is not None:
        raise Failed(f"Model '{local.name}' needs {engine.name}, which is not installed here: {cure}.", lasting=True)
    wanted = {"": [local.made_from if _is_unmade(local) else local.path]}
    if isinstance(spec, TextSpec):
        if limit := _limit(spec, engine):
            raise Failed(f"Model '{local.name}' cannot run on the engine {engine.name}: {limit}.", lasting=True)
        wanted |= {"projector": [spec.projector], "adapters": [adapter.path for adapter in spec.adapters]}
    for field, paths in wanted.items():
        of = f"that {field} of model '{local.name}' names" if field else f"of model '{local.name}'"
        for path in filter(None, paths):
            if not (Path(path).is_file() if field else Path(path).exists()):
                raise Failed(f"A file {of} is not there.", (path,), lasting=True)
            if not os.access(path, os.R_OK):
                raise Failed(f"A file {of} may not be read.", (path,), lasting=True)
    named = [path for paths in wanted.values() for path in paths if path]
    # What is installed lies in one folder, which changes when anything comes or goes.
    return tuple(map(_state, [*_files(named), sysconfig.get_path("purelib"), *filter(None, [engine.binary])]))


def _is_unmade(local: Local) -> bool:
    return local.made_from is not None and not Path(local.path).exists()


def _files(paths: list[str]) -> Iterator[str]:
    for path in paths:
        yield path
        yield from sorted(str(inside) for inside in Path(path).rglob("*"))


def _state(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    # Not when it was written, which a copy keeps: whoever puts another in its place or lets it be read changes this.
    return stat.st_ctime_ns, stat.st_size


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


def _read(local: Local) -> None:
    try:
        header = gguf.read(local.path)
    except (OSError, ValueError) as e:
        raise Failed(f"The file of model '{local.name}' cannot be read.", (str(e),), lasting=True) from e
    if header.truncated:
        raise Failed(f"The file of model '{local.name}' is incomplete.", lasting=True)
