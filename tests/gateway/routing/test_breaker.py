"""A breaker's states and the budget for asking again, by a clock that is given."""

import random
from collections import Counter

import pytest

from compat.canonical.error import (
    AuthFailed,
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelLoading,
    Overloaded,
    QueueFull,
    RateLimited,
    Rejected,
    TimedOut,
    UpstreamFailed,
)
from gateway.routing.breaker import Breaker, Budget, Rule, Window
from gateway.routing.health import KNOWN_MAX, Health, HealthBook

RULE = Rule(failures=3, cooldown_s=5, cooldown_max_s=20, window_s=30, window_requests=10, failure_rate=0.5)
ME, OTHER = object(), object()


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(RULE)
    for _ in range(RULE.failures):
        breaker.failed(at, ME)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(RULE)
    for _ in range(2):
        breaker.failed(0, ME)
    breaker.succeeded(0)
    for _ in range(2):
        breaker.failed(0, ME)
        assert breaker.state == "closed"
        assert breaker.admit(0, ME)
    breaker.failed(0, ME)
    assert breaker.state == "open"
    assert not breaker.admit(4.99, ME)


def test_a_rate_of_failures_opens_it_once_there_were_enough_requests() -> None:
    breaker = Breaker(RULE)
    for n in range(4):
        breaker.succeeded(n)
        breaker.failed(n, ME)
    breaker.succeeded(4)
    assert breaker.state == "closed", "9 requests say too little"
    breaker.failed(4, ME)
    assert breaker.state == "open"


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(RULE)
    for n in range(100):
        breaker.succeeded(n * 10)
        breaker.failed(n * 10, ME)
        assert breaker.state == "closed", "at most 8 within 30 s"


def test_one_request_is_the_probe() -> None:
    breaker = opened()
    assert breaker.admit(5, ME)
    assert breaker.state == "half_open"
    assert not breaker.admit(5, OTHER)
    breaker.succeeded(6)
    assert breaker.state == "closed"
    assert breaker.admit(6, OTHER)


def test_the_cool_down_doubles_up_to_its_limit_and_a_success_resets_it() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(5):
        until = breaker.opened_until
        assert until is not None
        waits.append(until - now)
        assert not breaker.admit(until - 0.01, ME)
        now = until
        assert breaker.admit(now, ME)
        breaker.failed(now, ME)
    assert waits == [5, 10, 20, 20, 20]
    breaker.succeeded(now)
    for _ in range(RULE.failures):
        breaker.failed(now, ME)
    assert breaker.opened_until == now + 5


def test_an_abandoned_probe_frees_its_place_and_proves_nothing() -> None:
    breaker = opened()
    assert breaker.admit(5, ME)
    breaker.abandoned(ME)
    assert breaker.state == "open"
    assert breaker.admit(5, OTHER)
    breaker.failed(5, OTHER)
    assert breaker.opened_until == 15, "doubled once, not twice"


def test_requests_of_before_do_not_speak_for_the_probe() -> None:
    breaker = opened()
    assert breaker.admit(5, ME)
    breaker.abandoned(OTHER)
    assert not breaker.admit(5, OTHER), "the probe is still under way"
    breaker.failed(5, OTHER)
    assert breaker.state == "half_open"
    assert breaker.opened_until == 5


@pytest.mark.parametrize("seed", range(20))
def test_there_is_never_more_than_one_probe(seed: int) -> None:
    """Random schedules of requests that overlap, each of which reports once."""
    rnd = random.Random(seed)  # noqa: S311
    breaker, now, under_way = Breaker(RULE), 0.0, dict[object, bool]()
    for _ in range(3000):
        now += rnd.expovariate(2)
        if len(under_way) < 8 and rnd.random() < 0.5:
            who, was_open = object(), breaker.opened_until is not None
            if breaker.admit(now, who):
                under_way[who] = was_open
            elif rnd.random() < 0.1:
                under_way[who] = False  # sent all the same: the last route
        elif under_way:
            who = rnd.choice(list(under_way))
            probe = under_way.pop(who)
            match rnd.choices(("succeeded", "failed", "abandoned"), (1, 6, 3))[0]:
                case "succeeded":
                    breaker.succeeded(now)
                    assert breaker.state == "closed"
                    under_way = dict.fromkeys(under_way, False)
                case "failed":
                    breaker.failed(now, who)
                    assert not probe or breaker.state == "open"
                case "abandoned":
                    breaker.abandoned(who)
        probes = sum(under_way.values())
        assert probes == (breaker.state == "half_open")


def test_a_window_counts_at_least_half_of_its_span_and_nothing_older() -> None:
    rnd, window, added, now = random.Random(1), Window(10), list[float](), 500.0  # noqa: S311
    for _ in range(5000):
        now += rnd.choice((0.01, 0.5, 3, 4.9, 5, 7, 12))
        counted = window.counts(now)[0]
        assert sum(t > now - 5 for t in added) <= counted <= sum(t > now - 10 for t in added)
        window.add(now, all_=1)
        added = [*added[-20:], now]


@pytest.mark.parametrize(
    ("error", "hurried"),
    [
        (InvalidRequest("x"), False),
        (Rejected("x"), False),
        (Rejected("x", status=404), False),
        (ContextTooLong("x"), False),
        (TimedOut("x"), True),
        (QueueFull("x"), False),
        (ModelLoading("x"), False),
    ],
    ids=repr,
)
def test_what_is_not_the_routes_fault_never_counts(error: GatewayError, hurried: bool) -> None:
    health = Health(RULE)
    for _ in range(100):
        health.failed(0, error, ME, hurried=hurried)
    assert health.breaker.state == "closed"
    assert health.admit(0, ME)


@pytest.mark.parametrize("error", [UpstreamFailed("x"), TimedOut("x"), AuthFailed("x"), RateLimited("x")], ids=repr)
def test_what_is_the_routes_fault_counts(error: GatewayError) -> None:
    health = Health(RULE)
    for _ in range(3):
        health.failed(0, error, ME)
    assert health.breaker.state == "open"


def test_only_a_provider_closes_a_breaker() -> None:
    """A request that we refused ourselves has not been there."""
    health = Health(RULE)
    for _ in range(2):
        health.failed(0, UpstreamFailed("x"), ME)
    health.failed(0, InvalidRequest("x"), ME)
    health.failed(0, UpstreamFailed("x"), ME)
    assert health.breaker.state == "open"
    assert health.admit(5, ME)
    health.failed(5, InvalidRequest("x"), ME)
    assert health.breaker.state == "open"
    assert health.admit(5, OTHER)
    health.failed(5, Rejected("x"), OTHER)
    assert health.breaker.state == "closed", "it judged the request: it is there"


@pytest.mark.parametrize("kind", [RateLimited, Overloaded])
def test_a_provider_that_says_when_is_left_alone_until_then(kind: type[RateLimited | Overloaded]) -> None:
    health = Health(RULE)
    error = kind("x", retry_after_s=7)
    error.rest_s = 7
    for _ in range(10):
        health.failed(100, error, ME)
    assert not health.admit(106.9, ME)
    assert health.free_at(100) == 107
    assert health.admit(107, ME)
    assert health.breaker.state == "closed"


def test_speed_is_an_average_that_is_forgotten() -> None:
    health = Health(RULE)
    assert health.speed(0) == 0.0
    health.answered(0, 2.0)
    health.answered(0, None)
    health.answered(0, 1.0)
    assert 1.0 < health.speed(0) < 2.0
    assert health.speed(600) < 0.001


def test_the_book_forgets_routes_at_rest_only() -> None:
    book = HealthBook(RULE)
    busy, broken = book.of("up/busy"), book.of("up/broken")
    busy.busy = 1
    for _ in range(3):
        broken.failed(0, UpstreamFailed("x"), ME)
    for n in range(3 * KNOWN_MAX):
        book.of(f"up/{n}")
    assert book.of("up/busy") is busy
    assert book.of("up/broken") is broken
    assert len(book._known) <= KNOWN_MAX
    assert book.open("up") == 1
    assert list(book.troubled(0)) == ["up/broken"]
    book.adopt(RULE)
    assert book.of("up/broken") is broken
    book.adopt(Rule(failures=9))
    assert book.of("up/broken") is not broken


@pytest.mark.parametrize("rate", [0.5, 1, 10, 100])
def test_the_budget_is_a_fifth_of_the_traffic_or_three(rate: float) -> None:
    """However often somebody wants to ask again: over ten minutes, and over any ten seconds."""
    budget, rnd = Budget(), random.Random(rate)  # noqa: S311
    now, first, again = 10_000.0, Counter[int](), Counter[int]()
    while now < 10_600:
        now += rnd.expovariate(rate)
        budget.count(now)
        first[int(now)] += 1
        for _ in range(3):
            again[int(now)] += budget.spend(now)
    assert again.total() >= 0.1 * first.total()
    for begin in range(10_010, 10_590):
        near = sum(first[second] for second in range(begin - 10, begin + 10))
        assert sum(again[second] for second in range(begin, begin + 10)) <= max(2 * Budget.LEAST, 0.2 * near + 3)
    if rate >= 10:
        assert again.total() <= 0.21 * first.total()


def test_a_budget_without_traffic_allows_three() -> None:
    budget = Budget()
    assert [budget.spend(0) for _ in range(5)] == [True, True, True, False, False]
    assert budget.spend(20)
