"""All transfers together keep the pace, each has its share, and a change is felt."""

import heapq

import pytest

from gateway.downloads.pace import Pace

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _run(pace: Pace, clock: Clock, sizes: list[int], seconds: float) -> list[int]:
    """What each of the transfers got, that receive pieces of these sizes as fast as they may."""
    got, end = [0] * len(sizes), clock.now + seconds
    due = [(clock.now, n) for n in range(len(sizes))]
    while due[0][0] < end:
        clock.now, n = heapq.heappop(due)
        got[n] += sizes[n]
        heapq.heappush(due, (clock.now + pace.wait_s(sizes[n]) + 1e-6, n))
    clock.now = end
    return got


@pytest.mark.parametrize("transfers", [1, 2, 16])
def test_all_together_keep_the_pace(transfers: int) -> None:
    clock = Clock()
    pace = Pace(8 * MIB, clock)
    got = _run(pace, clock, [pace.most(MIB)] * transfers, 20)
    assert sum(got) == pytest.approx(160 * MIB, rel=0.1)
    assert max(got) - min(got) <= 2 * MIB


def test_without_a_limit_nobody_waits() -> None:
    pace = Pace(None)
    assert [pace.wait_s(MIB) for _ in range(100)] == [0.0] * 100
    assert pace.most(MIB) == MIB


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(MIB, clock)
    pace.wait_s(MIB)
    clock.now += 3600
    assert pace.wait_s(MIB) == pytest.approx(1.0)


def test_a_change_is_felt_at_once() -> None:
    clock = Clock()
    pace = Pace(MIB, clock)
    assert pace.wait_s(4 * MIB) == pytest.approx(4)
    pace.bytes_per_s = 8 * MIB
    assert pace.wait_s(4 * MIB) == pytest.approx(1)
    pace.bytes_per_s = None
    assert pace.wait_s(MIB) == 0
    pace.bytes_per_s = 2 * MIB
    assert pace.wait_s(MIB) == pytest.approx(0.5)


def test_a_slow_pace_is_gone_in_small_steps() -> None:
    assert Pace(10 * MIB).most(MIB) == MIB
    assert Pace(800_000).most(MIB) == 100_000
    assert Pace(1).most(MIB) == 16 << 10
    assert Pace(1).most(10) == 10
