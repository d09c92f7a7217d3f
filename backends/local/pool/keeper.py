"""The life of one worker: built, started, watched and measured while it serves, and ended.

Invariant: when a keeper's task has ended, no process of its worker is left.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from backends.local.planning import Plan
from backends.local.worker import Failed, Worker
from backends.ports import Local, Reckoning

MEASURE_S = 60.0
"""Between two looks at how much memory a worker takes."""

_log = logging.getLogger(__name__)

Build = Callable[[Local, Plan], Awaitable[Worker]]
Planned = Callable[[Local, int], Plan | None]
Measured = Callable[[Worker, int], None]


async def keep(
    local: Local,
    plan: Plan,
    build: Build,
    *,
    built: Callable[[Worker], None],
    ready: Callable[[Worker], None],
    measured: Measured,
) -> Failed | None:
    """A worker's whole life; returns how it failed, or None when it was ended on purpose: by cancelling this."""
    worker = None
    try:
        worker = await build(local, plan)
        built(worker)
        await worker.start()
        ready(worker)
        return await _attend(worker, measured)
    except Failed as e:
        return e
    except asyncio.CancelledError:
        return None
    finally:
        if worker is not None:
            await _uninterrupted(_end(worker, measured))


def outcome(task: "asyncio.Task[Failed | None]") -> Failed | None:
    """What a keeper returned.  Cancelled before its first step it has nothing to say."""
    if task.cancelled():
        return None
    if (error := task.exception()) is not None:
        _log.error("worker_keeper_failed", exc_info=error)
        return Failed("The model could not be loaded.")
    return task.result()


def lives(task: "asyncio.Task[bool]") -> bool:
    """What a worker answered that was asked whether it lives."""
    return not task.cancelled() and task.exception() is None and task.result()


def contained(plan: Planned) -> Planned:
    """Planning that fails in the one model that cannot be planned, and harms no other."""

    def planned(local: Local, rung: int) -> Plan | None:
        try:
            return plan(local, rung)
        except Exception:
            _log.exception("model_unplanned", extra={"backend": local.model.backend, "model": local.name, "rung": rung})
            return None

    return planned


def noted(reckoning: Reckoning, key: str, size_bytes: int) -> None:
    """Have it remembered what a worker took; where that fails, nothing else has to."""
    try:
        reckoning.measured(key, size_bytes)
    except Exception:
        _log.exception("memory_not_noted", extra={"key": key})


async def _attend(worker: Worker, measured: Measured) -> Failed:
    """Wait until it has died, and look now and then at the memory it takes."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(MEASURE_S):
                return await worker.gone()
        await _measure(worker, measured)


async def _end(worker: Worker, measured: Measured) -> None:
    if worker.alive:
        # A last time: many a model is gone before the first look.
        await _measure(worker, measured)
    await worker.stop()


async def _measure(worker: Worker, measured: Measured) -> None:
    # It goes through all processes of the machine.
    size = await asyncio.to_thread(worker.measured_bytes)
    if size is not None:
        measured(worker, size)


async def _uninterrupted(ending: Coroutine[Any, Any, None]) -> None:
    """Await a bounded ending to its end, whoever cancels meanwhile: half-stopped is not a state."""
    task = asyncio.create_task(ending)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()
