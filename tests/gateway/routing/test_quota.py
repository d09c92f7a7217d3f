"""What is known of providers' quotas, and what follows from it for the choice of routes."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from compat.canonical.error import RateLimited, Unreachable
from compat.canonical.request import Envelope
from gateway.routing.health import HealthBook
from gateway.routing.quota import BRIEF_S, QuotaBook, Standing
from gateway.routing.router import Plan, Route
from gateway.routing.selection import select
from gateway.settings import SelectionMode
from gateway.visit import Visit
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import Player, Relayer, Stage, chat, route, said, visit

NOON = 1_790_164_800.0
"""2026-09-23T12:00:00Z"""
HOUR = 3600.0
GIFT, OTHER, OWN, SHOP = (
    route(Player(name, said("x")), name, price=price)  # type: ignore[arg-type]
    for name, price in (("gift", "free"), ("other", "free"), ("own", "local"), ("shop", "paid"))
)


class Time:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.time = Time()
        self.quotas = QuotaBook(self.time)

    def told(
        self, route: Route, remaining: int, after_s: float = HOUR, most: int | None = 100, of: str = "requests-day"
    ) -> None:
        headers = [(f"x-ratelimit-remaining-{of}", str(remaining)), (f"x-ratelimit-reset-{of}", str(after_s))]
        if most is not None:
            headers.append((f"x-ratelimit-limit-{of}", str(most)))
        self.quotas.heard(route, headers)
        self.quotas.digest()

    def refuses(self, route: Route, refill_s: float | None = None, **headers: str) -> None:
        error = RateLimited("x")
        error.refill_s = refill_s
        error.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.quotas.refused(route, error)

    def chosen(
        self, *routes: Route, mode: SelectionMode = "auto", envelope: Envelope | None = None, seen: Visit | None = None
    ) -> list[str]:
        plan = Plan(requested="any", routes=routes, reason="")
        picked = select(plan, envelope or chat(), HealthBook(), mode, seen or visit(), self.quotas)
        return [route.model for route in picked]

    def left(self, route: Route = GIFT) -> dict[str, int]:
        return {f"{one.unit} {one.span}".strip(): one.remaining for one in self.quotas.standings(route.backend.name)}

    def sends(self, route: Route, count: int = 1, *, answered: bool = True) -> None:
        for _ in range(count):
            draw = self.quotas.draw(route, chat())
            if draw is not None:
                draw.settle(answered=answered)


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_known_and_nothing_left_out(world: World) -> None:
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]
    assert world.chosen(GIFT, mode="free_only") == ["gift"]
    assert world.left() == {}


def test_a_free_route_with_nothing_left_is_left_out_until_its_reset(world: World) -> None:
    world.told(GIFT, 0)
    seen = visit()
    assert world.chosen(GIFT, OTHER, seen=seen) == ["other"]
    assert seen.trail == [("gift/gift", "free quota used up until 13:00Z")]
    world.time.now += HOUR - 1
    assert world.chosen(GIFT, OTHER) == ["other"]
    world.time.now += 1
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]
    assert world.left() == {"requests day": 100}


def test_the_day_is_named_where_it_is_another_one(world: World) -> None:
    world.told(GIFT, 0, 20 * HOUR)
    seen = visit()
    world.chosen(GIFT, OTHER, seen=seen)
    assert seen.trail == [("gift/gift", "free quota used up until 2026-09-24T08:00Z")]


def test_what_is_known_of_paid_and_local_routes_decides_nothing(world: World) -> None:
    for one in (OWN, SHOP):
        world.told(one, 0)
        assert world.chosen(one, GIFT) == [one.model, "gift"]
    assert world.left(SHOP) == {"requests day": 0}


def test_the_only_route_is_asked_all_the_same_where_paid_ones_would_be_too(world: World) -> None:
    world.told(GIFT, 0)
    world.told(OTHER, 0)
    assert world.chosen(GIFT) == ["gift"]
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]
    assert world.chosen(GIFT, OTHER, SHOP) == ["shop"]


def test_where_only_free_routes_may_be_asked_and_nothing_is_left_it_is_said_when_there_is(world: World) -> None:
    world.told(GIFT, 0, 2 * HOUR)
    world.told(OTHER, 0, HOUR)
    seen = visit()
    with pytest.raises(RateLimited) as refused:
        world.chosen(GIFT, SHOP, OTHER, mode="free_only", seen=seen)
    assert refused.value.message == "The free quota of the model's routes is used up until 13:00Z."
    assert refused.value.retry_after_s == HOUR
    assert [name for name, _ in seen.trail] == ["shop/shop", "gift/gift", "other/other"]
    assert world.chosen(GIFT, OWN, OTHER, mode="free_only") == ["own"]


def test_a_request_under_way_counts_before_anybody_has_told_of_it(world: World) -> None:
    world.told(GIFT, 2)
    first, second = (world.quotas.draw(GIFT, chat()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert world.left() == {"requests day": 0}
    assert world.chosen(GIFT, OTHER) == ["other"]
    first.settle(answered=False)
    first.settle(answered=False)
    assert world.left() == {"requests day": 1}
    second.settle(answered=True)
    assert world.left() == {"requests day": 1}
    world.sends(GIFT)
    assert world.left() == {"requests day": 0}


def test_the_provider_is_right_whatever_was_counted(world: World) -> None:
    world.told(GIFT, 10)
    world.sends(GIFT, 4)
    assert world.left() == {"requests day": 6}
    world.told(GIFT, 50)
    assert world.left() == {"requests day": 50}
    world.told(GIFT, 0)
    world.sends(GIFT)  # it was the only one, and did answer
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]


def test_tokens_are_held_against_what_the_request_would_take(world: World) -> None:
    world.told(GIFT, 5000, most=100_000, of="tokens-day")
    long = chat(messages=[{"role": "user", "content": "word " * 10_000}])
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]
    assert world.chosen(GIFT, OTHER, envelope=long) == ["other"]
    # The estimate may be wrong: a sure refusal it is not worth.
    assert world.chosen(GIFT, mode="free_only", envelope=long) == ["gift"]
    world.told(GIFT, 0, most=100_000, of="tokens-day")
    with pytest.raises(RateLimited):
        world.chosen(GIFT, mode="free_only", envelope=long)


def test_what_is_longer_than_a_whole_window_waits_for_a_whole_one(world: World) -> None:
    long = chat(messages=[{"role": "user", "content": "word " * 10_000}])
    world.told(GIFT, 900, most=1000, of="tokens-minute")
    assert world.chosen(GIFT, OTHER, envelope=long) == ["other"]
    world.told(GIFT, 1000, most=1000, of="tokens-minute")
    assert world.chosen(GIFT, OTHER, envelope=long) == ["gift", "other"]


def test_what_refills_evenly_is_back_bit_by_bit(world: World) -> None:
    world.told(GIFT, 0, after_s=1000, most=100, of="requests")
    assert world.quotas.until(GIFT) == pytest.approx(NOON + 10)
    world.time.now += 9
    assert world.chosen(GIFT, OTHER) == ["other"]
    world.time.now += 2
    assert world.chosen(GIFT, OTHER) == ["gift", "other"]
    world.time.now = NOON + 500
    assert world.left() == {"requests": 50}


def test_the_strictest_window_counts(world: World) -> None:
    world.told(GIFT, 50, HOUR, of="requests-day")
    world.told(GIFT, 0, 30, of="requests-minute")
    assert world.quotas.until(GIFT) == NOON + 30
    world.told(GIFT, 0, HOUR, of="requests-day")
    assert world.quotas.until(GIFT) == NOON + HOUR
    assert world.quotas.least() == {("gift", "requests_day"): 0, ("gift", "requests_minute"): 0}


def test_a_refusal_says_until_when(world: World) -> None:
    world.refuses(GIFT, refill_s=2 * HOUR)
    assert world.quotas.until(GIFT) == NOON + 2 * HOUR
    assert world.left() == {"any": 0}
    assert world.quotas.least() == {}
    world.sends(GIFT)
    assert world.quotas.until(GIFT) is None


def test_a_refusal_whose_headers_say_more_goes_by_these(world: World) -> None:
    world.refuses(GIFT, 20.0, x_ratelimit_remaining_requests_day="0", x_ratelimit_reset_requests_day="7200")
    assert world.quotas.until(GIFT) == NOON + 2 * HOUR
    world.refuses(OTHER, 20.0, x_ratelimit_remaining_requests_day="90", x_ratelimit_reset_requests_day="7200")
    assert world.quotas.until(OTHER) == NOON + 20


def test_a_refusal_that_says_nothing_leaves_it_to_the_breaker(world: World) -> None:
    world.refuses(GIFT)
    world.refuses(GIFT, refill_s=0.0)
    assert world.quotas.until(GIFT) is None


def test_one_account_says_nothing_of_another(world: World) -> None:
    mine = msgspec.structs.replace(GIFT, account="crd_1")
    world.told(mine, 0)
    assert (world.quotas.until(mine), world.quotas.until(GIFT)) == (NOON + HOUR, None)
    assert world.left() == {}
    assert [one.account for one in world.quotas.standings("gift#crd_1")] == ["gift#crd_1"]


def test_while_plenty_is_left_nobody_looks_closely_but_often_enough(world: World) -> None:
    world.told(GIFT, 1000, most=1000)
    for left in range(999, 700, -1):
        assert world.chosen(GIFT, OTHER) == ["gift", "other"]
        world.sends(GIFT)
        world.quotas.heard(GIFT, [("x-ratelimit-remaining-requests-day", str(left))])
    assert 700 <= world.left()["requests day"] <= 700 + 50
    world.told(GIFT, 1, most=1000)
    world.sends(GIFT)
    assert world.chosen(GIFT, OTHER) == ["other"]


def test_what_all_models_have_in_common_is_told_once(world: World) -> None:
    error = RateLimited("x")
    error.limits = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", str((NOON + HOUR) * 1000))]
    world.quotas.refused(GIFT, error)
    sibling = route(GIFT.backend, "sibling", price="free")
    assert world.quotas.until(sibling) == NOON + HOUR
    assert world.quotas.until(OTHER) is None


def test_what_was_learned_is_taken_over_by_the_next_process(world: World) -> None:
    rows = Rows()
    world.told(GIFT, 7)
    world.told(GIFT, 3, 20, of="requests-minute")
    world.refuses(OTHER, refill_s=HOUR)
    run(written(world.quotas, rows))
    assert set(rows.rows) == {("gift", "requests", "day"), ("other", "any", "")}, "what is over soon is not kept"
    later = World()
    later.time.now += 60
    later.quotas.recall(rows.rows.values())
    assert later.left() == {"requests day": 7}
    assert later.quotas.until(OTHER) == NOON + HOUR
    much_later = World()
    much_later.time.now += 2 * HOUR
    much_later.quotas.recall(rows.rows.values())
    assert much_later.left() == {}


def test_what_turned_out_wrong_is_not_taken_over(world: World) -> None:
    rows = Rows()
    world.refuses(GIFT, refill_s=HOUR)
    run(written(world.quotas, rows))
    world.time.now += BRIEF_S / 2
    world.sends(GIFT)
    run(written(world.quotas, rows))
    later = World()
    later.time.now = world.time.now
    later.quotas.recall(rows.rows.values())
    assert later.quotas.until(GIFT) is None


def test_nothing_is_written_that_did_not_change_and_nothing_lost_when_it_cannot_be(world: World) -> None:
    rows = Rows()
    world.told(GIFT, 7)
    rows.broken = True
    run(written(world.quotas, rows))
    rows.broken = False
    run(written(world.quotas, rows))
    assert rows.puts == 1
    run(written(world.quotas, rows))
    assert rows.puts == 1


def test_models_without_end_are_not_remembered_without_end(world: World) -> None:
    for n in range(2100):
        world.told(route(GIFT.backend, f"m{n}", price="free"), 1)
    assert len(world.quotas.standings("gift")) == 2000
    world.time.now += 2 * HOUR
    world.told(GIFT, 1)
    assert len(world.quotas.standings("gift")) == 1


def test_the_dispatcher_counts_and_learns() -> None:
    """Attempts hold their draw until their answer has come, and give it back when they fail."""
    gift, shop = Relayer("gift", [Unreachable("x")], said("y")), Relayer("shop", said("z"))
    stage = Stage(gift, shop)
    stage.routes = [route(gift, price="free"), route(shop, price="paid")]
    quotas = stage.dispatcher.quotas
    quotas.heard(
        stage.routes[0], [("x-ratelimit-remaining-requests-day", "2"), ("x-ratelimit-limit-requests-day", "9")]
    )

    async def scene() -> tuple[str, str, str, str]:
        first = await stage.ask(stage.asked(chat()))
        left = quotas.standings("gift")[0].remaining
        assert left == 2, "what failed cost nothing"
        texts = [await stage.ask(stage.asked(chat())) for _ in range(3)]
        stage.assert_at_rest()
        return first, *texts  # type: ignore[return-value]

    assert run(scene()) == ("z", "y", "y", "z")


class Rows:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Standing] = {}
        self.puts = 0
        self.broken = False

    async def put(self, standings: Sequence[Standing]) -> None:
        if self.broken:
            raise OSError
        self.puts += 1
        self.rows |= {(one.account, one.unit, one.span): one for one in standings}


async def written(quotas: QuotaBook, rows: Rows) -> None:
    """Let the book write what it has, as it does when the gateway stops."""
    task = asyncio.create_task(quotas.write_to(rows))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
