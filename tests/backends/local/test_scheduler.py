"""Decisions: no processes, no clock, no event loop."""

from collections.abc import Mapping
from typing import Any

import pytest

from backends.local.scheduler import Action, Grant, Load, Standing, Unload, backoff_s, decide, fit, next_due

OUT = Standing(state="out")
COMING = Standing(state="coming")
GOING = Standing(state="going")


def ready(slots: int = 1, leased: int = 0, used_at: float = 0.0, idle_since: float = 0.0) -> Standing:
    return Standing(state="in", slots=slots, leased=leased, used_at=used_at, idle_since=idle_since)


def decided(standings: Mapping[str, Standing], queue: str, *, max_loaded: int = 1, now: float = 0.0) -> list[Action]:
    return decide(standings, list(queue), max_loaded=max_loaded, idle_unload_s=100.0, now=now)


def test_waiters_for_one_model_share_one_load() -> None:
    assert decided({"a": OUT}, "aaa") == [Load(model="a")]
    assert decided({"a": COMING}, "aaa") == []


def test_slots_are_granted_first_come_first_and_no_more_than_there_are() -> None:
    assert decided({"a": ready(slots=3, leased=1)}, "aaaa") == [Grant(place=0), Grant(place=1)]


def test_models_load_side_by_side_while_there_is_room() -> None:
    assert decided({"a": OUT, "b": OUT, "c": OUT}, "abc", max_loaded=2) == [Load(model="a"), Load(model="b")]


def test_the_idle_model_used_longest_ago_makes_room() -> None:
    standings = {"a": ready(used_at=2), "b": ready(used_at=1), "c": OUT}
    assert decided(standings, "c", max_loaded=2) == [Unload(model="b")]


def test_a_busy_model_is_never_unloaded() -> None:
    assert decided({"a": ready(leased=1), "b": OUT}, "b") == []


def test_an_idle_model_goes_before_a_busy_one_yields() -> None:
    standings = {"a": ready(leased=1, used_at=1), "b": ready(used_at=2), "c": OUT}
    assert decided(standings, "c", max_loaded=2) == [Unload(model="b")]


def test_two_waiters_never_claim_the_same_room() -> None:
    assert decided({"a": GOING, "b": OUT, "c": OUT}, "bc") == []
    assert decided({"a": ready(), "b": OUT, "c": OUT}, "bc") == [Unload(model="a")]
    standings = {"a": ready(used_at=1), "d": ready(used_at=2), "b": OUT, "c": OUT}
    assert decided(standings, "bc", max_loaded=2) == [Unload(model="a"), Unload(model="d")]


def test_a_model_just_loaded_serves_its_waiters_before_it_yields() -> None:
    assert decided({"a": ready(), "b": OUT}, "ab") == [Grant(place=0)]
    assert decided({"a": ready(), "b": OUT}, "ba") == [Unload(model="a")]


def test_a_steady_stream_for_one_model_does_not_starve_another() -> None:
    standings = {"a": ready(slots=2, leased=1), "b": OUT}
    assert decided(standings, "baaa") == []
    assert decided(standings, "aab") == [Grant(place=0)]


def test_a_load_nobody_waits_for_any_more_makes_room() -> None:
    assert decided({"a": COMING, "b": OUT}, "b") == [Unload(model="a")]
    assert decided({"a": COMING, "b": OUT}, "ab") == []


def test_a_model_that_is_going_comes_back_for_its_waiters() -> None:
    assert decided({"a": GOING}, "a") == []
    assert decided({"a": OUT}, "a") == [Load(model="a")]


def test_an_unused_model_goes_when_its_time_is_up() -> None:
    assert decided({"a": ready(idle_since=10)}, "", now=109) == []
    assert decided({"a": ready(idle_since=10)}, "", now=110) == [Unload(model="a")]
    assert decided({"a": ready(idle_since=10, leased=1)}, "", now=999) == []
    assert decided({"a": ready(idle_since=10)}, "a", now=999) == [Grant(place=0)]


def test_the_next_idle_time_to_run_out_is_the_next_thing_due() -> None:
    standings = {"a": ready(idle_since=10), "b": ready(idle_since=5), "c": ready(leased=1), "d": OUT}
    assert next_due(standings, 100.0) == 105.0
    assert next_due({"c": ready(leased=1)}, 100.0) is None


def test_whatever_is_decided_can_be_done_and_a_waiter_is_never_forgotten() -> None:
    """Play the decisions out over every small situation: all waiters are served in the end."""
    for queue in ("abcabc", "aabbcc", "cbaabc", "abab", "ccccca"):
        for max_loaded in (1, 2, 3):
            standings = dict.fromkeys("abc", OUT)
            waiting, leases, clock = list(queue), [], 0.0
            for _ in range(200):
                clock += 1
                granted = []
                for action in decide(standings, waiting, max_loaded=max_loaded, idle_unload_s=1e9, now=clock):
                    match action:
                        case Grant(place=place):
                            granted.append(place)
                            model = waiting[place]
                            held = standings[model]
                            assert held.leased < held.slots
                            standings[model] = ready(2, held.leased + 1, clock, clock)
                            leases.append(model)
                        case Load(model=model):
                            assert sum(s.state != "out" for s in standings.values()) < max_loaded
                            standings[model] = COMING
                        case Unload(model=model):
                            assert standings[model].leased == 0
                            standings[model] = GOING
                waiting = [model for place, model in enumerate(waiting) if place not in granted]
                for model, standing in standings.items():
                    if standing.state == "coming":
                        standings[model] = ready(2, 0, clock, clock)
                    elif standing.state == "going":
                        standings[model] = OUT
                if clock % 3 == 0 and leases:
                    model = leases.pop(0)
                    held = standings[model]
                    standings[model] = ready(2, held.leased - 1, held.used_at, clock)
            assert not waiting, (queue, max_loaded)


@pytest.mark.parametrize(("failures", "rest_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (7, 60), (5000, 60)])
def test_a_model_that_keeps_failing_rests_longer_each_time(failures: int, rest_s: float) -> None:
    assert backoff_s(failures) == rest_s


def test_slots_are_given_up_before_context_when_memory_is_short() -> None:
    gib = 1 << 30
    small: dict[str, Any] = {"context_length": 8192, "kv_bytes_per_token": 23_040, "context_max": 8192, "slots": 4}
    assert fit(**small, memory_bytes=16 * gib) == (8192, 4)
    large: dict[str, Any] = {"context_length": 131_072, "kv_bytes_per_token": 147_456, "context_max": 8192, "slots": 4}
    assert fit(**large, memory_bytes=16 * gib) == (8192, 3)
    assert fit(**large, memory_bytes=2 * gib) == (8192, 1)
    assert fit(**large | {"context_length": None, "kv_bytes_per_token": 0}, memory_bytes=gib) == (8192, 4)
    assert fit(**small | {"context_length": 512}, memory_bytes=16 * gib) == (512, 4)
