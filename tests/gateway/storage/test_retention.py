"""What goes when room is wanted: never what is protected, never too much, and nothing where it would not do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.storage.retention import KINDS, ORPHAN_S, Kind, Plan, Policy, Room, Thing, make_room, tidy

NOW = 10_000_000.0
DAY_S = 86_400.0
SOME: frozenset[Kind] = frozenset({"version", "model"})


def thing(
    name: str, size: int, age_s: float, kind: Kind = "model", *more: tuple[str, int], kept: str | None = None
) -> Thing:
    return Thing(kind=kind, path=name, files=((name, size), *more), used_at=NOW - age_s, model=name, kept=kept)


@st.composite
def folders(draw: st.DrawFn) -> tuple[list[Thing], Room, Policy, int]:
    sizes = {f"f{n}": draw(st.integers(0, 100)) for n in range(draw(st.integers(1, 12)))}
    things = []
    for n in range(draw(st.integers(0, 8))):
        names = draw(st.sets(st.sampled_from(sorted(sizes)), min_size=1, max_size=3))
        kind: Kind = draw(st.sampled_from(sorted(KINDS)))
        things.append(
            Thing(
                kind=kind,
                path=f"thing{n}",
                files=tuple((name, sizes[name]) for name in sorted(names)),
                used_at=NOW - draw(st.floats(0, 30 * DAY_S)),
                model=f"local/{n}",
                kept=draw(st.sampled_from([None, None, "pinned", "in use"])),
            )
        )
    used = sum(dict(pair for one in things for pair in one.files).values())
    room = Room(used_bytes=used, reserved_bytes=draw(st.integers(0, 50)), free_bytes=draw(st.integers(0, 500)))
    policy = Policy(
        limit_bytes=draw(st.none() | st.integers(0, 600)),
        min_free_bytes=draw(st.integers(0, 200)),
        lru=draw(st.booleans()),
        unused_s=draw(st.none() | st.floats(DAY_S, 20 * DAY_S)),
        partial_s=draw(st.floats(DAY_S, 10 * DAY_S)),
    )
    return things, room, policy, draw(st.integers(0, 300))


def after(room: Room, plan: Plan) -> Room:
    return Room(
        used_bytes=room.used_bytes - plan.freed_bytes,
        reserved_bytes=room.reserved_bytes,
        free_bytes=room.free_bytes + plan.freed_bytes,
    )


def gone(plan: Plan) -> set[str]:
    return {path for one in plan.removals for path, _ in one.thing.files}


def protected(things: list[Thing]) -> set[str]:
    return {path for one in things if one.kept is not None for path, _ in one.files}


@settings(max_examples=120, deadline=None)
@given(folders())
def test_after_it_there_is_room_or_nothing_was_removed(case: tuple[list[Thing], Room, Policy, int]) -> None:
    things, room, policy, wanted = case
    plan = make_room(things, room, policy, wanted, NOW)
    assert bool(plan.missing_bytes) == bool(after(room, plan).lacking(policy, wanted))
    assert not (plan.missing_bytes and plan.removals)
    assert not (plan.removals and not room.lacking(policy, wanted)), "nothing goes without need"
    assert policy.lru or not plan.removals


@settings(max_examples=120, deadline=None)
@given(folders())
def test_nothing_protected_ever_goes_and_what_is_shared_goes_whole(case: tuple[list[Thing], Room, Policy, int]) -> None:
    things, room, policy, wanted = case
    plans = [make_room(things, room, policy, wanted, NOW)]
    plans += [tidy(things, room, policy, NOW, kinds=kinds) for kinds in (None, SOME, KINDS)]
    plans += [tidy(things, room, policy, NOW, aged_only=True)]
    for plan in plans:
        assert not gone(plan) & protected(things)
        removed = {one.thing.path for one in plan.removals}
        assert not gone(plan) & {p for one in things if one.path not in removed for p, _ in one.files}
        assert len(removed) == len(plan.removals), "each once"
        sizes = dict(pair for one in things for pair in one.files)
        assert plan.freed_bytes == sum(sizes[path] for path in gone(plan))


@settings(max_examples=120, deadline=None)
@given(folders())
def test_no_more_goes_than_it_takes_and_the_least_used_goes_first(
    case: tuple[list[Thing], Room, Policy, int],
) -> None:
    things, room, policy, wanted = case
    alone = [
        one
        for n, one in enumerate(things)
        if not any(set(one.files) & set(o.files) for o in things[:n] + things[n + 1 :])
    ]
    plan = make_room(alone, room, policy, wanted, NOW)
    for kind in ("model", "version"):
        times = [one.thing.used_at for one in plan.removals if one.thing.kind == kind]
        assert times == sorted(times)
        stays = [one for one in alone if one.kind == kind and one.kept is None and one.path not in
                 {r.thing.path for r in plan.removals} and one.size_bytes]  # fmt: skip
        assert all(one.used_at >= max(times, default=0.0) for one in stays)
    if plan.removals:
        short = Plan(removals=plan.removals[:-1])
        assert after(room, short).lacking(policy, wanted), "the last one was needed"


def test_models_go_by_their_last_use_after_what_is_of_less_use() -> None:
    things = [
        thing("old", 10, 9 * DAY_S),
        thing("new", 10, 1 * DAY_S),
        thing("pinned", 10, 20 * DAY_S, kept="pinned"),
        thing("version", 10, 1.0, "version"),
        thing("partial", 10, 8 * DAY_S, "partial"),
        thing("growing", 10, 1 * DAY_S, "partial"),
        thing("stray", 10, 30 * DAY_S, "orphan"),
    ]
    room, policy = Room(used_bytes=70, free_bytes=10**6), Policy(limit_bytes=70, lru=True)

    def names(wanted: int) -> list[str]:
        return [one.thing.path for one in make_room(things, room, policy, wanted, NOW).removals]

    assert names(0) == []
    assert names(1) == ["partial"]
    assert names(20) == ["partial", "version"]
    assert names(21) == ["partial", "version", "old"]
    assert names(40) == ["partial", "version", "old", "new"]
    assert names(41) == []
    assert make_room(things, room, policy, 41, NOW).missing_bytes == 1


def test_what_must_stay_free_counts_beside_the_limit() -> None:
    things = [thing("a", 40, 2.0), thing("b", 40, 1.0)]
    room = Room(used_bytes=80, free_bytes=30, reserved_bytes=20)
    plan = make_room(things, room, Policy(min_free_bytes=10, lru=True), 5, NOW)
    assert [one.thing.path for one in plan.removals] == ["a"]
    assert make_room(things, room, Policy(min_free_bytes=10), 5, NOW).missing_bytes == 5


def test_cleaning_up_removes_what_is_too_old_or_of_no_use_and_says_why() -> None:
    things = [
        thing("unused", 10, 40 * DAY_S),
        thing("used", 10, 20 * DAY_S),
        thing("before", 10, 1 * DAY_S, "version"),
        thing("left", 10, 8 * DAY_S, "partial"),
        thing("going-on", 10, 90 * DAY_S, "partial", kept="its download is not over"),
        thing("stray", 10, ORPHAN_S + 1, "orphan"),
        thing("coming", 10, ORPHAN_S - 1, "orphan"),
        thing("cut", 10, 1.0, "truncated"),
    ]
    room, policy = Room(used_bytes=80, free_bytes=10**6), Policy(unused_s=30 * DAY_S)
    plan = tidy(things, room, policy, NOW)
    assert {one.thing.path for one in plan.removals} == {"unused", "left", "stray", "cut"}
    reasons = {one.thing.path: one.reason for one in plan.removals}
    assert (reasons["unused"], reasons["left"]) == (
        "nobody has used it for 30 days",
        "nobody has gone on with it for 7 days",
    )
    assert [one.thing.path for one in tidy(things, room, policy, NOW, kinds={"version"}).removals] == ["before"]
    aged = tidy(things, room, policy, NOW, kinds={"partial", "model", "version"}, aged_only=True)
    assert {one.thing.path for one in aged.removals} == {"unused", "left"}


def test_a_folder_over_its_limit_is_brought_back_by_cleaning_up_only_where_the_policy_says_so() -> None:
    things = [thing("a", 40, 2.0), thing("b", 40, 1.0), thing("c", 40, 3.0, kept="in use")]
    room = Room(used_bytes=120, free_bytes=10**6)
    plan = tidy(things, room, Policy(limit_bytes=100, lru=True), NOW)
    assert ([one.thing.path for one in plan.removals], plan.missing_bytes) == (["a"], 0)
    kept = tidy(things, room, Policy(limit_bytes=100), NOW)
    assert (kept.removals, kept.missing_bytes) == ((), 20)
    assert tidy(things, room, Policy(limit_bytes=30, lru=True), NOW).removals == (), "it would not do"
    assert tidy(things, room, Policy(limit_bytes=100, lru=True), NOW, aged_only=True).removals == ()
