"""How a model is to be run: from what its files say, what the configuration allows and what the machine has.

Invariant: nothing is started here, and no engine imported.
"""

import asyncio
import os

from backends.base import Local
from backends.local import gguf
from backends.local.engine import Engine
from backends.local.scheduler import fit
from backends.local.settings import Settings
from backends.local.worker import Failed, TextSpec


async def text_spec(local: Local, settings: Settings, engine: Engine) -> TextSpec:
    """How a GGUF file is run.  Raises Failed for one that cannot be."""
    try:
        header = await asyncio.to_thread(gguf.read, local.path)
    except (OSError, ValueError) as e:
        raise Failed(f"The file of model '{local.name}' cannot be read.", (str(e),)) from e
    if header.truncated:
        raise Failed(f"The file of model '{local.name}' is incomplete.")
    own = settings.of(local.name)
    context, slots = fit(
        context_length=header.context_length,
        kv_bytes_per_token=header.kv_bytes_per_token,
        context_max=own.context_max or settings.context_max,
        slots=(own.slots or settings.slots) if engine.parallel else 1,
        memory_bytes=machine_bytes(),
    )
    layers = settings.gpu_layers if own.gpu_layers is None else own.gpu_layers
    return TextSpec(
        engine=engine.name,
        path=local.path,
        alias=local.name,
        context=context,
        slots=slots,
        threads=own.threads or settings.threads or spare_cores(),
        # A text to embed is read in one piece or refused.
        n_batch=context if header.embeds else min(settings.n_batch, context),
        embedding=header.embeds,
        binary=engine.binary,
        gpu_layers=-1 if layers == "auto" else layers,
        kv_type=own.kv_type or settings.kv_type,
        projector=own.projector or local.projector,
        adapters=own.adapters,
    )


def machine_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def spare_cores() -> int:
    """All but one: with none to spare, an engine's threads wait for each other."""
    return max(1, (os.cpu_count() or 1) - 1)
