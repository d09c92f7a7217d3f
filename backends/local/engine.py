"""The engines a local model can run on: what each is called, needs and cannot do.

Invariant: nothing here imports an engine.  Whether one is installed is asked of the import system and
of PATH; only a child process ever loads one (`child.py`).
"""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from msgspec.structs import replace

from compat.canonical.message import Value

Llama = Literal["xllamacpp", "llama_server", "llama_cpp_python"]
"""Those that run GGUF files."""
Studio = Literal["diffusers", "onnx", "shap_e", "field"]
"""Those that make pictures (diffusers; onnx without torch) and meshes (Shap-E; field, our own, with numpy alone)."""
Name = Llama | Studio
Setting = Literal["auto", "xllamacpp", "llama_server", "llama_cpp_python"]

ORDER: tuple[Llama, ...] = ("xllamacpp", "llama_server", "llama_cpp_python")
"""What `auto` prefers: quick to install and parallel, then parallel, then the rest."""


class Engine(Value, frozen=True):
    name: Name
    parallel: bool
    """It serves several requests at once; otherwise they take turns in our queue, whatever `slots` says."""
    health_path: str
    """Answers 200 once the model is loaded."""
    pulse_path: str
    """Answered by the loop that computes, not only by the thread that listens: llama.cpp's queues the question as it
    does requests (its /slots and /health are answered beside the loop).  Studios have no such address."""
    counts_usage: bool
    """It heeds `stream_options.include_usage`; otherwise streams carry no usage."""
    counts_prompts: bool = True
    """It tells how many tokens a chat request is, without answering it."""
    tells_more: bool = True
    """Its chat answers say more of themselves where asked: a prompt's length, a stop sequence."""
    tells_logprobs: bool = True
    tokens: tuple[str, str] = ("/tokenize", "content")
    """Where it tells a text's tokens, and what that calls the text."""
    embeds_tokens: bool = True
    """It embeds texts that come as token ids."""
    ranks: bool = True
    """It reranks."""
    sees: bool = True
    """It takes a projector, with which a model sees pictures."""
    scales_adapters: bool = True
    """It takes several LoRA adapters, each at a scale of its own; otherwise one, as it is."""
    reads_calls: bool = True
    """It reads calls of tools out of what a model says; otherwise they come as text."""
    stoppable: bool = True
    """It stops within a second when its client has gone; otherwise its process has to be ended."""
    binary: str | None = None
    """The program it is, for an engine that is not a Python module."""


_ENGINES: dict[Llama, Engine] = {
    "xllamacpp": Engine(
        name="xllamacpp", parallel=True, health_path="/health", pulse_path="/lora-adapters", counts_usage=True
    ),
    "llama_server": Engine(
        name="llama_server", parallel=True, health_path="/health", pulse_path="/lora-adapters", counts_usage=True
    ),
    # Its server has one lock around the model and no health endpoint.
    "llama_cpp_python": Engine(
        name="llama_cpp_python",
        parallel=False,
        health_path="/v1/models",
        pulse_path="/pulse",
        counts_usage=False,
        counts_prompts=False,
        tells_more=False,
        reads_calls=False,
        tells_logprobs=False,
        tokens=("/extras/tokenize", "input"),
        embeds_tokens=False,
        ranks=False,
        sees=False,
        scales_adapters=False,
    ),
}
STUDIOS: dict[Studio, Engine] = {
    name: Engine(
        name=name,
        parallel=False,
        health_path="/health",
        pulse_path="/health",
        counts_usage=False,
        stoppable=name != "shap_e",
    )
    for name in ("diffusers", "onnx", "shap_e", "field")
}
_TORCH = ("torch", "diffusers", "transformers", "accelerate")
_MODULES: dict[Name, tuple[str, ...]] = {
    "xllamacpp": ("xllamacpp",),
    "llama_cpp_python": ("llama_cpp", "fastapi", "uvicorn", "starlette_context"),
    "diffusers": _TORCH,
    "shap_e": _TORCH,
}
_CURES = {
    "xllamacpp": "pip install xllamacpp",
    "llama_cpp_python": "pip install 'pluggably[llama-cpp-python]'",
    "llama_server": "install llama.cpp so that llama-server is on PATH, or set llama_server to the program's path",
    "diffusers": "pip install 'pluggably[image]'",
    "shap_e": "pip install 'pluggably[image]'",
}

Which = Callable[[str], str | None]


def _has_module(name: str) -> bool:
    return find_spec(name) is not None


def find(
    name: Llama,
    llama_server: str | None = None,
    *,
    has_module: Callable[[str], bool] = _has_module,
    which: Which = shutil.which,
) -> Engine | None:
    """The engine if it is installed here, else None.

    llama_server: the native program, a path or a name on PATH.
    """
    engine = _ENGINES[name]
    if name == "llama_server":
        binary = which(llama_server or "llama-server")
        return replace(engine, binary=binary) if binary else None
    return engine if all(map(has_module, _MODULES[name])) else None


def lacking(name: Name, *, has_module: Callable[[str], bool] = _has_module) -> str | None:
    """How to get what this engine needs and is not installed here; None where all of it is."""
    return None if all(map(has_module, _MODULES.get(name, ()))) else _CURES[name]


def choose(
    setting: Setting,
    llama_server: str | None = None,
    *,
    has_module: Callable[[str], bool] = _has_module,
    which: Which = shutil.which,
) -> Engine:
    """The engine that a configuration asks for.  Raises ValueError naming the field and the cure."""
    if llama_server is not None and which(llama_server) is None:
        raise ValueError(f"llama_server: there is no program '{llama_server}'; give its path, or leave the key out.")
    for name in ORDER if setting == "auto" else (setting,):
        if engine := find(name, llama_server, has_module=has_module, which=which):
            return engine
    if setting == "auto":
        raise ValueError(f"engine: no engine for local models is installed; {_CURES['xllamacpp']}")
    raise ValueError(f"engine: {setting} is not installed; {_CURES[setting]}")
