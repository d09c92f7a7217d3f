"""A backend's door: fair, bounded, honest, and without leaks."""

import asyncio
import random

import pytest

from compat.canonical.error import BackendError, Overloaded, QueueFull
from gateway.routing.gate import Gate
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import call


class Visitors:
    """Guests of one gate, who note when they were let in."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside = 0
        self.most = 0
        self.order: list[str] = []

    async def stay(self, caller: str, seconds: float, within_s: float = 1e6) -> None:
        await self.gate.enter(call(within_s, caller))
        self.order.append(caller)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside -= 1
            self.gate.leave(seconds)

    def assert_empty(self) -> None:
        assert (self.inside, self.gate._inside, self.gate.waiting) == (0, 0, 0)
        assert not self.gate._waiting


def test_so_many_are_inside_and_no_more() -> None:
    async def work() -> None:
        guests = Visitors(Gate("b", 3, 100))
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(guests.stay("me", 1.0))
        assert guests.most == 3
        guests.assert_empty()

    run(work())


def test_each_callers_next_comes_before_anybodys_second() -> None:
    async def work() -> None:
        guests = Visitors(Gate("b", 1, 1000))
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(guests.stay("crowd", 1.0))
            await asyncio.sleep(0)
            for _ in range(2):
                group.create_task(guests.stay("pair", 1.0))
            group.create_task(guests.stay("one", 1.0))
        assert guests.order == ["crowd", "crowd", "pair", "one", "crowd", "pair", "crowd", "crowd", "crowd"]

    run(work())


def test_of_one_caller_the_first_comes_first() -> None:
    async def work() -> list[int]:
        gate, order = Gate("b", 1, 100), list[int]()

        async def one(n: int) -> None:
            await gate.enter(call())
            order.append(n)
            await asyncio.sleep(0.01)
            gate.leave(0.01)

        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(one(n))
        return order

    assert run(work()) == list(range(20))


def test_a_full_queue_turns_away_and_says_for_how_long() -> None:
    async def work() -> None:
        guests = Visitors(Gate("b", 2, 3))
        await guests.stay("me", 4.0)
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(guests.stay("me", 4.0))
            await asyncio.sleep(0)
            with pytest.raises(QueueFull) as full:
                await guests.gate.enter(call())
            assert full.value.retry_after_s == 8.0, "two at a time, the fourth in the queue, four seconds each"
        guests.assert_empty()

    run(work())


def test_in_a_full_queue_the_crowd_makes_room() -> None:
    """One caller cannot keep the others out."""

    async def work() -> None:
        guests = Visitors(Gate("b", 1, 4))
        crowd = [asyncio.create_task(guests.stay("crowd", 1.0)) for _ in range(5)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(guests.stay(name, 1.0)) for name in ("one", "two", "one")]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await guests.gate.enter(call(caller="one"))
        results = await asyncio.gather(*crowd, *others, return_exceptions=True)
        assert [isinstance(result, QueueFull) for result in results] == [False] * 3 + [True] * 2 + [False] * 2 + [True]
        assert guests.order == ["crowd", "crowd", "one", "two", "crowd"]
        guests.assert_empty()

    run(work())


async def test_turned_away_and_cancelled_at_once_it_leaves_no_place_behind() -> None:
    gate = Gate("b", 1, 2)
    await gate.enter(call())
    crowd = [asyncio.create_task(gate.enter(call(caller="crowd"))) for _ in range(2)]
    await asyncio.sleep(0)
    one = asyncio.create_task(gate.enter(call(caller="one")))
    await asyncio.sleep(0)
    crowd[1].cancel()
    with pytest.raises((asyncio.CancelledError, QueueFull)):
        await crowd[1]
    assert (gate._inside, gate.waiting) == (1, 2)
    for task in (crowd[0], one):
        gate.leave(1.0)
        await task
    gate.leave(1.0)
    assert (gate._inside, gate.waiting) == (0, 0)


def test_who_would_not_be_served_in_time_is_told_at_once_with_an_honest_estimate() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        guests = Visitors(Gate("b", 1, 100))
        await guests.stay("me", 2.0)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(guests.stay("me", 2.0))
            await asyncio.sleep(0)
            began = loop.time()
            with pytest.raises(Overloaded) as shed:
                await guests.gate.enter(call(5.9))
            assert loop.time() == began
            wait_s = shed.value.retry_after_s
            assert wait_s == 6.0
            await guests.gate.enter(call(wait_s + 0.001))
            assert loop.time() == began + wait_s
            guests.gate.leave(2.0)
        guests.assert_empty()

    run(work())


def test_the_estimate_knows_that_the_queue_is_fair() -> None:
    """One caller's long queue is no reason to send another away, who would be next."""

    async def work() -> None:
        guests = Visitors(Gate("b", 1, 100))
        await guests.stay("me", 1.0)
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(guests.stay("crowd", 1.0))
            await asyncio.sleep(0)
            group.create_task(guests.stay("one", 1.0, within_s=2.5))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await guests.gate.enter(call(20, "crowd"))
        assert guests.order[:4] == ["me", "crowd", "crowd", "one"]
        guests.assert_empty()

    run(work())


@pytest.mark.parametrize("seed", range(20))
def test_the_estimate_is_right_where_all_take_the_same(seed: int) -> None:
    rnd = random.Random(seed)  # noqa: S311

    async def work() -> None:
        gate = Gate("b", 1, 1000)
        await gate.enter(call())
        gate.leave(1.0)
        loop = asyncio.get_running_loop()
        began, expected, entered = loop.time(), dict[int, float](), dict[int, float]()

        async def one(n: int, caller: str) -> None:
            await gate.enter(call(1e6, caller))
            entered[n] = loop.time() - began
            await asyncio.sleep(1.0)
            gate.leave(1.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(one(-1, "first"))
            await asyncio.sleep(0)
            for n in range(rnd.randrange(20)):
                group.create_task(one(n, rnd.choice("abc")))
            await asyncio.sleep(0)
            caller = rnd.choice("abcd")
            expected[99] = gate._estimate(gate._ahead(caller))
            group.create_task(one(99, caller))
        assert entered[99] == pytest.approx(expected[99])

    run(work())


def test_a_deadline_that_passes_in_the_queue_ends_the_wait() -> None:
    async def work() -> None:
        guests = Visitors(Gate("b", 1, 100))
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(guests.stay("me", 100.0))
            await asyncio.sleep(0)
            asked, began = call(3), loop.time()
            with pytest.raises(Overloaded):
                await guests.gate.enter(asked)
            assert loop.time() - began == pytest.approx(3)
            assert asked.wait.queue_s == pytest.approx(3)
            assert asked.wait.queue_position == 0
            assert guests.gate.waiting == 0
        guests.assert_empty()

    run(work())


def test_more_places_are_given_at_once_and_fewer_as_guests_leave() -> None:
    async def work() -> None:
        guests = Visitors(Gate("b", 1, 100))
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(guests.stay("me", 10.0))
            await asyncio.sleep(1)
            guests.gate.resize(4, 100)
            await asyncio.sleep(1)
            assert guests.inside == 4
            guests.gate.resize(2, 100)
            await asyncio.sleep(8.5)
            assert guests.inside == 3, "nobody is thrown out"
            await asyncio.sleep(10)
            assert guests.inside == 2
        guests.assert_empty()

    run(work())


async def test_cancelled_in_the_very_moment_of_the_hand_over_it_passes_the_place_on() -> None:
    gate = Gate("b", 1, 10)
    await gate.enter(call())
    second = asyncio.create_task(gate.enter(call()))
    third = asyncio.create_task(gate.enter(call()))
    await asyncio.sleep(0)
    gate.leave(1.0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    gate.leave(1.0)
    assert (gate._inside, gate.waiting) == (0, 0)


async def test_cancelled_just_before_the_hand_over_it_is_passed_over() -> None:
    gate = Gate("b", 1, 10)
    await gate.enter(call())
    second = asyncio.create_task(gate.enter(call()))
    third = asyncio.create_task(gate.enter(call()))
    await asyncio.sleep(0)
    second.cancel()
    gate.leave(1.0)
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    gate.leave(1.0)
    assert (gate._inside, gate.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_no_place_is_lost_or_given_twice(seed: int) -> None:
    """Random stays, deadlines, cancellations, resizes; times are coarse, so that many coincide."""
    rnd = random.Random(seed)  # noqa: S311

    async def work() -> None:
        places = most = rnd.randrange(1, 4)
        guests = Visitors(Gate("b", places, rnd.choice((0, 2, 50))))
        tasks: list[asyncio.Task[None]] = []
        for _ in range(80):
            for _ in range(rnd.randrange(4)):
                stay = guests.stay(rnd.choice("abc"), rnd.randrange(4), rnd.choice((1, 2, 1e6)))
                tasks.append(asyncio.create_task(stay))
            if rnd.random() < 0.5:
                await asyncio.sleep(rnd.choice((0, 0, 1, 2)))
            if tasks and rnd.random() < 0.6:
                rnd.choice(tasks).cancel()
            if rnd.random() < 0.05:
                places = rnd.randrange(1, 5)
                most = max(most, places)
                guests.gate.resize(places, 50)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, (asyncio.CancelledError, BackendError))
        assert guests.most <= most
        guests.assert_empty()

    run(work())
