"""The pool through thousands of schedules of chance, on virtual time, with workers that misbehave in every way.

Each schedule is a house of a few models with its own limits, callers of three tenants who come, wait, leave and give
orders at random, and workers that load slowly, fail to, run out of memory, die, hang and take their time to stop.
What must hold is looked at between any two steps of the event loop.

A failure names its schedule: `SCHEDULE=123 pytest tests/backends/local/test_schedules.py` plays that one again,
and `SOAK=1` plays ten times as many.
"""

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from backends.base import Call
from backends.local.planning import Plan
from backends.local.pool import Pool
from backends.local.pool.seat import Lease
from backends.local.worker import Failed, TextSpec, Worker
from backends.ports import Local
from compat.canonical.error import Conflict, GatewayError, WorkerCrashed
from compat.canonical.model import Model
from compat.canonical.principal import Principal
from tests.backends.local.test_pool import ENGINE, never_asked
from tests.backends.local.virtual import NothingLeft, VirtualLoop, run

COUNT = 30_000 if os.environ.get("SOAK") else 3_000
SCHEDULES = [int(seed) for seed in os.environ.get("SCHEDULE", "").split()] or range(COUNT)
FAR_S = 100_000.0
"""A deadline that is never reached."""
HANG_S = 20.0
NAMES = "abcd"


class Actor(Worker):
    """A worker that is no process: what becomes of it is settled when it is built."""

    def __init__(self, house: "House", plan: Plan) -> None:
        super().__init__(plan.spec, ENGINE, never_asked)
        chance = house.chance
        self.house = house
        self.plan = plan
        self.model = plan.spec.alias
        self.loads_s = chance.choice((0.01, 0.1, 3.0, 20.0))
        self.stops_s = chance.choice((0.0, 0.1, 5.0))
        self.size = round(plan.need_bytes * chance.uniform(0.5, 1))
        self.fails, self.dies_s, self.hangs_s = False, FAR_S, FAR_S
        if house.rough:
            self.fails = chance.random() < 0.1
            self.dies_s = chance.uniform(0, 40) if chance.random() < 0.2 else FAR_S
            self.hangs_s = chance.uniform(0, 40) if chance.random() < 0.1 else FAR_S
        self.began_at = FAR_S
        self.loaded = False
        self.let_go = False
        """By its only user."""
        self.owes = 0
        """How many waited for a slot when it was loaded, less those who have got one."""
        self.running: set[Lease] = set()
        self.stopping = False
        self.ended: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
        self.death: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return self.began_at < FAR_S and not self.ended.done()

    @property
    def engine_bytes(self) -> int | None:
        return self.size

    @property
    def progress(self) -> float | None:
        return 1.0 if self.loaded else min(0.99, (self.house.now() - self.began_at) / self.loads_s)

    @property
    def hung(self) -> bool:
        return self.house.now() >= self.began_at + self.hangs_s

    def measured_bytes(self) -> int | None:
        return round(self.size * (self.progress or 0))

    async def responds(self, within_s: float = 5.0) -> bool:
        if self.hung:
            await asyncio.sleep(within_s)
        return not self.hung

    async def start(self) -> None:
        self.house.enters(self)
        self.began_at = self.house.now()
        self.death = asyncio.get_running_loop().call_later(self.dies_s, self.die, Failed("It died."))
        await asyncio.wait({self.ended}, timeout=self.loads_s)
        if self.ended.done():
            raise self.ended.result()
        if self.plan.need_bytes > self.house.lacking.get(self.model, FAR_S):
            raise Failed("It ran out of memory.", out_of_memory=True)
        if self.fails:
            raise Failed("It did not load.")
        self.loaded = True
        self.owes = self.house.count_waiting(self.model)
        self.house.dropped[self.model] = 0

    async def gone(self) -> Failed:
        return await asyncio.shield(self.ended)

    async def stop(self) -> None:
        self.stopping = True
        excused = self.let_go or self.hung or self.house.closing or self.house.orders[self.model] > 0
        if self.model in self.house.pinned and self.alive and self.loaded and not excused:
            self.house.wrong(f"{self.model} had to go though it is pinned")
        if self.running and self.alive and not self.hung and not self.house.closing:
            self.house.wrong(f"{self.model} was ended while it ran {len(self.running)}")
        if self.owes > self.house.dropped[self.model] and self.alive and not self.hung and not self.house.closing:
            self.house.wrong(f"{self.model} was ended before those were served for whom it was loaded")
        if self.alive:
            await asyncio.sleep(self.stops_s)
        self.die(Failed("It was stopped."))

    def die(self, how: Failed) -> None:
        if self.death is not None:
            self.death.cancel()
        if not self.ended.done():
            self.ended.set_result(how)
        self.house.living.discard(self)

    async def serve(self, lease: Lease, takes_s: float, *, silent: bool) -> None:
        if self.stopping:
            self.house.wrong(f"{self.model} was handed out while it was being ended")
        self.owes -= 1
        self.running.add(lease)
        try:
            while takes_s > 0 or self.hung:
                await asyncio.wait({self.ended}, timeout=FAR_S if self.hung else min(takes_s, 2.0))
                if self.ended.done():
                    death = await lease.death()
                    raise WorkerCrashed(death.reason if death else "It is gone.")
                takes_s -= 2.0
                if not silent and not self.hung:
                    lease.heard()
        finally:
            self.running.discard(lease)


class House:
    """A pool, its workers, and what must be true of them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.rough = True
        self.closing = False
        names = NAMES[: chance.randint(1, 4)]
        self.models = {
            name: Local(name=name, path="", model=Model(name=name, backend="local", size_bytes=chance.randint(1, 60)))
            for name in names
        }
        self.slots = {name: chance.randint(1, 3) for name in names}
        self.max_loaded = chance.randint(1, 3)
        self.memory_max = chance.choice((60, 80, 120))
        self.machine = chance.choice((70, 100, 1000))
        self.queue_max = chance.choice((2, 5, 50))
        self.pinned = frozenset(name for name in names if chance.random() < 0.15)
        self.lacking = {name: chance.randint(5, 60) for name in names if chance.random() < 0.1}
        """Models that run out of memory while they load, if they are to take more than this."""
        self.actors: dict[str, Actor] = {}
        """By key."""
        self.living: set[Actor] = set()
        self.faults: list[str] = []
        self.waiting: dict[int, Waiting] = {}
        """By the identity of their calls."""
        self.orders: Counter[str] = Counter()
        """To unload a model by force, that are not carried out yet or whose giver has left."""
        self.dropped: Counter[str] = Counter()
        """How many have gone unserved since a model was loaded."""
        self.pool = Pool(
            lambda: self.models,
            self.plan,
            self.build,
            max_loaded=self.max_loaded,
            memory_max=self.memory_max,
            queue_max=self.queue_max,
            idle_unload_s=lambda model: 50.0,
            pinned=self.pinned,
            hang_s=HANG_S,
            available=self.available,
        )

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def plan(self, local: Local, rung: int) -> Plan | None:
        if rung > 2:
            return None
        slots = self.slots[local.name]
        spec = TextSpec(engine="xllamacpp", path="", alias=local.name, context=512, slots=slots, threads=1, n_batch=1)
        need = max(1, (local.model.size_bytes or 0) // (rung + 1))
        return Plan(spec=spec, need_bytes=need, measured=False, key=local.name, step=f"rung {rung}" if rung else None)

    async def build(self, local: Local, plan: Plan) -> Worker:
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 1.0)))
        if self.rough and self.chance.random() < 0.03:
            raise Failed("It could not be built.")
        actor = Actor(self, plan)
        self.actors[actor.key] = actor
        return actor

    def available(self) -> int:
        return self.machine - sum(actor.measured_bytes() or 0 for actor in self.living)

    def fits(self, model: str) -> bool:
        """Whether there is a way to run it, whatever else is pinned."""
        least = self.plan(self.models[model], 2)
        assert least is not None
        others = [self.models[name].model.size_bytes or 0 for name in self.pinned - {model}]
        memory = min(self.memory_max, self.machine)
        return len(others) < self.max_loaded and sum(others) + least.need_bytes <= memory

    def wrong(self, what: str) -> None:
        self.faults.append(f"{what}, at {self.now():g} s")

    def count_waiting(self, model: str) -> int:
        """For a slot, as far as the pool has read of it."""
        known = [w for w in self.waiting.values() if w.slot and w.call.wait.queue_position is not None]
        return sum(waiting.model == model for waiting in known)

    def enters(self, actor: Actor) -> None:
        if any(other.model == actor.model for other in self.living):
            self.wrong(f"{actor.model} is loaded twice at once")
        coming = sum(
            other.plan.need_bytes - (other.measured_bytes() or 0) for other in self.living if other.progress != 1
        )
        if actor.plan.need_bytes > self.available() - coming:
            self.wrong(f"{actor.model} is loaded though the machine has too little memory")
        self.living.add(actor)

    def look(self) -> None:
        """What must be true at any moment."""
        if len(self.living) > self.max_loaded:
            self.wrong(f"{len(self.living)} models are loaded")
        if sum(actor.size if actor.loaded else actor.plan.need_bytes for actor in self.living) > self.memory_max:
            self.wrong("the models take more memory than they may")
        for actor in self.living:
            if len(actor.running) > actor.spec.slots:
                self.wrong(f"{actor.model} runs {len(actor.running)} with {actor.spec.slots} slots")
        places: dict[tuple[str, int], int] = Counter()
        for waiting in self.waiting.values():
            position = waiting.call.wait.queue_position
            if position is None:
                continue
            places[waiting.model, position] += 1
            if waiting.position is not None and position > waiting.position and not waiting.overtaken:
                self.wrong(f"somebody fell back from {waiting.position} to {position}")
            if position >= self.queue_max:
                self.wrong(f"somebody waits at {position}")
            waiting.position, waiting.overtaken = position, max(0, waiting.overtaken - 1)
        if any(count > 1 for count in places.values()):
            self.wrong("two wait in the same place")
        if self.faults:
            raise AssertionError(self.faults[0])


class Waiting:
    """What a caller sees of its waiting, and who is served before it."""

    def __init__(self, model: str, call: Call, ahead: int, *, slot: bool) -> None:
        self.model = model
        self.call = call
        self.slot = slot
        self.ahead = ahead
        """Of its own requests that wait already."""
        self.position: int | None = None
        self.overtaken = 0
        """Somebody else has come, who may have a turn before; for so many looks."""
        self.served: Counter[str] = Counter()
        """Others, since it waits."""


class Visitor:
    """Somebody who wants something of a house, and what came of it."""

    def __init__(self, house: House, *, steady: bool = False) -> None:
        chance = house.chance
        self.house = house
        self.model = chance.choice(list(house.models))
        self.comes_s = 0.0 if steady else chance.choice((0.0, 0.0, chance.uniform(0, 60)))
        self.takes_s = chance.choice((0.0, 0.5, 5.0, 40.0))
        self.silent = chance.random() < 0.2
        self.leaves_s = FAR_S if steady or chance.random() < 0.7 else chance.uniform(0, 30)
        self.within_s = FAR_S if steady or chance.random() < 0.7 else chance.uniform(0, 60)
        self.patient = steady or chance.random() < 0.9
        self.dismisses = not steady and chance.random() < 0.05
        self.act = self.use if steady else chance.choice((self.use,) * 8 + (self.load, self.unload))
        self.tenant = chance.choice("xyyy")
        self.outcome = ""

    async def visit(self) -> None:
        await asyncio.sleep(self.comes_s)
        task = asyncio.ensure_future(self.act())
        done, _ = await asyncio.wait({task}, timeout=self.leaves_s)
        if not done:
            task.cancel()
            began = self.house.now()
            await asyncio.wait({task})
            if self.house.now() > began:
                self.house.wrong("somebody could not leave at once")
        try:
            self.outcome = self.outcome or (task.result() if not task.cancelled() else "left")
        except GatewayError as e:
            self.outcome = e.word
            self.judge(e)

    def judge(self, error: GatewayError) -> None:
        house = self.house
        if error.word == "upstream_timeout" and self.within_s == FAR_S:
            house.wrong("somebody waited for ever")
        if error.word == "internal_error":
            house.wrong("the pool has failed")
        if error.word == "insufficient_memory" and house.fits(self.model):
            house.wrong(f"{self.model} was refused though there is room: {error.message}")

    def call(self) -> Call:
        deadline = self.house.now() + self.within_s
        return Call(request_id="r", principal=Principal(id=self.tenant), deadline=deadline, patient=self.patient)

    async def use(self) -> str:
        house, call = self.house, self.call()
        with self.waits(call) as waiting:
            async with house.pool.lease(self.model, call) as lease:
                self.is_served(waiting)
                actor = house.actors[lease.key]
                await actor.serve(lease, self.takes_s, silent=self.silent)
                if self.dismisses:
                    actor.owes, actor.let_go = 0, True  # who waits gets the next one
                    lease.dismiss()
        return "served"

    async def load(self) -> str:
        with self.waits(call := self.call(), slot=False):
            await self.house.pool.load(self.model, call)
        return "loaded"

    async def unload(self) -> str:
        pinned, force = self.model in self.house.pinned, self.takes_s > 1
        self.house.orders[self.model] += force
        try:
            await self.house.pool.unload(self.model, force=force)
            self.house.orders[self.model] -= force
        except Conflict:
            assert pinned
            assert not force
        return "unloaded"

    @contextmanager
    def waits(self, call: Call, *, slot: bool = True) -> Iterator[Waiting]:
        house = self.house
        others = [waiting for waiting in house.waiting.values() if waiting.model == self.model]
        mine = sum(waiting.call.principal == call.principal for waiting in others)
        for waiting in others:
            if waiting.call.principal != call.principal:
                waiting.overtaken = 5
        waiting = Waiting(self.model, call, mine, slot=slot)
        house.waiting[id(call)] = waiting
        try:
            yield waiting
        finally:
            if house.waiting.pop(id(call), None) is not None:
                house.dropped[self.model] += slot

    def is_served(self, waiting: Waiting) -> None:
        """Before any other, no caller is served more often than it has turns."""
        house = self.house
        del house.waiting[id(waiting.call)]
        for other in house.waiting.values():
            known = other.position is not None and other.call.wait.queue_position is not None
            if known and other.model == self.model and other.call.principal.id != self.tenant:
                other.served[self.tenant] += 1
                if other.served[self.tenant] > other.ahead + 2:
                    house.wrong(f"{other.call.principal.id} was passed over")


async def play(house: House) -> Counter[str]:
    """Let a schedule happen; returns how often what came of a visit."""
    chance = house.chance
    house.pool.warm()
    visitors = [Visitor(house) for _ in range(chance.choice((3, 5, 8)))]
    visits = [asyncio.ensure_future(visitor.visit()) for visitor in visitors]
    await all_end(visits)
    house.rough = False
    await asyncio.sleep(100)
    for model in house.models:
        visitor = Visitor(house, steady=True)
        visitor.model = model
        await all_end([asyncio.ensure_future(visitor.visit())])
        visitors.append(visitor)
        await asyncio.sleep(1)
        standing = house.pool.standing(model)
        msgspec.json.encode(standing)
        if standing["waiting"] or standing["running"]:
            house.wrong(f"{model} waits or runs for somebody who has gone")
    house.closing = True
    await house.pool.aclose()
    if house.living:
        house.wrong("workers are left")
    house.look()
    return Counter(visitor.outcome for visitor in visitors)


async def all_end(visits: Sequence["asyncio.Future[None]"]) -> None:
    _, left = await asyncio.wait(visits, timeout=5_000)
    assert not left, f"{len(left)} never end"
    for visit in visits:
        visit.result()


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Of the log: it would be told of tens of thousands of crashes."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_whatever_happens_everybody_is_served_or_told_why_and_nothing_is_broken() -> None:
    outcomes: Counter[str] = Counter()
    for seed in SCHEDULES:
        try:
            outcomes += played(seed)
        except (AssertionError, NothingLeft) as e:
            raise AssertionError(f"SCHEDULE={seed}: {e!r}") from e
    print(dict(outcomes))
    if len(outcomes) > 1:
        assert outcomes["served"] > 2 * len(SCHEDULES)


def played(seed: int) -> Counter[str]:
    house: list[House] = []

    async def main() -> Counter[str]:
        house.append(House(random.Random(seed)))  # noqa: S311
        return await play(house[0])

    return run(main(), VirtualLoop(lambda: house[0].look() if house else None))
