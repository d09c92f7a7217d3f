"""Who is served next, what is loaded for it and what has to go: decisions, and nothing but.

Invariant: pure.  What is true goes in, what to do comes out; time is an argument.  The pool carries
the actions out and asks again after every change.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from math import inf
from typing import Literal, NamedTuple

from compat.canonical.message import Value

BACKOFF_MAX_S = 60.0
WEIGHED = 12
"""So many models, those that can best be missed, are weighed against each other when room is made."""
UNUSED_MIN_S = 1.0


State = Literal["out", "coming", "in", "going"]


class Standing(Value, frozen=True):
    """How one model stands."""

    state: State
    slots: int = 1
    leased: int = 0
    owed: int = 0
    """How many of its waiters waited already when it became ready: they are served before it may go."""
    bytes: int = 0
    """What it takes in memory, or would take."""
    unclaimed: int = 0
    """Of that, what the machine still shows as free: one that is coming has not taken all it will."""
    used_at: float = 0.0
    """When it was last granted to somebody or given back, or became ready."""
    load_s: float = 1.0
    """How long it takes to load."""
    idle_unload_s: float = inf
    pinned: bool = False
    """It never has to go."""
    ordered_out: bool = False
    """Somebody wants it unloaded: what it runs and owes is all that it still does."""

    @property
    def room(self) -> "Room":
        return Room(1, self.bytes, self.bytes)


class Room(NamedTuple):
    """What a model takes up, and what there is of that."""

    places: int
    """Of the models that may be loaded."""
    allowed: int
    """Bytes of the memory that all models may take."""
    available: int
    """Bytes that the machine has free."""

    def plus(self, other: "Room") -> "Room":
        return Room(self.places + other.places, self.allowed + other.allowed, self.available + other.available)

    def minus(self, other: "Room") -> "Room":
        return Room(self.places - other.places, self.allowed - other.allowed, self.available - other.available)

    def holds(self, other: "Room") -> bool:
        return self.places >= other.places and self.allowed >= other.allowed and self.available >= other.available

    def at_most(self, other: "Room") -> "Room":
        return Room(*map(min, self, other))


NOTHING = Room(0, 0, 0)


class Grant(Value, frozen=True):
    """Hand a slot to the waiter at this place in the queue."""

    place: int


class Load(Value, frozen=True):
    model: str


class Unload(Value, frozen=True):
    """End a worker nobody uses."""

    model: str
    beneficiary: str | None = None
    """The model it makes room for; None: it has been idle for long enough, or was ordered out."""


class Refuse(Value, frozen=True):
    """Tell those who wait for a model that it cannot be loaded."""

    model: str
    most: Room
    """All the room it could ever be given, as things are."""


Action = Grant | Load | Unload | Refuse


def decide(
    standings: Mapping[str, Standing],
    queue: Sequence[str],
    wishes: Sequence[str] = (),
    *,
    limits: Room,
    now: float,
) -> list[Action]:
    """What to do now.

    queue: the model each waiter wants, first come first; wishes: models to be loaded though nobody waits.
    limits: `available` is what the machine has free at this moment, the rest is what there may be in all.

    Room is handed out in the order of the queue, and an eviction is decided for the waiter it
    serves: room that is being made for one waiter is not promised to another, who may only have what
    is left over.  A model that has to make room finishes what it runs, serves those whom it owes that
    because they waited for it to load, and gets nothing new from waiters behind the one it yields to, so that
    a steady stream of requests for it cannot starve the others.

    A wish comes after all who wait, and takes no room from a model that was used a moment ago: as long as
    that takes to load again.
    """
    return _Decision(standings, limits, now).made(queue, wishes)


class _Decision:
    """One decision while it is being made."""

    def __init__(self, standings: Mapping[str, Standing], limits: Room, now: float) -> None:
        self._standings = standings
        self._limits = limits
        self._now = now
        self._actions: list[Action] = []
        self._leased = {model: standing.leased for model, standing in standings.items()}
        self._owed = {model: standing.owed for model, standing in standings.items()}
        self._spared: set[str] = set()
        """Wanted by a waiter who was considered already."""
        self._yielding = {model for model, s in standings.items() if s.ordered_out and s.state == "in"}
        held = [s for s in standings.values() if s.state != "out"]
        unclaimed = sum(s.unclaimed for s in held)
        taken = Room(len(held), sum(s.bytes for s in held), unclaimed)
        self._free = limits.minus(taken)
        """What is there now, less what has been given away."""
        self._soon = self._free
        """What is there when all that goes has gone, less what has been given away or promised."""
        for model, standing in standings.items():
            if standing.state == "going" or model in self._yielding:
                self._soon = self._soon.plus(standing.room)
        self._most = self._free
        """What would be there if all had gone that may have to."""
        for standing in held:
            if not _stays(standing):
                self._most = self._most.plus(standing.room)

    def made(self, queue: Sequence[str], wishes: Sequence[str]) -> list[Action]:
        wanted = set(queue)
        for place, model in enumerate(queue):
            self._grant(place, model)
            if model not in self._spared and model not in self._yielding:
                self._spared.add(model)
                self._provide(model, self._candidates(), wanted)
        for model in wishes:
            if model not in wanted and self._standings[model].state == "out":
                self._provide(model, self._long_unused(), wanted, waits=False)
        self._shrink(wanted)
        for model, standing in self._standings.items():
            if self._unused(model) and model not in self._spared and self._is_over(model, standing):
                self._actions.append(Unload(model=model))
        return self._actions

    def _grant(self, place: int, model: str) -> None:
        standing = self._standings[model]
        owed = self._owed[model] > 0
        self._owed[model] -= owed
        if standing.state == "in" and self._leased[model] < standing.slots and (owed or model not in self._yielding):
            self._leased[model] += 1
            self._actions.append(Grant(place=place))

    def _provide(self, model: str, candidates: Mapping[str, Standing], wanted: Set[str], *, waits: bool = True) -> None:
        """Load a model, or make room for it, if it is not there.  waits: somebody waits for it."""
        standing = self._standings[model]
        if standing.state in ("in", "coming"):
            return
        if not self._most.holds(standing.room):
            if standing.state == "going":
                return  # it is judged when it has gone
            self._actions.append(Refuse(model=model, most=self._most))
            return
        if not self._soon.holds(standing.room):
            victims = evict_for(standing.room.minus(self._soon), candidates, wanted, self._now)
            for victim in victims:
                self._yielding.add(victim)
                self._soon = self._soon.plus(self._standings[victim].room)
                if self._unused(victim):
                    self._actions.append(Unload(model=victim, beneficiary=model))
            if not victims and not waits:
                return
        elif standing.state == "out" and self._free.holds(standing.room):
            self._free = self._free.minus(standing.room)
            self._actions.append(Load(model=model))
        self._soon = self._soon.minus(standing.room)

    def _shrink(self, wanted: Set[str]) -> None:
        """Let go of what nobody wants while models take more than they may: some turned out larger than thought."""
        stay = [m for m, s in self._standings.items() if s.state in ("in", "coming") and m not in self._yielding]
        over = sum(self._standings[model].bytes for model in stay) - self._limits.allowed
        idle = {model: s for model, s in self._candidates().items() if self._unused(model)}
        if over > 0:
            victims = evict_for(Room(0, over, 0), idle, wanted, self._now)
            self._yielding.update(victims)
            self._actions += [Unload(model=victim) for victim in victims]

    def _candidates(self) -> dict[str, Standing]:
        """What may have to go: in memory or on its way, and nobody before has a claim to it."""
        return {
            model: standing
            for model, standing in self._standings.items()
            if standing.state in ("in", "coming")
            and not standing.pinned
            and model not in self._spared
            and model not in self._yielding
        }

    def _long_unused(self) -> dict[str, Standing]:
        return {
            model: standing
            for model, standing in self._candidates().items()
            if self._unused(model) and standing.state == "in" and self._now - standing.used_at >= standing.load_s
        }

    def _unused(self, model: str) -> bool:
        standing = self._standings[model]
        return standing.state in ("in", "coming") and self._leased[model] == 0 and standing.owed == 0

    def _is_over(self, model: str, standing: Standing) -> bool:
        """Its time has run out: somebody ordered it out, or nobody has used it for long."""
        if standing.ordered_out:
            return True
        return standing.state == "in" and model not in self._yielding and self._now >= idle_at(standing)


def evict_for(
    short: Room, candidates: Mapping[str, Standing], wanted: Set[str] = frozenset(), now: float = 0.0
) -> tuple[str, ...]:
    """The models that go so that there is this much more room: those that can best be missed.

    Empty if all of them together are not enough.  One that is busy goes only where the idle ones do not make
    the room, one that somebody waits for only before a busy one; among equals it is the time they have
    not been used that counts, and the time it takes to load them again.
    """
    short = Room(*(max(0, of) for of in short))
    ranked = sorted((_loss(standing, model in wanted, now), model) for model, standing in candidates.items())
    enough, freed = 0, NOTHING
    for _, model in ranked:
        if freed.holds(short):
            break
        freed, enough = freed.plus(candidates[model].room), enough + 1
    if not freed.holds(short):
        return ()
    # The least loss for every amount of room that some of them make together.
    least: dict[Room, tuple[Loss, tuple[str, ...]]] = {NOTHING: (Loss(0, 0, 0.0), ())}
    for loss, model in ranked[: max(enough, WEIGHED)]:
        for made, (lost, names) in list(least.items()):
            more = made.plus(candidates[model].room).at_most(short)
            offer = (lost.plus(loss), (*names, model))
            if more not in least or offer < least[more]:
                least[more] = offer
    return least[short][1]


class Loss(NamedTuple):
    """What it costs to miss a model, the worst first."""

    busy: int
    wanted: int
    reload: float
    """Seconds of loading per second unused: what was used a moment ago will be wanted soon."""

    def plus(self, other: "Loss") -> "Loss":
        return Loss(self.busy + other.busy, self.wanted + other.wanted, self.reload + other.reload)


def _loss(standing: Standing, wanted: bool, now: float) -> Loss:
    if standing.state == "coming":
        return Loss(0, wanted, 0.0)
    busy = standing.leased > 0 or standing.owed > 0
    return Loss(busy, wanted, standing.load_s / max(now - standing.used_at, UNUSED_MIN_S))


def _stays(standing: Standing) -> bool:
    return standing.pinned and standing.state in ("in", "coming") and not standing.ordered_out


def idle_at(standing: Standing) -> float:
    """When it has been unused for long enough to be unloaded."""
    return inf if standing.pinned else standing.used_at + standing.idle_unload_s


def next_due(standings: Iterable[Standing]) -> float | None:
    """When to decide again though nothing has changed: the first idle time to run out."""
    idle = [idle_at(s) for s in standings if s.state == "in" and s.leased == 0 and s.owed == 0]
    return min((at for at in idle if at < inf), default=None)


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
