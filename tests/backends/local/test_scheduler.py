"""Decisions: no processes, no clock, no event loop."""

import random
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import pytest

from backends.local.pool.scheduler import (
    NOTHING,
    Action,
    Grant,
    Load,
    Refuse,
    Room,
    Standing,
    State,
    Unload,
    backoff_s,
    decide,
    evict_for,
    fit,
    next_due,
)

OUT = Standing(state="out")
COMING = Standing(state="coming")
GOING = Standing(state="going")


def ready(slots: int = 1, leased: int = 0, used_at: float = 0.0, **more: Any) -> Standing:
    return Standing(state="in", slots=slots, leased=leased, used_at=used_at, idle_unload_s=100.0, **more)


def decided(
    standings: Mapping[str, Standing], queue: str, wishes: str = "", *, now: float = 10.0, **limits: int
) -> list[Action]:
    room = Room(**{"places": 1, "allowed": 100, "available": 100} | limits)
    return decide(standings, list(queue), list(wishes), limits=room, now=now)


def test_waiters_for_one_model_share_one_load() -> None:
    assert decided({"a": OUT}, "aaa") == [Load(model="a")]
    assert decided({"a": COMING}, "aaa") == []


def test_slots_are_granted_first_come_first_and_no_more_than_there_are() -> None:
    assert decided({"a": ready(slots=3, leased=1)}, "aaaa") == [Grant(place=0), Grant(place=1)]


def test_models_load_side_by_side_while_there_is_room() -> None:
    assert decided({"a": OUT, "b": OUT, "c": OUT}, "abc", places=2) == [Load(model="a"), Load(model="b")]


def test_the_idle_model_used_longest_ago_makes_room() -> None:
    standings = {"a": ready(used_at=2), "b": ready(used_at=1), "c": OUT}
    assert decided(standings, "c", places=2) == [Unload(model="b", beneficiary="c")]


def test_a_busy_model_is_never_unloaded() -> None:
    assert decided({"a": ready(leased=1), "b": OUT}, "b") == []


def test_an_idle_model_goes_before_a_busy_one_yields() -> None:
    standings = {"a": ready(leased=1, used_at=1), "b": ready(used_at=2), "c": OUT}
    assert decided(standings, "c", places=2) == [Unload(model="b", beneficiary="c")]


def test_two_waiters_never_claim_the_same_room() -> None:
    assert decided({"a": GOING, "b": OUT, "c": OUT}, "bc") == []
    assert decided({"a": ready(), "b": OUT, "c": OUT}, "bc") == [Unload(model="a", beneficiary="b")]
    standings = {"a": ready(used_at=1), "d": ready(used_at=2), "b": OUT, "c": OUT}
    assert decided(standings, "bc", places=2) == [
        Unload(model="a", beneficiary="b"),
        Unload(model="d", beneficiary="c"),
    ]


def test_a_model_just_loaded_serves_its_waiters_before_it_yields() -> None:
    assert decided({"a": ready(), "b": OUT}, "ab") == [Grant(place=0)]
    assert decided({"a": ready(), "b": OUT}, "ba") == [Unload(model="a", beneficiary="b")]


def test_a_steady_stream_for_one_model_does_not_starve_another() -> None:
    standings = {"a": ready(slots=2, leased=1), "b": OUT}
    assert decided(standings, "baaa") == []
    assert decided(standings, "aab") == [Grant(place=0)]


def test_a_load_nobody_waits_for_any_more_makes_room() -> None:
    assert decided({"a": COMING, "b": OUT}, "b") == [Unload(model="a", beneficiary="b")]
    assert decided({"a": COMING, "b": OUT}, "ab") == []


def test_a_model_that_is_going_comes_back_for_its_waiters() -> None:
    assert decided({"a": GOING}, "a") == []
    assert decided({"a": OUT}, "a") == [Load(model="a")]


def test_an_unused_model_goes_when_its_time_is_up() -> None:
    assert decided({"a": ready(used_at=10)}, "", now=109) == []
    assert decided({"a": ready(used_at=10)}, "", now=110) == [Unload(model="a")]
    assert decided({"a": ready(used_at=10, leased=1)}, "", now=999) == []
    assert decided({"a": ready(used_at=10)}, "a", now=999) == [Grant(place=0)]


def test_the_next_idle_time_to_run_out_is_the_next_thing_due() -> None:
    standings = {"a": ready(used_at=10), "b": ready(used_at=5), "c": ready(leased=1), "d": OUT}
    assert next_due(standings.values()) == 105.0
    assert next_due([ready(leased=1)]) is None


def sized(size: int, state: State = "out", **more: Any) -> Standing:
    return Standing(state=state, bytes=size, **more)


def test_no_more_is_loaded_than_memory_holds() -> None:
    standings = {"a": sized(60), "b": sized(50), "c": sized(40)}
    assert decided(standings, "abc", places=9) == [Load(model="a")]
    assert decided(standings, "acb", places=9) == [Load(model="a"), Load(model="c")]


def test_one_that_is_going_still_takes_its_memory() -> None:
    assert decided({"a": sized(60, "going"), "b": sized(50)}, "b", places=9) == []


def test_the_fewest_that_can_be_missed_make_room() -> None:
    """Not both small ones where one large one does, and not the large one where a small one does."""
    standings = {"a": sized(30, "in"), "b": sized(30, "in"), "c": sized(40, "in"), "d": sized(35)}
    assert decided(standings, "d", places=9) == [Unload(model="c", beneficiary="d")]
    standings["d"] = sized(25)
    assert decided(standings, "d", places=9) == [Unload(model="a", beneficiary="d")]
    standings["d"] = sized(60)
    assert decided(standings, "d", places=9) == [
        Unload(model="a", beneficiary="d"),
        Unload(model="b", beneficiary="d"),
    ]


def test_room_made_for_one_waiter_is_not_given_to_another() -> None:
    """What the first one waits for would be enough for the second at once."""
    standings = {"a": sized(40, "in", leased=1), "b": sized(90), "c": sized(50)}
    assert decided(standings, "bc", places=9) == []
    standings["a"] = sized(40, "going")
    assert decided(standings, "bc", places=9) == []
    standings["a"] = sized(40)
    assert decided(standings, "bc", places=9) == [Load(model="b")]


def test_what_is_left_over_may_be_had_by_those_behind() -> None:
    standings = {"a": sized(40, "in", leased=1), "b": sized(70), "c": sized(30)}
    assert decided(standings, "bc", places=9) == [Load(model="c")]


def test_a_model_that_takes_long_to_load_stays_longer() -> None:
    slow, quick = ready(used_at=80, load_s=30), ready(used_at=95, load_s=1)
    assert decided({"a": slow, "b": quick, "c": OUT}, "c", places=2, now=100) == [Unload(model="b", beneficiary="c")]
    assert decided({"a": slow, "b": ready(used_at=95, load_s=29), "c": OUT}, "c", places=2, now=100) == [
        Unload(model="a", beneficiary="c")
    ]


def test_one_that_somebody_waits_for_goes_after_one_that_nobody_wants() -> None:
    """Even if it could better be missed otherwise: it would be back at once."""
    standings = {"a": ready(used_at=1), "b": ready(used_at=9), "c": OUT}
    assert decided(standings, "ca", places=2) == [Unload(model="b", beneficiary="c"), Grant(place=1)]


def test_a_pinned_model_never_has_to_go() -> None:
    assert decided({"a": ready(pinned=True), "b": ready(used_at=9), "c": OUT}, "c", places=2) == [
        Unload(model="b", beneficiary="c")
    ]
    assert decided({"a": ready(pinned=True)}, "", now=1e9) == []
    assert next_due([ready(pinned=True)]) is None


def test_a_model_that_never_fits_is_refused_at_once() -> None:
    assert decided({"a": sized(101)}, "a", places=9) == [Refuse(model="a", most=Room(9, 100, 100))]
    standings = {"a": sized(50, "in", pinned=True), "b": sized(51)}
    assert decided(standings, "b", places=9) == [Refuse(model="b", most=Room(8, 50, 150 - 50))]
    assert decided(standings | {"b": sized(50)}, "b", places=1) == [Refuse(model="b", most=Room(0, 50, 100))]
    assert decided({"a": sized(50, "coming", unclaimed=30), "b": sized(90)}, "ab", places=9, available=50) == [
        Refuse(model="b", most=Room(9, 100, 70))
    ]


def test_a_refusal_does_not_hold_up_those_behind() -> None:
    assert decided({"a": sized(101), "b": sized(90)}, "ab", places=9) == [
        Refuse(model="a", most=Room(9, 100, 100)),
        Load(model="b"),
    ]


def test_the_machine_must_have_what_a_model_takes() -> None:
    assert decided({"a": sized(20)}, "a", available=20) == [Load(model="a")]
    standings = {"a": sized(20), "b": sized(30, "in")}
    assert decided(standings, "a", places=9, available=10) == [Unload(model="b", beneficiary="a")]
    assert decided(standings, "a", places=9, available=20) == [Load(model="a")]
    standings = {"a": sized(20), "b": sized(30, "coming", unclaimed=25)}
    assert decided(standings, "ba", places=9, available=44) == []
    assert decided(standings, "ba", places=9, available=45) == [Load(model="a")]


def test_those_who_waited_for_a_load_are_served_before_the_model_yields() -> None:
    standings = {"a": ready(owed=1), "b": OUT}
    assert decided(standings, "baa") == [Grant(place=1)]
    assert decided({"a": ready(owed=1, leased=1), "b": OUT}, "baa") == []
    assert decided({"a": ready(), "b": OUT}, "ba") == [Unload(model="a", beneficiary="b")]


def test_a_model_ordered_out_finishes_what_it_runs_and_takes_nothing_new() -> None:
    assert decided({"a": ready(leased=1, slots=2, ordered_out=True)}, "a") == []
    assert decided({"a": ready(slots=2, ordered_out=True)}, "a") == [Unload(model="a")]
    assert decided({"a": ready(slots=2, owed=1, ordered_out=True)}, "aa") == [Grant(place=0)]
    assert decided({"a": ready(pinned=True, ordered_out=True)}, "") == [Unload(model="a")]


def test_a_load_that_is_ordered_out_is_broken_off_unless_somebody_waits() -> None:
    coming = Standing(state="coming", ordered_out=True)
    assert decided({"a": coming}, "") == [Unload(model="a")]
    assert decided({"a": coming}, "a") == []


def test_a_wish_takes_no_room_from_what_was_used_a_moment_ago() -> None:
    assert decided({"a": OUT}, "", "a") == [Load(model="a")]
    standings = {"a": OUT, "b": ready(used_at=90, load_s=20)}
    assert decided(standings, "", "a", now=100) == []
    assert decided(standings, "", "a", now=110) == [Unload(model="b", beneficiary="a")]
    assert decided({"a": OUT, "b": COMING}, "", "a") == []
    assert decided({"a": OUT, "b": OUT}, "b", "a") == [Load(model="b")]


def test_a_wish_that_must_wait_holds_up_no_other() -> None:
    standings = {"a": sized(60), "b": sized(30), "c": sized(60, "in", leased=1)}
    assert decided(standings, "", "ab", places=9) == [Load(model="b")]


def test_models_that_turn_out_larger_than_thought_go_when_nobody_uses_them() -> None:
    standings = {"a": sized(60, "in", leased=1), "b": sized(60, "in")}
    assert decided(standings, "", places=9) == [Unload(model="b")]
    assert decided(standings, "b", places=9) == [Grant(place=0)]


def test_the_set_that_goes_is_the_least_loss_of_all_that_make_the_room() -> None:
    """Against every set there is, over many small situations."""
    chance = random.Random(6)  # noqa: S311
    for _ in range(300):
        candidates = {
            name: sized(chance.randint(1, 9), "in", leased=chance.randint(0, 1), load_s=chance.randint(1, 50))
            for name in "abcdef"[: chance.randint(1, 6)]
        }
        short = Room(chance.randint(0, 3), chance.randint(0, 20), chance.randint(1, 20))
        chosen = evict_for(short, candidates, now=10.0)
        sets = [
            names for n in range(7) for names in combinations(candidates, n) if freed(candidates, names).holds(short)
        ]
        assert bool(chosen) == bool(sets)
        if chosen:
            assert freed(candidates, chosen).holds(short)
            assert lost(candidates, chosen) == min(lost(candidates, names) for names in sets)


def freed(candidates: Mapping[str, Standing], names: Iterable[str]) -> Room:
    room = NOTHING
    for name in names:
        room = room.plus(candidates[name].room)
    return room


def lost(candidates: Mapping[str, Standing], names: Iterable[str]) -> tuple[int, float]:
    chosen = [candidates[name] for name in names]
    return sum(s.leased > 0 for s in chosen), round(sum(s.load_s for s in chosen), 6)


def test_whatever_is_decided_can_be_done_and_a_waiter_is_never_forgotten() -> None:
    """Play the decisions out over every small situation: all waiters are served in the end."""
    for queue in ("abcabc", "aabbcc", "cbaabc", "abab", "ccccca"):
        for max_loaded in (1, 2, 3):
            standings = dict.fromkeys("abc", OUT)
            waiting, leases, clock = list(queue), [], 0.0
            for _ in range(200):
                clock += 1
                granted = []
                for action in decide(standings, waiting, limits=Room(max_loaded, 100, 100), now=clock):
                    match action:
                        case Grant(place=place):
                            granted.append(place)
                            model = waiting[place]
                            held = standings[model]
                            assert held.leased < held.slots
                            standings[model] = ready(2, held.leased + 1, clock)
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
                        standings[model] = ready(2, 0, clock)
                    elif standing.state == "going":
                        standings[model] = OUT
                if clock % 3 == 0 and leases:
                    model = leases.pop(0)
                    held = standings[model]
                    standings[model] = ready(2, held.leased - 1, clock)
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
