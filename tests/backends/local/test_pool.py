"""The pool with workers that are no processes: who waits, who is served, who is told what."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from backends.base import Call
from backends.local.engine import Engine
from backends.local.planning import Plan
from backends.local.pool import Pool
from backends.local.pool.seat import Lease, Seat
from backends.local.worker import Failed, Spec, TextSpec, Worker
from backends.ports import Local
from compat.canonical.error import (
    Conflict,
    InsufficientMemory,
    InternalError,
    ModelLoading,
    ModelNotFound,
    Overloaded,
    QueueFull,
    TimedOut,
    WorkerCrashed,
)
from compat.canonical.principal import Principal
from tests.backends.local.bench import call, smollm

ENGINE = Engine(name="xllamacpp", parallel=True, health_path="/health", pulse_path="/slots", counts_usage=True)
MODELS = {name: smollm(name) for name in "abc"}


async def never_asked(url: str, key: str, within_s: float) -> bool:
    raise AssertionError


class Pretended(Worker):
    """Loads when it is let, fails when it is told to, dies when it is killed."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, ENGINE, never_asked)
        self.may_load = asyncio.Event()
        self.loading_fails: Failed | None = None
        self.died: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
        self.stopped = False
        self.asked = self.hangs = False

    async def responds(self, within_s: float = 5.0) -> bool:
        self.asked = True
        return not self.hangs

    def measured_bytes(self) -> int | None:
        return 12

    @property
    def alive(self) -> bool:
        return not self.died.done()

    async def start(self) -> None:
        await self.may_load.wait()
        if self.loading_fails is not None:
            raise Failed(self.loading_fails.reason, out_of_memory=self.loading_fails.out_of_memory)

    async def gone(self) -> Failed:
        return await asyncio.shield(self.died)

    async def stop(self) -> None:
        await asyncio.sleep(0.02)
        self.stopped = True
        if not self.died.done():
            self.died.set_result(Failed("It was stopped."))


class Forgetful:
    """Something is wrong with where it is noted what models take."""

    def known(self, key: str) -> int | None:
        return None

    def measured(self, key: str, size_bytes: int) -> None:
        raise OSError("the disk is full")


class House:
    """A pool, and every worker it ever built."""

    def __init__(
        self,
        *,
        slots: int = 1,
        max_loaded: int = 1,
        queue_max: int = 8,
        idle_unload_s: float = 600,
        hang_s: float = 60,
        memory_max: int = 100,
        pinned: str = "",
        needs: tuple[int, ...] = (10,),
    ) -> None:
        self.built: list[Pretended] = []
        self.asking: list[Held] = []
        """Kept: a lease that nobody refers to any more is given back by the interpreter."""
        self.slots = slots
        self.needs = needs
        """On each rung of the ladder."""
        self.fails_until = 99
        """So many workers fail with `failure`."""
        self.loads_at_once = True
        self.free = 1 << 40
        """Bytes of the machine's memory."""
        self.failure: Failed | None = None
        self.pool = Pool(
            lambda: MODELS,
            self.plan,
            self.build,
            max_loaded=max_loaded,
            memory_max=memory_max,
            queue_max=queue_max,
            idle_unload_s=lambda model: idle_unload_s,
            pinned=frozenset(pinned),
            hang_s=hang_s,
            available=lambda: self.free,
            reckoning=Forgetful(),
        )

    def plan(self, local: Local, rung: int) -> Plan | None:
        if rung >= len(self.needs):
            return None
        spec = TextSpec(
            engine="xllamacpp", path="", alias=local.name, context=512, slots=self.slots, threads=1, n_batch=64
        )
        step = f"rung {rung}" if rung else None
        return Plan(spec=spec, need_bytes=self.needs[rung], measured=False, key=local.name, step=step)

    async def build(self, local: Local, plan: Plan) -> Worker:
        worker = Pretended(plan.spec)
        worker.loading_fails = self.failure if len(self.built) < self.fails_until else None
        if self.loads_at_once:
            worker.may_load.set()
        self.built.append(worker)
        return worker

    def models_built(self) -> str:
        return "".join(worker.spec.alias for worker in self.built)

    def wait_for(self, model: str, asked: Call | None = None) -> "Held":
        self.asking.append(Held(self.pool, model, asked or call(5)))
        return self.asking[-1]


class Held:
    """Somebody who asks for a lease and holds it until told to let go."""

    def __init__(self, pool: Pool, model: str, asked: Call) -> None:
        self.call = asked
        self._stack = AsyncExitStack()
        self._entered = asyncio.create_task(self._stack.enter_async_context(pool.lease(model, asked)))

    async def ended(self) -> None:
        """Wait until it is served or refused, whichever it is."""
        await asyncio.wait({self._entered})
        self._entered.cancelled() or self._entered.exception()

    async def granted(self) -> Lease:
        return await asyncio.shield(self._entered)

    @property
    def waiting(self) -> bool:
        return not self._entered.done()

    async def leave(self, *, answered: bool = True) -> None:
        self._entered.cancel()
        await asyncio.wait({self._entered})
        if answered and not self._entered.cancelled() and self._entered.exception() is None:
            self._entered.result().heard()
        await self._stack.aclose()


@pytest.fixture
async def house() -> AsyncIterator[Callable[..., House]]:
    houses: list[House] = []

    def house(**settings: Any) -> House:
        houses.append(House(**settings))
        return houses[-1]

    yield house
    for each in houses:
        await each.pool.aclose()
        for asked in each.asking:
            await asked.ended()
        assert all(worker.stopped for worker in each.built)


def by(caller: str) -> Call:
    asked = call(5)
    asked.principal = Principal(id=caller)
    return asked


async def settled() -> None:
    """Let every message be read and every effect begin."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_waiters_for_one_model_share_one_load(house: Callable[..., House]) -> None:
    here = house(slots=4)
    await asyncio.gather(*(here.wait_for("a").granted() for _ in range(4)))
    assert here.models_built() == "a"


async def test_an_unknown_model_is_refused(house: Callable[..., House]) -> None:
    with pytest.raises(ModelNotFound):
        await house().wait_for("z").granted()


async def test_positions_are_kept_true_while_others_come_and_go(house: Callable[..., House]) -> None:
    here = house()
    first, second, third, fourth = (here.wait_for("a") for _ in range(4))
    await first.granted()
    await settled()
    assert [held.call.wait.queue_position for held in (first, second, third, fourth)] == [None, 0, 1, 2]
    assert [held.call.wait.held for held in (first, second, third, fourth)] == [False, True, True, True]
    await second.leave()
    await settled()
    assert [held.call.wait.queue_position for held in (third, fourth)] == [0, 1]
    await first.leave()
    await third.granted()
    assert third.call.wait.queue_position is None
    assert fourth.waiting


async def test_a_queue_that_is_full_says_when_to_come_back(house: Callable[..., House]) -> None:
    here = house(queue_max=1)
    await here.wait_for("a").granted()
    here.wait_for("a")
    await settled()
    with pytest.raises(QueueFull) as caught:
        await here.wait_for("a").granted()
    assert caught.value.retry_after_s


async def test_a_caller_waits_no_longer_than_its_deadline(house: Callable[..., House]) -> None:
    here = house()
    here.loads_at_once = False
    with pytest.raises(TimedOut):
        await here.wait_for("a", call(0.05)).granted()
    here.built[0].may_load.set()
    await here.wait_for("a").granted()
    assert here.models_built() == "a"


async def test_the_model_used_longest_ago_makes_room_and_a_busy_one_does_not(house: Callable[..., House]) -> None:
    here = house(max_loaded=2)
    a, b = here.wait_for("a"), here.wait_for("b")
    await a.granted()
    await b.granted()
    c = here.wait_for("c")
    await settled()
    assert c.waiting
    await b.leave()
    await c.granted()
    assert [worker.spec.alias for worker in here.built if worker.stopped] == ["b"]
    assert here.pool.status("a") == "ready"
    assert here.pool.status("b") == "unloaded"


async def test_a_load_whose_last_waiter_left_does_not_hold_up_another_model(house: Callable[..., House]) -> None:
    here = house()
    here.loads_at_once = False
    gone = here.wait_for("a")
    await settled()
    assert gone.call.wait.held, "while the model loads"
    await gone.leave()
    here.loads_at_once = True
    await here.wait_for("b").granted()
    assert here.built[0].stopped


async def test_an_idle_model_is_unloaded_by_itself(house: Callable[..., House]) -> None:
    here = house(idle_unload_s=0.05)
    held = here.wait_for("a")
    await held.granted()
    await asyncio.sleep(0.1)
    assert here.pool.status("a") == "ready"
    await held.leave()
    async with asyncio.timeout(2):
        while here.pool.status("a") != "unloaded":
            await asyncio.sleep(0.01)


async def test_a_model_that_cannot_load_fails_its_waiters_and_then_rests(house: Callable[..., House]) -> None:
    here = house(slots=2)
    here.failure = Failed("It would not load.")
    waiters = [here.wait_for("a") for _ in range(3)]
    for waiter in waiters:
        with pytest.raises(WorkerCrashed, match="would not load"):
            await waiter.granted()
    with pytest.raises(ModelLoading) as caught:
        await here.wait_for("a").granted()
    assert 0 < (caught.value.retry_after_s or 0) <= 1
    assert here.models_built() == "a"


async def test_the_first_crash_after_serving_is_mended_at_once_for_those_who_queue(house: Callable[..., House]) -> None:
    here = house()
    await (first := here.wait_for("a")).granted()
    await first.leave()
    second, third = here.wait_for("a"), here.wait_for("a")
    await second.granted()
    here.built[0].died.set_result(Failed("It died."))
    fourth = here.wait_for("a")
    await second.leave()
    await third.granted()
    await third.leave()
    await fourth.granted()
    assert here.models_built() == "aa"
    assert here.pool.status("a") == "ready"


async def test_a_lease_of_a_dead_worker_takes_no_slot_of_the_next(house: Callable[..., House]) -> None:
    here = house()
    await (first := here.wait_for("a")).granted()
    await first.leave()
    old = here.wait_for("a")
    lease = await old.granted()
    here.built[0].died.set_result(Failed("It died."))
    assert (await lease.death()) is not None
    new, after = here.wait_for("a"), here.wait_for("a")
    await new.granted()
    await old.leave()
    await settled()
    assert after.waiting


async def test_closing_ends_those_who_wait_and_every_worker(house: Callable[..., House]) -> None:
    here = house()
    await here.wait_for("a").granted()
    waiting = here.wait_for("b")
    await settled()
    await here.pool.aclose()
    with pytest.raises(Overloaded):
        await waiting.granted()
    assert here.built[0].stopped


async def test_closing_refuses_even_a_request_that_nobody_has_read_yet(house: Callable[..., House]) -> None:
    here = house()
    waiting = here.wait_for("a")
    await asyncio.sleep(0)
    await here.pool.aclose()
    with pytest.raises(Overloaded):
        await waiting.granted()


async def test_closing_while_a_worker_is_being_stopped_waits_for_that(house: Callable[..., House]) -> None:
    here = house()
    held = here.wait_for("a")
    await held.granted()
    await held.leave()
    here.wait_for("b")
    while here.pool.status("a") != "draining":
        await asyncio.sleep(0)
    await here.pool.aclose()
    assert here.built[0].stopped


async def test_many_who_come_and_leave_at_random_wedge_nothing(house: Callable[..., House]) -> None:
    here = house(slots=2, max_loaded=2, queue_max=100)
    served = 0

    async def one(i: int) -> None:
        nonlocal served
        try:
            async with asyncio.timeout(0.02 if i % 3 == 0 else 20), here.pool.lease("abc"[i % 7 % 3], call(20)):
                await asyncio.sleep(0.001 * (i % 5))
                served += 1
        except TimeoutError:
            return

    await asyncio.gather(*map(one, range(120)))
    assert served >= 80
    for model in "abc":
        await here.wait_for(model).leave()


async def test_a_model_is_loaded_and_unloaded_by_order(house: Callable[..., House]) -> None:
    here = house()
    await here.pool.load("a", call(5))
    assert here.pool.standing("a") | {"status": "ready", "running": 0, "memory_bytes": 10} == here.pool.standing("a")
    held = here.wait_for("a")
    await held.granted()
    assert here.pool.standing("a")["status"] == "busy"
    going = asyncio.create_task(here.pool.unload("a"))
    behind = here.wait_for("a")
    await settled()
    assert here.pool.standing("a")["status"] == "draining"
    assert not going.done(), "a request runs"
    assert behind.waiting
    await held.leave()
    await going
    assert here.built[0].stopped
    await behind.granted()
    assert here.models_built() == "aa"


async def test_a_pinned_model_is_unloaded_by_force_only(house: Callable[..., House]) -> None:
    here = house(pinned="b", max_loaded=1)
    here.pool.warm()
    await here.pool.load("b", call(5))
    with pytest.raises(Conflict, match="pinned"):
        await here.pool.unload("b")
    with pytest.raises(InsufficientMemory, match="max_loaded"):
        await here.wait_for("a").granted()
    await here.pool.unload("b", force=True)
    await here.wait_for("a").granted()


async def test_a_model_that_never_fits_is_refused_with_the_figures_and_the_cure(house: Callable[..., House]) -> None:
    here = house(needs=(200 << 20, 150 << 20), memory_max=100 << 20)
    with pytest.raises(InsufficientMemory, match=r"150 MiB.*100 MiB.*memory_max") as caught:
        await here.wait_for("a").granted()
    assert (caught.value.status, caught.value.code) == (503, "insufficient_memory")
    assert not here.built


async def test_one_that_fits_when_run_more_modestly_is_run_so(house: Callable[..., House]) -> None:
    here = house(needs=(200, 150, 90), memory_max=100)
    await here.wait_for("a").granted()
    assert here.pool.standing("a")["steps"] == ["rung 1", "rung 2"]
    assert here.pool.standing("a")["memory_bytes"] == 90


async def test_a_load_that_runs_out_of_memory_is_tried_again_a_rung_lower_at_once(house: Callable[..., House]) -> None:
    here = house(needs=(30, 20, 10))
    here.failure = Failed("There was not enough.", out_of_memory=True)
    here.fails_until = 2
    held = here.wait_for("a")
    await held.granted()
    assert here.models_built() == "aaa"
    assert here.pool.standing("a")["steps"] == ["rung 1", "rung 2"]
    here.fails_until = 99
    await held.leave()
    with pytest.raises(WorkerCrashed, match="not enough"):
        await here.wait_for("b").granted()
    assert here.pool.standing("b")["failure"]["reason"] == "There was not enough."


async def test_who_will_not_wait_for_a_load_is_sent_on_and_the_load_goes_on(house: Callable[..., House]) -> None:
    here = house()
    hurried = call(5)
    hurried.patient = False
    with pytest.raises(ModelLoading) as caught:
        await here.wait_for("a", hurried).granted()
    assert caught.value.retry_after_s
    while here.pool.status("a") != "ready":
        await asyncio.sleep(0)
    again = call(5)
    again.patient = False
    await here.wait_for("a", again).granted()


async def test_a_worker_that_hangs_is_ended_and_one_that_is_slow_is_not(house: Callable[..., House]) -> None:
    here = house(hang_s=0.05)
    await (served := here.wait_for("a")).granted()
    await served.leave()
    lease = await here.wait_for("a").granted()
    await asyncio.sleep(0.2)
    assert here.built[0].asked
    assert here.pool.status("a") == "ready"
    here.built[0].hangs = True
    while (death := lease.verdict) is None:
        await asyncio.sleep(0.01)
    assert "stopped responding" in death.reason
    waiting = here.wait_for("a")
    await waiting.granted()
    assert here.models_built() == "aa"


async def test_a_worker_is_dismissed_by_its_only_user_and_by_no_other(house: Callable[..., House]) -> None:
    here = house(slots=2)
    first, second = here.wait_for("a"), here.wait_for("a")
    leases = await first.granted(), await second.granted()
    leases[0].dismiss()
    await settled()
    assert here.pool.status("a") == "ready"
    await first.leave()
    leases[1].dismiss()
    await second.leave()
    while not here.built[0].stopped:
        await asyncio.sleep(0)
    assert here.pool.standing("a")["failure"] is None
    await here.wait_for("a").granted()


async def test_a_flood_of_one_caller_does_not_stand_before_another(house: Callable[..., House]) -> None:
    here = house(queue_max=4)
    first = here.wait_for("a", by("flood"))
    await first.granted()
    flood = [here.wait_for("a", by("flood")) for _ in range(4)]
    await settled()
    other = here.wait_for("a", by("other"))
    await settled()
    with pytest.raises(QueueFull):
        await flood[-1].granted()
    assert [held.call.wait.queue_position for held in (*flood[:3], other)] == [0, 2, 3, 1]
    await first.leave()
    await flood[0].granted()
    await flood[0].leave()
    await other.granted()


async def test_how_long_waiting_takes_is_told_once_it_is_known(house: Callable[..., House]) -> None:
    here = house()
    first, second = here.wait_for("a"), here.wait_for("a")
    await first.granted()
    await settled()
    assert second.call.wait.eta_s is None
    await asyncio.sleep(0.1)
    await first.leave()
    await second.granted()
    third = here.wait_for("a")
    await settled()
    assert 0.05 < (third.call.wait.eta_s or 0) < 5


async def test_a_shortage_of_the_machine_that_passes_leaves_no_trace(house: Callable[..., House]) -> None:
    here = house(needs=(50, 20), idle_unload_s=0.01)
    here.free = 30
    held = here.wait_for("a")
    await held.granted()
    assert here.pool.standing("a")["steps"] == ["rung 1"]
    await held.leave()
    while here.pool.status("a") != "unloaded":
        await asyncio.sleep(0)
    here.free = 1000
    await here.wait_for("a").granted()
    assert here.pool.standing("a")["steps"] == []


async def test_what_ran_out_of_memory_is_not_tried_again(house: Callable[..., House]) -> None:
    here = house(needs=(50, 20), idle_unload_s=0.01)
    here.failure, here.fails_until = Failed("There was not enough.", out_of_memory=True), 1
    held = here.wait_for("a")
    await held.granted()
    await held.leave()
    while here.pool.status("a") != "unloaded":
        await asyncio.sleep(0)
    await here.wait_for("a").granted()
    assert here.models_built() == "aaa"
    assert here.pool.standing("a")["steps"] == ["rung 1"]


async def test_less_memory_is_no_cure_for_a_lack_of_places(house: Callable[..., House]) -> None:
    here = house(needs=(10, 5), pinned="b")
    await here.pool.load("b", call(5))
    with pytest.raises(InsufficientMemory, match="max_loaded"):
        await here.wait_for("a").granted()
    assert here.pool.standing("a")["steps"] == []


async def test_a_pinned_model_whose_worker_dies_comes_back_by_itself(house: Callable[..., House]) -> None:
    here = house(pinned="a")
    held = here.wait_for("a")
    await held.granted()
    await held.leave()
    here.built[0].died.set_result(Failed("It died."))
    while len(here.built) < 2 or here.pool.status("a") != "ready":
        await asyncio.sleep(0)
    await here.pool.unload("a", force=True)
    await settled()
    assert here.pool.status("a") == "unloaded"


async def test_a_request_that_nothing_was_heard_of_shows_nothing(house: Callable[..., House]) -> None:
    here = house()
    held = here.wait_for("a")
    await held.granted()
    await held.leave(answered=False)
    await settled()
    assert here.pool.standing("a")["request_s"] is None
    here.built[0].died.set_result(Failed("It died."))
    while here.pool.status("a") != "failed":
        await asyncio.sleep(0)
    assert here.pool.standing("a")["failure"]["failures"] == 1


async def test_a_message_that_fails_harms_none_but_whom_it_concerns(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house(max_loaded=2)
    serve = Seat.ready

    def ready(seat: Seat, worker: Worker, waiting: int) -> None:
        if seat.name == "a" and len(here.built) == 1:
            raise RuntimeError
        serve(seat, worker, waiting)

    monkeypatch.setattr(Seat, "ready", ready)
    first = here.wait_for("a")
    await first.granted()
    await here.wait_for("b").granted()
    assert here.models_built() == "aab"
    assert here.pool.trouble() is None


async def test_a_pool_that_is_out_of_order_says_so(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("backends.local.pool.owner.decide", fails)
    for _ in range(2):
        with pytest.raises(InternalError, match="out of order"):
            await here.wait_for("a").granted()
    assert here.pool.trouble()
