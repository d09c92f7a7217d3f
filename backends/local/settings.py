"""What a configuration may say of the models on this machine."""

import re
from math import inf
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError
from msgspec.structs import replace

from backends.local.engine import Setting
from backends.ports import Local
from compat import amount

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Idle = Seconds | Literal["never"]
"""How long a model may be idle before it is unloaded."""
Cache = Literal["huggingface", "ollama", "lmstudio"]
KvType = Literal["f16", "q8_0", "q4_0"]
"""How the keys and values of a context are kept: 16 bits each, or about half or a quarter of that."""
Layers = Annotated[int, Meta(ge=0)] | Literal["auto"]
"""How many of a model's layers a GPU takes; auto: as many as fit, which is none without one."""
LongInputs = Literal["refuse", "chunk"]
"""What becomes of a text to embed or rank that is longer than the model reads at once: it is refused, or cut into
parts, of which embeddings take the mean and ranking the best."""

_share = re.compile(r"\d+(?:\.\d+)?\s*%").fullmatch


class Adapter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter in GGUF, applied when its model is loaded."""

    path: str
    scale: float = 1.0


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different for one model; None takes what holds for all."""

    defaults: dict[str, Any] = {}
    """Fields of a request for where the client says nothing."""
    projector: str | None = None
    """The mmproj file that lets it see; None takes the one beside it."""
    adapters: tuple[Adapter, ...] = ()
    context_max: Annotated[int, Meta(ge=256)] | None = None
    slots: Count | None = None
    threads: Count | None = None
    gpu_layers: Layers | None = None
    kv_type: KvType | None = None
    idle_unload_s: Idle | None = None
    long_inputs: LongInputs = "refuse"
    matryoshka: bool = False
    """It was trained so that the first numbers of a vector say most: `dimensions` may cut the others off."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: Setting = "auto"
    """What runs text models; `auto` takes xllamacpp, else llama_server, else llama_cpp_python."""
    llama_server: str | None = None
    """The native llama-server program, a path or a name on PATH; None looks for `llama-server` there."""
    model_dirs: tuple[str, ...] = ()
    """Folders with models.  Read by the house, which fills the catalogue."""
    watch: bool = True
    """Look at these folders again when anything in them changes."""
    adopt: tuple[Cache, ...] = ()
    """Whose files are served from where they lie, without a copy: the caches of other programs."""
    models: dict[str, ModelSettings] = {}
    """What is different for some models, by their names here."""
    max_loaded: Count = 3
    """Models in memory at a time."""
    memory_max: str | int = "80%"
    """What all models in memory may take together: bytes, `6GiB`, or a share of the machine's memory."""
    slots: Count = 4
    """Requests a model serves at once, where the engine can; the others queue."""
    idle_unload_s: Idle | None = 600.0
    """None is never."""
    pin: tuple[str, ...] = ()
    """Models that are loaded at the start and never have to go."""
    queue_max: Count = 64
    """Requests that may wait for one model."""
    threads: Count | None = None
    """For each model; None takes all cores but one: with none to spare, llama.cpp's threads wait for each other."""
    n_batch: Count = 128
    """Prompt tokens read between two looks at whether the client is still there."""
    context_max: Annotated[int, Meta(ge=256)] = 8192
    """Tokens of context for each slot, unless the model has fewer."""
    gpu_layers: Layers = "auto"
    kv_type: KvType = "f16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where torch makes pictures and meshes."""
    stall_s: Seconds = 120.0
    """How long a model that is loading may show no sign of life."""
    hang_s: Seconds = 90.0
    """How long a model that works may show none before it is asked whether it lives, and ended if it does not say."""

    def of(self, model: str) -> ModelSettings:
        return self.models.get(model, _NOTHING)

    def idle_s(self, model: str) -> float:
        """How long a model may be idle before it is unloaded."""
        own = self.of(model).idle_unload_s
        given = self.idle_unload_s if own is None else own
        return inf if given is None or given == "never" else given

    def context(self, local: Local) -> int:
        """Tokens of context that a model has here: its own, unless fewer are allowed."""
        most = self.of(local.name).context_max or self.context_max
        return min(local.model.context_length or most, most)

    def bounded(self, local: Local) -> Local:
        """The model as clients and routes are to know it: with the context that it has here."""
        if local.format != "gguf":
            return local
        return replace(local, model=replace(local.model, context_length=self.context(local)))


_NOTHING = ModelSettings()


def memory_bytes(setting: str | int, total: int) -> int:
    """`memory_max` in bytes, on a machine that has so many in total.  Raises ValidationError naming the cure."""
    share = float(setting[:-1]) if isinstance(setting, str) and _share(setting) else None
    try:
        given = amount.parse(setting) if share is None else int(total * share / 100)
    except ValueError:
        raise ValidationError(f"memory_max: '{setting}' is no amount; write bytes, 6GiB or 80%") from None
    if share is not None and share > 100:
        raise ValidationError("memory_max: more than 100% of the memory is not there")
    if given < 1:
        raise ValidationError("memory_max: with no memory there are no local models; write bytes, 6GiB or 80%")
    return given
