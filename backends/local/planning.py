"""How a model is to be run, and what memory that takes: from what its files say, what the configuration
allows and what the machine has.

Invariant: pure but for what the machine has.  Nothing is started here, no file read, no engine imported.
"""

import hashlib
import os
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from backends.local import devices
from backends.local.engine import STUDIOS, Engine
from backends.local.memory import RUNTIME_BYTES, TOKEN_BYTES, machine_bytes
from backends.local.pool.scheduler import fit
from backends.local.settings import Settings
from backends.local.worker import Spec, StudioSpec, TextSpec
from backends.ports import Local, Reckoning
from compat.canonical.message import Value

CONTEXT_FLOOR = 2048
"""The ladder never leaves a model with less."""

_KV_SHARE = {"f16": 1.0, "q8_0": 34 / 64, "q4_0": 18 / 64}
"""Of the bytes of 16-bit floats: blocks of 32 numbers with a scale of two bytes."""
_COMPUTED_BYTES = 60
"""To compute in, for each token of a batch and each number of a model's width, as llama.cpp reserves it."""
_STUDIO_FACTOR = {"diffusers": 2.0, "shap_e": 2.0, "onnx": 2.0, "field": 4.0}
"""Weights in memory for those in files: widened to 32 bits, and what is computed from them."""


class Plan(Value, frozen=True):
    spec: Spec
    need_bytes: int
    """Of the whole process."""
    measured: bool
    """`need_bytes` is what was found at earlier runs; otherwise it is an estimate."""
    key: str
    """Under which the need is remembered: the model, its file and how it is run."""
    step: str | None = None
    """What was given up last on the ladder; None where nothing was."""


def plan(local: Local, settings: Settings, engine: Engine, reckoning: Reckoning | None, rung: int = 0) -> Plan | None:
    """How a model is run on this rung of the ladder; None where there is no such rung.

    engine: the one for GGUF; what makes pictures and meshes has its own.
    """
    for at, (spec, step) in enumerate(_rungs(local, settings, engine)):
        if at == rung:
            key = _key(local, spec)
            known = reckoning.known(key) if reckoning is not None else None
            need = known if known is not None else estimate(local, spec)
            return Plan(spec=spec, need_bytes=need, measured=known is not None, key=key, step=step)
    return None


def engine_of(local: Local, engine: Engine) -> Engine:
    """The engine that runs this model."""
    match local.format:
        case "gguf":
            return engine
        case "diffusers":
            return STUDIOS["shap_e" if local.model.modality == "3d" else "diffusers"]
        case _:
            return STUDIOS[local.format]


def estimate(local: Local, spec: Spec) -> int:
    """Bytes of the whole process, before it has ever run."""
    weights = local.model.size_bytes or 0
    if not isinstance(spec, TextSpec):
        return int(weights * _STUDIO_FACTOR[spec.engine]) + RUNTIME_BYTES[spec.engine]
    traits = local.traits
    kv = int(traits.kv_bytes_per_token * _KV_SHARE[spec.kv_type]) * spec.context * spec.slots
    computed = spec.n_batch * traits.width * _COMPUTED_BYTES
    around = RUNTIME_BYTES[spec.engine] + traits.vocabulary * TOKEN_BYTES
    return weights + traits.projector_bytes + kv + computed + around


def _text_spec(local: Local, settings: Settings, engine: Engine) -> TextSpec:
    own = settings.of(local.name)
    embeds, ranks = local.model.modality == "embedding", local.model.modality == "rerank"
    context, slots = fit(
        context_length=local.model.context_length,
        kv_bytes_per_token=local.traits.kv_bytes_per_token,
        context_max=settings.context(local),
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
        # A text to embed or rank is read in one piece or refused.
        n_batch=context if embeds or ranks else min(settings.n_batch, context),
        embedding=embeds,
        reranking=ranks,
        binary=engine.binary,
        gpu_layers=-1 if layers == "auto" else layers,
        kv_type=own.kv_type or settings.kv_type,
        # One that was found beside the model is used where it can be; one that was asked for is insisted on.
        projector=own.projector or (local.projector if engine.sees else None),
        adapters=own.adapters,
    )


def _studio_spec(local: Local, settings: Settings) -> StudioSpec:
    own = settings.of(local.name)
    return StudioSpec(
        engine=engine_of(local, STUDIOS["field"]).name,
        path=local.path,
        alias=local.name,
        slots=1,
        threads=own.threads or settings.threads or spare_cores(),
        device=settings.device,
    )


def _rungs(local: Local, settings: Settings, engine: Engine) -> Iterator[tuple[Spec, str | None]]:
    """Ways to run a model, each taking less memory than the one before, with what is given up for it."""
    if local.format != "gguf":
        yield _studio_spec(local, settings), None
        return
    spec = _text_spec(local, settings, engine)
    yield spec, None
    if spec.slots > 1:
        given = spec.slots
        spec = replace(spec, slots=1)
        yield spec, f"1 request at a time instead of {given}"
    while spec.context // 2 >= CONTEXT_FLOOR:
        context = spec.context // 2
        spec = replace(spec, context=context, n_batch=min(spec.n_batch, context))
        yield spec, f"a context of {context} tokens instead of {context * 2}"
    if local.traits.kv_bytes_per_token and spec.kv_type == "f16":
        spec = replace(spec, kv_type="q8_0")
        yield spec, "keys and values in 8 bits instead of 16"
    if local.traits.kv_bytes_per_token and spec.kv_type == "q8_0":
        spec = replace(spec, kv_type="q4_0")
        yield spec, "keys and values in 4 bits instead of 8"
    if spec.gpu_layers != 0 and local.traits.layers and devices.may_be():
        given = local.traits.layers if spec.gpu_layers < 0 else min(spec.gpu_layers, local.traits.layers)
        if given > 1:
            spec = replace(spec, gpu_layers=given // 2)
            yield spec, f"{given // 2} layers on the GPU instead of {given}"
        yield replace(spec, gpu_layers=0), "no layers on the GPU"


def _key(local: Local, spec: Spec) -> str:
    told = [local.model.size_bytes, local.traits.modified_ns, msgspec.to_builtins(spec)]
    return f"{local.name[:200]}@{hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:24]}"


def spare_cores() -> int:
    """All but one: with none to spare, an engine's threads wait for each other."""
    return max(1, (os.cpu_count() or 1) - 1)
