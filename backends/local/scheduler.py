"""Who is served next, what is loaded for it and what has to go: decisions, and nothing but.

Invariant: pure.  What is true goes in, what to do comes out; time is an argument.  The pool carries
the actions out and asks again after every change.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from compat.canonical.message import Value

BACKOFF_MAX_S = 60.0


class Standing(Value, frozen=True):
    """How one model stands."""

    state: Literal["out", "coming", "in", "going"]
    slots: int = 1
    leased: int = 0
    used_at: float = 0.0
    """When it was last granted to somebody, or became ready."""
    idle_since: float = 0.0
    """When its last lease ended, or it became ready."""


class Grant(Value, frozen=True):
    """Hand a slot to the waiter at this place in the queue."""

    place: int


class Load(Value, frozen=True):
    model: str


class Unload(Value, frozen=True):
    """End a worker nobody uses: for room, or because it has been idle."""

    model: str


Action = Grant | Load | Unload


def decide(
    standings: Mapping[str, Standing], queue: Sequence[str], *, max_loaded: int, idle_unload_s: float, now: float
) -> list[Action]:
    """What to do now.

    queue: the model each waiter wants, first come first.

    Room is handed out in the order of the queue, and an eviction is decided for the waiter it
    serves: room that is being made for one waiter is not promised to another.  A model that has to
    make room finishes what it runs and gets nothing new from waiters behind the one it yields to,
    so that a steady stream of requests for it cannot starve the others.
    """
    actions: list[Action] = []
    leased = {model: standing.leased for model, standing in standings.items()}
    free = max_loaded - sum(standing.state != "out" for standing in standings.values())
    leaving = sum(standing.state == "going" for standing in standings.values())
    wanted: set[str] = set()
    yielding: set[str] = set()
    for place, model in enumerate(queue):
        standing = standings[model]
        if standing.state == "in" and model not in yielding and leased[model] < standing.slots:
            leased[model] += 1
            actions.append(Grant(place=place))
        if model in wanted or model in yielding:
            continue
        wanted.add(model)
        if standing.state in ("in", "coming"):
            continue
        if standing.state == "going" and leaving > 0:
            leaving -= 1
        elif standing.state == "out" and free > 0:
            free -= 1
            actions.append(Load(model=model))
        elif leaving > 0:
            leaving -= 1
        elif (victim := _victim(standings, leased, wanted | yielding)) is not None:
            yielding.add(victim)
            if leased[victim] == 0:
                actions.append(Unload(model=victim))
    for model, standing in standings.items():
        unused = leased[model] == 0 and model not in wanted and model not in yielding
        if unused and standing.state == "in" and now >= standing.idle_since + idle_unload_s:
            actions.append(Unload(model=model))
    return actions


def _victim(standings: Mapping[str, Standing], leased: Mapping[str, int], spared: set[str]) -> str | None:
    """The model that can best be missed: one nobody uses, else the one granted longest ago.

    One that is still coming and that nobody wants any more is as good as any.
    """
    candidates = [
        (leased[model] > 0, standing.used_at, model)
        for model, standing in standings.items()
        if standing.state in ("in", "coming") and model not in spared
    ]
    return min(candidates)[2] if candidates else None


def next_due(standings: Mapping[str, Standing], idle_unload_s: float) -> float | None:
    """When to decide again though nothing has changed: the first idle time to run out."""
    idle = [s.idle_since + idle_unload_s for s in standings.values() if s.state == "in" and s.leased == 0]
    return min(idle, default=None)


def backoff_s(failures: int) -> float:
    """How long a model rests after it has failed this often in a row without serving in between."""
    return 0.0 if failures == 0 else min(2.0 ** min(failures - 1, 32), BACKOFF_MAX_S)


def fit(
    *, context_length: int | None, kv_bytes_per_token: int, context_max: int, slots: int, memory_bytes: int
) -> tuple[int, int]:
    """Context per slot in tokens, and slots.

    Every slot has its whole context for itself, so slots are given up before the memory for all of
    them exceeds a quarter of the machine's; context, which was promised, is not.
    """
    context = min(context_length or context_max, context_max)
    per_slot = max(context * kv_bytes_per_token, 1)
    return context, max(1, min(slots, memory_bytes // 4 // per_slot))
