"""The program of a child process: one engine, serving one model on loopback.

The parent writes one JSON line, the spec (`worker.Spec`), to stdin and reads one line from stdout:
{"ready": true, "url": …} or {"failed": reason}.  Invariant: the child never outlives its parent.
Stdin's end means exit at once; on Linux the kernel kills it as well, which also holds while an
engine that keeps the interpreter busy is loading.

Started by path with `python -P`, so it imports no package of ours and starts in a moment.  The key
arrives in the spec: argument lists and environments can be read by others.
"""

import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

Spec = dict[str, Any]
Report = Callable[[dict[str, Any]], None]

HOST = "127.0.0.1"
TELLS_SIZES = 4
"""llama.cpp's level of detail at which it prints what its buffers take; the next prints prompts too."""
GGML_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_listening = re.compile(rf"listening on (http://{re.escape(HOST)}:\d+)").search


def main() -> None:
    die_with_parent()
    keep_orphans()
    # Engines print to stdout; only reports may reach the parent there.
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(0)
    spec: Spec = json.loads(line)
    if os.getppid() != spec["parent"]:
        os._exit(0)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    be_expendable()

    def report(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=reports)

    try:
        ENGINES[spec["engine"]](spec, report)
    except Exception as e:
        report({"failed": f"{type(e).__name__}: {e}"})
        os._exit(1)


def keep_orphans() -> None:
    """Have the kernel give this process what it started, should those in between end: so that all can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends.  Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_with_parent() -> None:
    """Wait for the end of stdin, then end this process and all it started."""
    while os.read(0, 4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def be_expendable() -> None:
    """Leave no core file the size of a model, and be the first to go when memory runs out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def serve_xllamacpp(spec: Spec, report: Report) -> NoReturn:
    """llama.cpp's own server inside this process.  SIGTERM ends it at once: nothing is worth saving."""
    x = import_module("xllamacpp")
    params = x.CommonParams()
    params.model.path = spec["path"]
    params.model_alias = {spec["alias"]}
    params.hostnames, params.port = [HOST], 0
    params.api_keys = [spec["key"]]
    params.cors_origins, params.cors_credentials = "localhost", False
    params.ui = False
    params.n_parallel = spec["slots"]
    # Not unified: every slot has its whole context for itself, and attends to its own cells only.
    params.n_ctx = spec["context"] * spec["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec["threads"]
    params.n_batch = params.n_ubatch = spec["n_batch"]
    params.cache_ram_mib = 0
    params.cache_type_k = params.cache_type_v = getattr(x.ggml_type, f"GGML_TYPE_{spec['kv_type'].upper()}")
    params.n_gpu_layers = spec["gpu_layers"]
    # Trying what fits takes as long as loading, and without a GPU there is nothing to be found.
    params.fit_params = spec["gpu_layers"] < 0 and len(x.get_device_info()) > 1
    params.embedding = spec["embedding"] or spec["reranking"]
    if spec["reranking"]:
        params.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    if spec["projector"]:
        params.mmproj.path = spec["projector"]
    params.lora_adapters = [x.CommonAdapterLoraInfo(one["path"], one["scale"]) for one in spec["adapters"]]
    params.verbosity = TELLS_SIZES
    server = x.Server(params)
    report({"ready": True, "url": server.listening_address})
    while True:
        signal.pause()


def serve_llama_server(spec: Spec, report: Report) -> NoReturn:
    """The native program, as a child of this one in the same process group."""
    key_end, our_end = os.pipe()
    os.write(our_end, spec["key"].encode())
    os.close(our_end)
    per_slot = {"--ctx-size": spec["context"] * spec["slots"], "--parallel": spec["slots"]}
    threads = dict.fromkeys(("--threads", "--threads-batch"), spec["threads"])
    batch = dict.fromkeys(("--batch-size", "--ubatch-size"), spec["n_batch"])
    # A pipe instead of a file: nothing to clean up, and nobody else can open it.
    where = {"--host": HOST, "--port": 0, "--api-key-file": f"/dev/fd/{key_end}"}
    names = {"--model": spec["path"], "--alias": spec["alias"]}
    kept = dict.fromkeys(("--cache-type-k", "--cache-type-v"), spec["kv_type"])
    options = [str(word) for pair in (names | where | per_slot | threads | batch | kept).items() for word in pair]
    options += (["--embedding"] if spec["embedding"] else []) + (["--reranking"] if spec["reranking"] else [])
    options += ["--mmproj", spec["projector"]] if spec["projector"] else []
    options += ["--n-gpu-layers", str(spec["gpu_layers"])] if spec["gpu_layers"] >= 0 else []
    for adapter in spec["adapters"]:
        whole = adapter["scale"] == 1
        options += ["--lora", adapter["path"]] if whole else ["--lora-scaled", f"{adapter['path']}:{adapter['scale']}"]
    # What only tidies up goes by environment, where builds that do not know it ignore it.
    tidy = {
        "LLAMA_ARG_UI": "0",
        "LLAMA_ARG_CORS_ORIGINS": "localhost",
        "LLAMA_ARG_CACHE_RAM": "0",
        "LLAMA_ARG_ENDPOINT_SLOTS": "1",
        "LLAMA_ARG_LOG_VERBOSITY": str(TELLS_SIZES),
    }
    if spec["gpu_layers"] >= 0:
        tidy["LLAMA_ARG_FIT"] = "off"
    # A handler, not SIG_IGN, which the program would inherit: on SIGTERM to the group it ends, then we do.
    signal.signal(signal.SIGTERM, lambda *_: None)
    process = subprocess.Popen(
        [spec["binary"], *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # It holds our stderr open for as long as it exists: by that the parent knows when all is gone.
        pass_fds=[key_end, os.dup(2)],
        env=os.environ | tidy,
        preexec_fn=die_with_parent,
    )
    os.close(key_end)
    assert process.stdout is not None
    told = False
    for line in process.stdout:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        if not told and (found := _listening(line.decode("utf-8", "replace"))):
            told = True
            report({"ready": True, "url": found[1]})
    status = process.wait()
    os._exit(status if status >= 0 else 128 - status)


def serve_llama_cpp_python(spec: Spec, report: Report) -> NoReturn:
    """llama-cpp-python's server, one request at a time.

    `interrupt_requests` off, or each new request would cut off the one that is running.
    """
    uvicorn, server = import_module("uvicorn"), import_module("llama_cpp.server.app")
    settings = import_module("llama_cpp.server.settings")
    # Its quiet mode closes stderr around native calls; its verbose one prints every node of a graph, because it
    # takes llama.cpp's levels for others.
    llama: Any = import_module("llama_cpp.llama")
    llama.set_verbose = bool
    log: Any = import_module("llama_cpp._logger")
    log.GGML_LOG_LEVEL_TO_LOGGING_LEVEL.update({1: 10, 2: 20, 3: 30, 4: 40, 5: 20})
    log.logger.setLevel(20)
    app = server.create_app(
        server_settings=settings.ServerSettings(interrupt_requests=False, api_key=spec["key"]),
        model_settings=[
            settings.ModelSettings(
                model=spec["path"],
                model_alias=spec["alias"],
                n_gpu_layers=spec["gpu_layers"],
                n_ctx=spec["context"],
                n_batch=spec["n_batch"],
                n_ubatch=spec["n_batch"],
                type_k=GGML_TYPES[spec["kv_type"]],
                type_v=GGML_TYPES[spec["kv_type"]],
                # Values can be kept in fewer bits only so; and what is locked cannot make room for others.
                flash_attn=True,
                use_mlock=False,
                # Or every token of the context keeps its 32-bit score of every token there is: gigabytes.
                logits_all=False,
                lora_path=spec["adapters"][0]["path"] if spec["adapters"] else None,
                n_threads=spec["threads"],
                n_threads_batch=spec["threads"],
                embedding=spec["embedding"],
            )
        ],
    )
    refuse_bad_grammars()
    explain_failures(server)
    app.user_middleware = [m for m in app.user_middleware if m.cls.__name__ != "CORSMiddleware"]

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # SIGTERM ends the process at once, not after the last answer

    listener = socket.create_server((HOST, 0))
    report({"ready": True, "url": f"http://{HOST}:{listener.getsockname()[1]}"})
    config = uvicorn.Config(stopping_early(app), log_level="error", access_log=False, lifespan="off", ws="none")
    Server(config).run(sockets=[listener])
    os._exit(0)


class Unfit(Exception):
    """A request is at fault; `param` names the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def refuse_bad_grammars() -> None:
    """Have llama-cpp-python refuse grammars and schemas it cannot read.

    By itself it crashes with the former, and answers with any JSON to the latter.
    """
    library: Any = import_module("llama_cpp")
    formats: Any = import_module("llama_cpp.llama_chat_format")
    sampler = import_module("llama_cpp._internals").LlamaSampler

    def add_grammar(self: Any, model: Any, grammar: Any) -> None:
        text, root = grammar._grammar.encode(), grammar._root.encode()
        made = library.llama_sampler_init_grammar(model.vocab, text, root)
        if not made:
            raise Unfit("Invalid 'grammar': it is no GBNF that the engine can read.", "grammar")
        library.llama_sampler_chain_add(self.sampler, made)

    def of_schema(schema: str, verbose: bool = False) -> Any:
        try:
            return formats.llama_grammar.LlamaGrammar.from_json_schema(schema, verbose=verbose)
        except Exception as e:
            what = "Invalid schema for 'response_format': it cannot be made into a grammar."
            raise Unfit(what, "response_format") from e

    sampler.add_grammar = add_grammar
    formats._grammar_for_json_schema = of_schema


def explain_failures(server: Any) -> None:
    """Have llama-cpp-python say in a stream why it fails; by itself it just ends the stream.

    A prompt that is too long is such a failure: the head of the answer is out before it is noticed.
    """
    publish = server.get_event_publisher
    errors = import_module("llama_cpp.server.errors").RouteErrorHandler

    async def publish_or_explain(inner_send_chan: Any, body: Any, **rest: Any) -> None:
        async with inner_send_chan.clone() as channel:
            try:
                await publish(inner_send_chan=inner_send_chan, body=body, **rest)
            except Exception as e:
                _, error = errors.error_message_wrapper(errors, e, body)
                if isinstance(e, Unfit):
                    blame = {"status": 400, "type": "invalid_request_error", "code": "invalid_value", "param": e.param}
                    error |= blame
                await channel.send({"data": json.dumps({"error": error})})

    server.get_event_publisher = publish_or_explain


def stopping_early(app: Any) -> Any:
    """Have llama-cpp-python stop reading a prompt when its client has gone, and answer /pulse between two steps.

    By itself it notices only between tokens, after the whole prompt, with everybody else waiting.
    """
    llama = import_module("llama_cpp").Llama
    gone_of_request: ContextVar[threading.Event] = ContextVar("gone_of_request")
    evaluate = llama.eval
    pause = import_module("asyncio").sleep
    steps = {"begun": 0, "done": 0}

    def eval_in_steps(self: Any, tokens: Any) -> None:
        gone = gone_of_request.get(None)
        for at in range(0, len(tokens), self.n_batch):
            if gone is not None and gone.is_set():
                raise ConnectionAbortedError("The client has gone.")
            steps["begun"] += 1
            try:
                evaluate(self, tokens[at : at + self.n_batch])
            finally:
                steps["done"] += 1

    llama.eval = eval_in_steps

    async def pulse(send: Any) -> None:
        step = steps["begun"]
        while steps["done"] < step:
            await pause(0.1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/pulse":
            return await pulse(send)
        gone = threading.Event()
        gone_of_request.set(gone)

        async def watch() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                gone.set()
            return message

        try:
            await app(scope, watch, send)
        except Exception:
            if not gone.is_set():
                raise

    return watched


def studio(module: str) -> Callable[[Spec, Report], NoReturn]:
    """An engine that makes pictures or meshes: a module of ours, which is imported when its model is."""

    def serve(spec: Spec, report: Report) -> NoReturn:
        # Where this tree was not installed, only the program beside this file is found.
        sys.path.append(str(Path(__file__).resolve().parents[2]))
        import_module(module).serve(spec, report)
        raise AssertionError("a studio serves until its process ends")

    return serve


ENGINES: dict[str, Callable[[Spec, Report], NoReturn]] = {
    "xllamacpp": serve_xllamacpp,
    "llama_server": serve_llama_server,
    "llama_cpp_python": serve_llama_cpp_python,
    "diffusers": studio("backends.local.studio.diffusion"),
    "onnx": studio("backends.local.studio.diffusion"),
    "field": studio("backends.local.studio.field"),
    "shap_e": studio("backends.local.studio.shap_e"),
}

if __name__ == "__main__":
    main()
