"""Real children as processes: they die with their parent, leave nothing behind and carry no secret."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from msgspec.structs import replace

from backends.local import LocalBackend, Settings, connect
from backends.local.engine import Engine, choose
from backends.local.worker import Failed, TextSpec, Worker, environment
from backends.ports import Ports
from compat.canonical.error import ModelLoading, ModelUnavailable, WorkerCrashed
from compat.canonical.model import Model
from tests.backends.local.bench import LONG_PROMPT, answering, ask, call, data, model_path, smollm
from tests.backends.local.conftest import Start

LLAMA_SERVER = Engine(name="llama_server", parallel=True, health_path="/health", pulse_path="/slots", counts_usage=True)
PARENT = """
import asyncio, sys
from backends.ports import Ports
from backends.local import Settings, connect
from tests.backends.local.bench import answering, call, data, smollm

async def main():
    settings = Settings(engine=sys.argv[1], threads=1, n_batch=64, context_max=2048)
    backend = connect("local", settings, Ports(catalogue=lambda: {"smol": smollm()}))
    if sys.argv[2] == "loading":
        waiting = asyncio.create_task(backend.pool.lease("smol", call()).__aenter__())
        while backend.pool.status("smol") != "loading":
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        print("here", flush=True)
    async with backend.pool.lease("smol", call()) as lease, answering(lease, tokens=1500) as response:
        await anext(data(response))
        print("here", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


async def dead(processes: list[psutil.Process], within_s: float = 0.5) -> bool:
    """The kernel removes a process a moment after it has taken everything from it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while living(processes):
                await asyncio.sleep(0.005)
    return not living(processes)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def pid_of(backend: LocalBackend) -> int:
    pid = backend.pool.workers()["smol"].pid
    assert pid is not None
    return pid


async def test_the_next_request_is_served_after_a_worker_was_killed(backend: LocalBackend) -> None:
    async with backend.pool.lease("smol", call()) as lease:
        await ask(lease, tokens=1)
    killed = family(pid_of(backend))
    killed[0].kill()
    await backend.pool.workers()["smol"].gone()
    assert await dead(killed)
    async with backend.pool.lease("smol", call()) as lease:
        assert (await ask(lease, tokens=1))[1]


FREEZE = """
import ctypes, sys
trace = ctypes.CDLL(None).ptrace
trace.argtypes = [ctypes.c_long] * 4
print(trace(0x4206, int(sys.argv[1]), 0, 0) | trace(0x4207, int(sys.argv[1]), 0, 0), flush=True)
sys.stdin.read()
"""
"""Stops a thread (PTRACE_SEIZE, PTRACE_INTERRUPT) for as long as stdin is open."""


def threads(processes: list[psutil.Process]) -> dict[int, float]:
    """What each thread has computed so far, in seconds."""
    return {one.id: one.user_time + one.system_time for process in processes for one in process.threads()}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are stopped as Linux does it")
async def test_a_worker_whose_computing_thread_alone_is_stuck_does_not_respond(backend: LocalBackend) -> None:
    async with backend.pool.lease("smol", call()) as lease:
        processes, worker = family(pid_of(backend)), backend.pool.workers()["smol"]
        before = busy = threads(processes)
        asking = asyncio.create_task(ask(lease, prompt=LONG_PROMPT, tokens=1))
        while not (hot := [one for one, spent in busy.items() if spent > before.get(one, 0) + 0.5]):
            await asyncio.sleep(0.01)
            busy = threads(processes)
        freezer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FREEZE, str(hot[0]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert freezer.stdout is not None
        try:
            if await freezer.stdout.readline() != b"0\n":
                pytest.skip("tracing is not allowed here")
            assert not await worker.responds(2)
        finally:
            freezer.kill()
            await freezer.wait()
        assert await worker.responds(20)
        asking.cancel()
        await asyncio.wait({asking})


async def test_a_worker_that_hangs_is_ended_and_the_next_request_is_served(start: Start) -> None:
    backend = start(hang_s=0.5)
    async with backend.pool.lease("smol", call()) as lease:
        await ask(lease, tokens=1)
        lease.heard()
    async with backend.pool.lease("smol", call()) as lease, answering(lease, tokens=1500) as response:
        events = data(response)
        await anext(events)
        lease.heard()
        processes = family(pid_of(backend))
        for process in processes:
            process.suspend()
        with pytest.raises(aiohttp.ClientError):
            async for _ in events:
                pass
        death = await lease.death()
        assert death is not None
        assert "stopped responding" in death.reason
    assert await dead(processes)
    assert await served(backend)


async def served(backend: LocalBackend) -> bool:
    """Ask until the model has rested from its failure."""
    while True:
        try:
            async with backend.pool.lease("smol", call()) as lease:
                return (await ask(lease, tokens=1))[1]
        except ModelLoading as e:
            await asyncio.sleep(e.retry_after_s or 0)


@pytest.mark.parametrize("phase", ["spawning", "loading", "streaming"])
async def test_whenever_a_worker_is_killed_the_next_request_is_served(phase: str) -> None:
    backend = connect("local", Settings(threads=1, context_max=2048), Ports(catalogue=lambda: {"smol": smollm()}))
    began = asyncio.Event()

    async def use() -> None:
        async with backend.pool.lease("smol", call()) as lease, answering(lease, tokens=1500) as response:
            async for _ in data(response):
                began.set()

    using = asyncio.create_task(use())
    if phase == "streaming":
        await began.wait()
        processes, worker = family(pid_of(backend)), backend.pool.workers()["smol"]
    else:
        processes, worker = await child(phase), None
    processes[0].kill()
    with pytest.raises((WorkerCrashed, aiohttp.ClientError)):
        await using
    if worker is not None:
        await worker.gone()
    assert await dead(processes)
    assert await served(backend)
    assert backend.standing("smol")["steps"] == []
    await backend.aclose()
    assert not psutil.Process().children(recursive=True)


async def child(phase: str) -> list[psutil.Process]:
    """The process of a worker that is being spawned, or is loading its model."""
    found: list[psutil.Process] = []
    while not found:
        await asyncio.sleep(0)
        found = psutil.Process().children()
    while phase == "loading" and not any("xllamacpp" in mapped.path for mapped in found[0].memory_maps()):
        await asyncio.sleep(0.005)
    return found


async def test_nothing_remains_of_a_worker_that_ignores_sigterm_and_forks(tmp_path: Path) -> None:
    stubborn = tmp_path / "llama-server"
    stubborn.write_text(
        "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; sleep 60) &\n(setsid sleep 60 &)\n"
        "echo listening on http://127.0.0.1:1\nwait\nsleep 60\n"
    )
    stubborn.chmod(0o700)
    engine = replace(LLAMA_SERVER, binary=str(stubborn))
    worker = a_worker(engine, str(model_path()), healthy=True, grace_s=0.3)
    await worker.start()
    assert worker.pid is not None
    processes = family(worker.pid)
    assert len(processes) >= 4
    began = asyncio.get_running_loop().time()
    await worker.stop()
    assert await dead(processes)
    assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize("phase", ["loading", "streaming"])
async def test_no_child_survives_a_killed_parent(engine: Engine, phase: str) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PARENT, engine.name, phase], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert await asyncio.to_thread(parent.stdout.readline) == "here\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.stdout.close()
    await asyncio.to_thread(parent.wait)
    assert await dead(children, within_s=3)


async def test_closing_leaves_no_process(start: Start) -> None:
    backend = start()
    async with backend.pool.lease("smol", call()) as lease:
        processes = family(pid_of(backend))
        await backend.aclose()
        assert await dead(processes)
        assert await lease.death()
    with pytest.raises(Exception, match="shutting down"):
        async with backend.pool.lease("smol", call()):
            pass


async def test_no_secret_is_in_any_argument_list_or_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider")
    monkeypatch.setenv("PLUGGABLY__AUTH", "pepper-of-the-house")
    backend = start()
    async with backend.pool.lease("smol", call()) as lease:
        for process in family(pid_of(backend)):
            shown = json.dumps([process.cmdline(), process.environ()])
            for secret in (lease.key, "sk-of-the-provider", "pepper-of-the-house"):
                assert secret not in shown


async def test_a_file_that_cannot_be_loaded_is_reported_without_its_path_and_not_tried_in_vain(
    engine: Engine, tmp_path: Path
) -> None:
    content = model_path().read_bytes()[:8_000_000]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)
    local = smollm()
    local = type(local)(name="smol", path=str(broken), model=Model(name="smol", backend="local"))
    settings: dict[str, Any] = {"engine": engine.name, "threads": 1}
    backend = connect("local", Settings(**settings), Ports(catalogue=lambda: {"smol": local}))
    try:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="incomplete") as caught:
                async with backend.pool.lease("smol", call()):
                    pass
            assert str(tmp_path) not in caught.value.message
            assert caught.value.retry_after_s is None
            assert backend.pool.status("smol") == "failed"
        assert backend.standing("smol")["failure"]["failures"] == 1
    finally:
        await backend.aclose()


def a_worker(engine: Engine, path: str, *, healthy: bool, stall_s: float = 30, grace_s: float = 5) -> Worker:
    async def probe(url: str, key: str, within_s: float) -> bool:
        return healthy

    spec = TextSpec(
        engine=engine.name, path=path, alias="smol", context=512, slots=1, threads=1, n_batch=64, embedding=False,
        binary=engine.binary,
    )  # fmt: skip
    return Worker(spec, engine, probe, stall_s=stall_s, grace_s=grace_s)


async def test_an_engine_that_refuses_the_file_says_why_to_operators_only(engine: Engine, tmp_path: Path) -> None:
    worker = a_worker(engine, str(tmp_path / "absent.gguf"), healthy=True)
    with pytest.raises(Failed) as caught:
        await worker.start()
    assert str(worker.state) == "failed"
    assert str(tmp_path) not in caught.value.reason
    assert str(tmp_path) in "\n".join(caught.value.log)
    await worker.stop()
    assert str(worker.state) == "unloaded"


async def test_a_child_that_falls_silent_while_loading_is_given_up() -> None:
    worker = a_worker(choose("auto"), str(model_path()), healthy=False, stall_s=1.5)
    with pytest.raises(Failed, match="no progress"):
        await worker.start()
    pid = worker.pid
    await worker.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_worker_stopped_while_it_loads_is_gone() -> None:
    worker = a_worker(choose("auto"), str(model_path()), healthy=True)
    starting = asyncio.create_task(worker.start())
    while worker.pid is None:
        await asyncio.sleep(0.01)
    starting.cancel()
    await worker.stop()
    assert not psutil.pid_exists(worker.pid)


def test_a_child_gets_only_what_it_needs_of_the_environment() -> None:
    given = {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "OPENAI_API_KEY": "k", "HF_TOKEN": "t"}
    passed = environment(given | {"LLAMA_API_KEY": "k", "AWS_SECRET_ACCESS_KEY": "s", "PLUGGABLY__X": "y"})
    assert passed == {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "GGML_NO_BACKTRACE": "1"}
