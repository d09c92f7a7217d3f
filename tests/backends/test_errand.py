"""A child process for one piece of work: a real one, which is bounded however it goes on."""

import asyncio
import sys
import time
from pathlib import Path

import psutil
import pytest

from backends.errand import Errands, Unfinished

MODULE = "errand_of_a_test"
PROGRAM = """
import os, sys, time
from backends.bounds import serve

def work(asked):
    match asked:
        case b"environment":
            yield repr(dict(os.environ)).encode()
        case b"memory":
            print("this is not part of the answer")
            yield bytes(4 << 30)
        case b"for ever":
            time.sleep(600)
        case _:
            print("nor is this")
            yield b"got "
            yield asked

serve(work, memory_max_bytes=1 << 30, cpu_max_s=10)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def errands(at_once: int = 1, within_s: float = 30.0, answer_max_bytes: int = 10_000) -> Errands:
    return Errands(MODULE, at_once=at_once, within_s=within_s, answer_max_bytes=answer_max_bytes)


def running() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and MODULE in child.cmdline()
    ]


async def begun(count: int) -> None:
    async with asyncio.timeout(20):
        while len(running()) != count:
            await asyncio.sleep(0.01)


def soon(within_s: float = 0.1) -> float:
    return asyncio.get_running_loop().time() + within_s


async def test_it_answers_and_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHY_API_KEY", "canary-5521")
    assert (await errands().done(b"a ", b"piece", deadline=None)).data == b"got a piece"
    told = (await errands().done(b"environment", deadline=None)).data
    assert b"PATH" in told
    assert b"canary" not in told


async def test_so_many_run_at_once_and_whoever_leaves_makes_room() -> None:
    some = errands(at_once=2)
    tasks = [asyncio.create_task(some.done(b"for ever", deadline=None)) for _ in range(5)]
    await begun(2)
    first = {process.pid for process in running()}
    began = time.monotonic()
    for task in tasks[:2]:
        task.cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert time.monotonic() - began < 1.0
    await begun(2)
    assert not first & {process.pid for process in running()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert running() == []


async def test_waiting_for_a_turn_ends_with_the_deadline_and_so_does_the_work() -> None:
    one = errands()
    ahead = asyncio.create_task(one.done(b"for ever", deadline=soon(3.0)))
    await begun(1)
    with pytest.raises(TimeoutError):
        await one.done(b"", deadline=soon())
    assert not ahead.done()
    with pytest.raises(TimeoutError):
        await ahead
    assert running() == []


async def test_its_seconds_count_from_its_turn() -> None:
    one = errands(within_s=3.0)
    first, second = await asyncio.gather(
        one.done(b"for ever", deadline=None), one.done(b"it", deadline=None), return_exceptions=True
    )
    assert isinstance(first, Unfinished)
    assert str(first) == "it is not finished in 3 s"
    assert not isinstance(second, BaseException)
    assert second.data == b"got it"


async def test_an_answer_has_an_end() -> None:
    with pytest.raises(Unfinished, match="larger than 100 bytes"):
        await errands(answer_max_bytes=100).done(bytes(200), deadline=None)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS knows no bound of memory")
async def test_memory_has_an_end() -> None:
    answer = await errands().done(b"memory", deadline=None)
    assert answer.data == b""
    assert "MemoryError" in answer.complained
