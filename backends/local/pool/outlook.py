"""How models stand and how long waiting may take, for people and programs to read.

Invariant: nothing is changed here, and by the time it is read it may have changed.
"""

import time
from collections.abc import Iterable
from math import isfinite
from typing import Any, Literal

from backends.local.pool.seat import Seat, now

BEGUN = 0.05
"""Of a load: before that its progress says nothing of how long it takes."""

Status = Literal["unloaded", "queued", "loading", "ready", "busy", "draining", "failed"]


def status(seat: Seat, waiting: int) -> Status:
    if seat.keeper is None:
        if waiting or seat.wished:
            return "queued"
        return "failed" if seat.failure is not None else "unloaded"
    if seat.going or (seat.orders and seat.worker):
        return "draining"
    if seat.worker is None:
        return "loading"
    return "busy" if seat.leases else "ready"


def wait_s(seat: Seat, ahead: int, room_s: float | None) -> float | None:
    """How long one may wait who has so many ahead; None where too little is known.

    room_s: how long it may take until there is room for the model, where it is not loading yet.
    """
    slots = seat.plan.spec.slots if seat.plan is not None else 1
    if seat.worker is not None and not seat.going:
        return None if seat.request_s is None else (ahead + 1) * seat.request_s / slots
    load_s = loading_s(seat) if seat.keeper is not None and not seat.going else added(room_s, seat.load_s)
    waves = ahead // slots
    return added(load_s, waves * seat.request_s if seat.request_s is not None else None) if waves else load_s


def loading_s(seat: Seat) -> float | None:
    """How long it may still load."""
    so_far = now() - seat.began_at
    if seat.load_s is not None:
        return max(0.0, seat.load_s - so_far)
    if seat.progress is not None and seat.progress > BEGUN:
        return so_far * (1 - seat.progress) / seat.progress
    return None


def room_s(seats: Iterable[Seat]) -> float | None:
    """How long it may take until one of those that are busy could go; None where too little is known."""
    busy = [seat.request_s for seat in seats if seat.leases]
    return None if None in busy else max((s for s in busy if s is not None), default=0.0)


def added(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def standing(seat: Seat, waiting: int) -> dict[str, Any]:
    """A model's standing, fit for JSON.  Times are seconds since 1970; `log_tail` is for operators only."""
    taken, source = seat.memory()
    idle = seat.worker is not None and not seat.leases and not waiting and not seat.pinned
    failure = None
    if seat.failure is not None:
        failure = {
            "reason": seat.failure.reason,
            "retry_at": None if seat.failure.lasting else _date(seat.retry_at),
            "failures": seat.failures,
            "log_tail": list(seat.failure.log),
        }
    worker = seat.worker or seat.coming
    return {
        "status": status(seat, waiting),
        "loading": seat.progress if seat.worker is None else None,
        "running": len(seat.leases),
        "waiting": waiting,
        "slots": seat.plan.spec.slots if seat.plan is not None else None,
        "memory_bytes": taken or None,
        "memory_source": source,
        "loaded_at": _date(seat.ready_at) if seat.worker is not None else None,
        "last_used_at": _date(seat.used_at) if seat.used_at else None,
        "load_s": seat.load_s,
        "request_s": seat.request_s,
        "pinned": seat.pinned,
        "idle_unload_at": _date(seat.used_at + seat.idle_unload_s) if idle and isfinite(seat.idle_unload_s) else None,
        "failure": failure,
        "steps": list(seat.steps),
        "pid": worker.pid if worker is not None else None,
    }


def _date(at: float) -> float:
    """Of a moment on the event loop's clock."""
    return round(time.time() + at - now(), 3)
