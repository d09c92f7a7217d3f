"""One child process, seen from the parent: started, watched, stopped.

    unloaded ─start→ spawning ─its program runs→ loading ─healthy→ ready
    any of these ─dies, reports failure, falls silent→ failed
    any of these ─stop→ draining ─gone→ unloaded

Invariant: once `stop` has returned, or `gone` has, no process of this worker is left.  A worker is
used once; whoever owns it makes a new one for the next start.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from backends.local.engine import Engine, Name
from backends.local.memory import RUNTIME_BYTES, Said, died_of_memory, family, kills, tree_bytes, tree_s
from backends.local.settings import Adapter, KvType
from backends.local.verdict import verdict
from compat.canonical.message import Value

STALL_S = 120.0
"""How long a child that is loading may print nothing and still be waited for."""
GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""
PROBE_S = 2.0
"""How long a worker that is loading may take to say whether it has."""
RESPONDS_S = 5.0
STUCK_SHARE = 0.02
"""Of the time: what is stuck takes no more of a processor, whose server still listens."""
ALMOST = 0.99
"""As far as loading gets until it is ready."""
LOG_LINES = 40
LINE_MAX = 2000
PROBE_EVERY_S = 0.1

State = Literal["unloaded", "spawning", "loading", "ready", "draining", "failed"]
T = TypeVar("T")

_log = logging.getLogger(__name__)
_PROGRAM = Path(__file__).with_name("child.py")
_PASSED = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES"}
)
_PASSED_PREFIXES = ("LC_", "DYLD_", "CUDA_", "HIP_", "ROCR_", "HSA_", "GGML_", "VK_", "GGUF_", "OMP_", "LLAMA_ARG_")


class Spec(Value, frozen=True, omit_defaults=False):
    """What a child needs to know to serve one model."""

    engine: Name
    path: str
    alias: str
    """The model's name in answers."""
    slots: int
    """Requests it serves at once."""
    threads: int


class TextSpec(Spec, frozen=True, omit_defaults=False):
    """One of llama.cpp's: text, embeddings, reranking."""

    context: int
    """In tokens, for each slot."""
    n_batch: int
    """Tokens read between two looks at whether the client is still there."""
    embedding: bool = False
    reranking: bool = False
    binary: str | None = None
    """The engine's program, where it is one."""
    gpu_layers: int = -1
    """Of the model, on a GPU; -1 as many as fit."""
    kv_type: KvType = "f16"
    projector: str | None = None
    adapters: tuple[Adapter, ...] = ()


class StudioSpec(Spec, frozen=True, omit_defaults=False):
    """One of those that make pictures or meshes (`backends.local.studio`)."""

    device: str = "cpu"
    """Torch's name for where it computes."""


class Failed(Exception):
    """A worker did not start, or died.  `reason` is fit for clients, `log` is not."""

    def __init__(
        self, reason: str, log: tuple[str, ...] = (), *, out_of_memory: bool = False, lasting: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log
        self.out_of_memory = out_of_memory
        """There was not enough for it: run more modestly it may do."""
        self.lasting = lasting
        """It would fail again, until somebody changes its files or what is installed."""


class _Report(msgspec.Struct):
    ready: bool = False
    url: str = ""
    failed: str | None = None


Probe = Callable[[str, str, float], Awaitable[bool]]
"""Asks a URL with a key whether it is healthy, for so many seconds."""


class Worker:
    """need_bytes: what it is expected to take, by which it tells how far loading is."""

    def __init__(
        self,
        spec: Spec,
        engine: Engine,
        probe: Probe,
        *,
        need_bytes: int = 0,
        stall_s: float = STALL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.state: State = "unloaded"
        self.url = ""
        self.key = secrets.token_urlsafe(32)
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        """The last lines the child printed.  For operators only: they name paths."""
        self._probe = probe
        self._need_bytes = need_bytes
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._heard = 0.0
        self._process: asyncio.subprocess.Process | None = None
        self._gone: asyncio.Task[None] | None = None
        self._death = Failed("")
        self._said = Said()
        self._kills: int | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._gone is not None and not self._gone.done()

    @property
    def engine_bytes(self) -> int | None:
        """What the whole process takes by what the engine said while it loaded; None: it said nothing."""
        said = self._said.size_bytes
        return None if said is None else said + RUNTIME_BYTES[self.spec.engine]

    @property
    def progress(self) -> float | None:
        """How far loading is, 0 to 1, by how much of what it will need it has; None: nobody knows.

        Engines do not say: llama.cpp's server keeps its progress for itself, Python's have none.
        """
        if self.state == "ready":
            return 1.0
        taken = self.measured_bytes()
        return min(taken / self._need_bytes, ALMOST) if taken and self._need_bytes else None

    def measured_bytes(self) -> int | None:
        """What its processes take now, on the machine and its devices; None when there are none."""
        taken = tree_bytes(self.pid) if self.pid is not None and self.alive else None
        return None if taken is None else taken + self._said.device_bytes

    async def responds(self, within_s: float = RESPONDS_S) -> bool:
        """Whether it lives: its working loop answers, which it does between two batches, or it computes meanwhile.

        A batch of a large model on a slow machine may take any time; what is stuck takes none of a processor.
        """
        assert self.pid is not None
        before = await asyncio.to_thread(tree_s, self.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not await self._probe(self.url + self.engine.pulse_path, self.key, within_s):
                    await asyncio.sleep(PROBE_EVERY_S)
                return True
        return await asyncio.to_thread(tree_s, self.pid) - before > within_s * STUCK_SHARE

    async def start(self) -> None:
        """Return once the child serves.  Raises Failed; the child may then still have to be stopped."""
        loop = asyncio.get_running_loop()
        self.state, self._heard, self._kills = "spawning", loop.time(), kills()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(_PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=environment(os.environ),
            )
        except OSError as e:
            self.state = "failed"
            raise Failed("The process of the model could not be started.") from e
        self._process = process
        first_line: asyncio.Future[bytes] = loop.create_future()
        self._gone = asyncio.create_task(self._watch(process, first_line))
        try:
            await self._introduce(process)
            report = await self._unless_stalled(asyncio.shield(first_line))
            self.state = "loading"
            self.url = await self._read(report)
            await self._unless_stalled(self._healthy())
        except Failed:
            self.state = "failed"
            raise
        self.state = "ready"

    async def gone(self) -> Failed:
        """Wait until the process has ended, and say how."""
        assert self._gone is not None
        await asyncio.shield(self._gone)
        return self._death

    async def stop(self) -> None:
        """End the process and return when it is gone.  May be called in any state, and again."""
        if self._process is None or self._gone is None:
            return
        self.state = "draining"
        if self.alive:
            self._signal(signal.SIGTERM)
            if not (await asyncio.wait({self._gone}, timeout=self._grace_s))[0]:
                _log.warning("worker_killed", extra={"model": self.spec.alias, "after_s": self._grace_s})
                self._kill_family()
            await asyncio.shield(self._gone)
        self.state = "unloaded"

    async def _introduce(self, process: asyncio.subprocess.Process) -> None:
        stdin, _, _ = _pipes(process)
        spec = msgspec.to_builtins(self.spec) | {"key": self.key, "parent": os.getpid()}
        stdin.write(msgspec.json.encode(spec) + b"\n")
        # One that has died already says so by its end; writing to it is no news.
        with suppress(ConnectionError):
            await stdin.drain()

    async def _read(self, line: bytes) -> str:
        """The address in the child's report, which is empty when it died without one.  Raises Failed."""
        if not line:
            raise await self.gone()
        report = msgspec.json.decode(line, type=_Report)
        if report.failed is not None:
            self.log.append(report.failed)
            if died_of_memory(self.log):
                raise self._starved()
            raise self._unloaded(f"Model '{self.spec.alias}' could not be loaded.")
        return report.url

    async def _healthy(self) -> None:
        while not await self._probe(self.url + self.engine.health_path, self.key, PROBE_S):
            await asyncio.sleep(PROBE_EVERY_S)

    async def _unless_stalled(self, step: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """Await a step of loading.  Raises Failed when the child dies or falls silent meanwhile."""
        assert self._gone is not None
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(step)
        try:
            while True:
                left = self._heard + self._stall_s - loop.time()
                done, _ = await asyncio.wait({task, self._gone}, timeout=max(left, 0), return_when="FIRST_COMPLETED")
                if task in done:
                    return task.result()
                if self._gone in done:
                    raise self._death
                if loop.time() >= self._heard + self._stall_s:
                    raise Failed(
                        f"Model '{self.spec.alias}' made no progress in loading for {self._stall_s:g} s.",
                        tuple(self.log),
                    )
        finally:
            task.cancel()

    async def _watch(self, process: asyncio.subprocess.Process, first_line: asyncio.Future[bytes]) -> None:
        """Wait for the process to end, and let nothing of it remain.

        Its stdout ends with it and is held by nobody else, while `wait` alone may hang on the pipes
        of a grandchild (https://github.com/python/cpython/issues/119710).
        """
        stdin, stdout, stderr = _pipes(process)
        log = asyncio.create_task(self._listen(stderr))
        line = await stdout.readline()
        first_line.set_result(line)
        while line:
            line = await stdout.read(65_536)
        self._signal(signal.SIGKILL)
        # Where something that has left the group holds a pipe, `wait` goes on though the process has ended.
        await asyncio.wait({waiting := asyncio.create_task(process.wait())}, timeout=self._grace_s)
        waiting.cancel()
        status = -signal.SIGKILL if process.returncode is None else process.returncode
        # Every process of the group holds stderr, and lets go of it after its memory.
        await asyncio.wait({log}, timeout=self._grace_s)
        log.cancel()
        stdin.close()
        self._death = self._ended(status)

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Read what the child prints, in pieces: progress dots have no line end but are signs of life."""
        loop, rest = asyncio.get_running_loop(), b""
        while piece := await stderr.read(65_536):
            self._heard = loop.time()
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._note(line.decode("utf-8", "replace")[:LINE_MAX])
            rest = rest[-LINE_MAX:]

    def _note(self, line: str) -> None:
        # llama.cpp prints the end of its key.
        if line.strip() and "api_keys" not in line:
            self.log.append(line)
            self._said.read(line)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group; macOS forbids it for one of zombies only."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _ended(self, status: int) -> Failed:
        if self.state == "draining":
            return Failed(f"Model '{self.spec.alias}' was stopped.")
        loading = self.state in ("spawning", "loading")
        self.state = "failed"
        if died_of_memory(self.log) or (_killed(status) and self._was_starved(loading)):
            return self._starved()
        how = f"status {status}"
        if status < 0:
            with suppress(ValueError):
                how = signal.Signals(-status).name
        reason = f"The process of model '{self.spec.alias}' ended unexpectedly ({how})."
        return self._unloaded(reason) if loading else Failed(reason, tuple(self.log))

    def _kill_family(self) -> None:
        """Kill the process group, and what has left it: the child is told of those whose parents have ended."""
        assert self._process is not None
        for pid in family(self._process.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._signal(signal.SIGKILL)

    def _was_starved(self, loading: bool) -> bool:
        """Whether it was the kernel who killed it, for want of memory."""
        now = kills()
        return loading if now is None or self._kills is None else now > self._kills

    def _unloaded(self, otherwise: str) -> Failed:
        """Why it was not loaded, where the engine said so."""
        why = verdict(self.log)
        reason = otherwise if why is None else f"Model '{self.spec.alias}' could not be loaded: {why}."
        return Failed(reason, tuple(self.log), lasting=why is not None)

    def _starved(self) -> Failed:
        reason = f"There was not enough memory for model '{self.spec.alias}'."
        return Failed(reason, tuple(self.log), out_of_memory=True)


def _killed(status: int) -> bool:
    """Whether a process, or one that it waited for, ended by SIGKILL."""
    return status in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _pipes(
    process: asyncio.subprocess.Process,
) -> tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("the child was started without pipes")
    return process.stdin, process.stdout, process.stderr


def environment(of: Mapping[str, str]) -> dict[str, str]:
    """The part of the gateway's environment that a child gets: never a provider's key."""
    passed = {name: value for name, value in of.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    # Otherwise llama.cpp starts a debugger on itself when it aborts.
    return passed | {"GGML_NO_BACKTRACE": "1"}
