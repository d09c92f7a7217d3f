"""The pool with workers that are no processes: who waits, who is served, who is told what."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from backends.base import Call
from backends.local.engine import Engine
from backends.local.pool import Pool
from backends.local.seat import Lease
from backends.local.worker import Failed, TextSpec, Worker
from compat.canonical.error import ModelLoading, ModelNotFound, Overloaded, QueueFull, TimedOut, WorkerCrashed
from tests.backends.local.bench import call, smollm

ENGINE = Engine(name="xllamacpp", parallel=True, health_path="/health", counts_usage=True)
MODELS = {name: smollm(name) for name in "abc"}


async def never_asked(url: str, key: str) -> bool:
    raise AssertionError


class Pretended(Worker):
    """Loads when it is let, fails when it is told to, dies when it is killed."""

    def __init__(self, model: str, slots: int) -> None:
        spec = TextSpec(
            engine="xllamacpp", path="", alias=model, context=512, slots=slots, threads=1, n_batch=64, embedding=False,
            binary=None,
        )  # fmt: skip
        super().__init__(spec, ENGINE, never_asked)
        self.may_load = asyncio.Event()
        self.loading_fails: Failed | None = None
        self.died: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
        self.stopped = False

    @property
    def alive(self) -> bool:
        return not self.died.done()

    async def start(self) -> None:
        await self.may_load.wait()
        if self.loading_fails is not None:
            raise self.loading_fails

    async def gone(self) -> Failed:
        return await asyncio.shield(self.died)

    async def stop(self) -> None:
        await asyncio.sleep(0.02)
        self.stopped = True


class House:
    """A pool, and every worker it ever built."""

    def __init__(self, *, slots: int = 1, max_loaded: int = 1, queue_max: int = 8, idle_unload_s: float = 600) -> None:
        self.built: list[Pretended] = []
        self.asking: list[Held] = []
        """Kept: a lease that nobody refers to any more is given back by the interpreter."""
        self.slots = slots
        self.loads_at_once = True
        self.failure: Failed | None = None
        self.pool = Pool(
            lambda: MODELS, self.build, max_loaded=max_loaded, queue_max=queue_max, idle_unload_s=idle_unload_s
        )

    async def build(self, local: object) -> Worker:
        worker = Pretended(getattr(local, "name", ""), self.slots)
        worker.loading_fails = self.failure
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

    async def granted(self) -> Lease:
        return await asyncio.shield(self._entered)

    @property
    def waiting(self) -> bool:
        return not self._entered.done()

    async def leave(self) -> None:
        self._entered.cancel()
        await asyncio.wait({self._entered})
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
        assert all(worker.stopped for worker in each.built)


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
