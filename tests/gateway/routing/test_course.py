"""Which route is asked next, after what pause, and when a request gives up."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from compat.canonical.error import (
    AuthFailed,
    BackendError,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    EngineFailed,
    GatewayError,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Rejected,
    TimedOut,
    Unreachable,
    UpstreamFailed,
    WorkerCrashed,
)
from gateway.routing.breaker import Budget, Rule
from gateway.routing.course import BACKOFF_MAX_S, PAUSE_MAX_S, Course
from gateway.routing.health import HealthBook
from gateway.routing.router import Route
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import Player, route, said, visit

A, B, C = (Player(name, said("x")) for name in ("a", "b", "c"))
PASSING = [
    UpstreamFailed("x"),
    Unreachable("x"),
    BadResponse("x"),
    RateLimited("x"),
    Overloaded("x", retry_after_s=1),
]


async def walked(
    routes: list[Route],
    outcome: Callable[[Route, int], GatewayError | None],
    *,
    retries: int = 2,
    within_s: float = 60,
    book: HealthBook | None = None,
) -> tuple[list[tuple[str, float]], GatewayError | None]:
    """The routes that a request asks and when, and the error it ends with; None for an answer."""
    loop, book, who = asyncio.get_running_loop(), book or HealthBook(), visit()
    began = loop.time()
    course = Course(routes, retries, book, began + within_s, who)
    trail: list[tuple[str, float]] = []
    try:
        while True:
            chosen = await course.next()
            trail.append((chosen.name, round(loop.time() - began, 3)))
            error = outcome(chosen, len(trail))
            if error is None:
                book.of(chosen.name).answered(loop.time(), None)
                return trail, None
            book.of(chosen.name).failed(loop.time(), error, who)
            course.failed(chosen, error)
    except GatewayError as e:
        return trail, e


def walk(*args: Any, **more: Any) -> tuple[list[str], list[float], GatewayError | None]:
    trail, error = run(walked(*args, **more))
    return [name for name, _ in trail], [at for _, at in trail], error


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_fresh_routes_come_before_those_that_failed_and_at_once(error: BackendError) -> None:
    names, at, last = walk([route(A), route(B), route(C)], lambda *_: error)
    assert names == ["a/m", "b/m", "c/m", "a/m", "b/m"]
    assert at[:3] == [0, 0, 0]
    assert last is error


@pytest.mark.parametrize("more", [0, 1])
def test_a_worker_that_dies_twice_is_not_started_a_third_time(more: int) -> None:
    routes = [route(A), *[route(B)] * more]
    names, _, last = walk(routes, lambda r, _: WorkerCrashed(r.name), retries=5)
    assert names == ["a/m", *["b/m"] * more] * 2
    assert isinstance(last, WorkerCrashed)


@pytest.mark.parametrize("error", [ModelUnavailable("x"), EngineFailed("x")], ids=repr)
def test_what_does_not_pass_is_not_asked_for_again_there_but_elsewhere(error: BackendError) -> None:
    assert walk([route(A)], lambda *_: error, retries=5) == (["a/m"], [0], error)
    names, _, last = walk([route(A), route(B)], lambda r, _: error if r.backend is A else None, retries=5)
    assert (names, last) == (["a/m", "b/m"], None)


@pytest.mark.parametrize("error", [ModelUnavailable("x"), EngineFailed("x", code="out_of_memory")], ids=repr)
def test_what_befalls_one_request_does_not_close_a_route_for_others(error: BackendError) -> None:
    book = HealthBook(Rule(failures=2))
    for _ in range(10):
        walk([route(A)], lambda *_: error, book=book)
    assert book.of(route(A).key).breaker.opened_until is None
    assert walk([route(A)], lambda *_: None, book=book)[0] == ["a/m"]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_no_more_retries_than_the_plan_has(retries: int) -> None:
    names, _, _ = walk([route(A)], lambda *_: UpstreamFailed("x"), retries=retries)
    assert len(names) == 1 + retries


def test_an_answer_ends_it() -> None:
    names, _, error = walk([route(A), route(B)], lambda _, n: None if n == 3 else UpstreamFailed("x"))
    assert names == ["a/m", "b/m", "a/m"]
    assert error is None


def test_pauses_are_jittered_and_grow() -> None:
    rule = Rule(failures=1000, failure_rate=1.1)

    async def pauses() -> list[list[float]]:
        found = []
        for _ in range(300):
            trail, _ = await walked([route(A)], lambda *_: UpstreamFailed("x"), retries=3, book=HealthBook(rule))
            found.append([later - sooner for (_, sooner), (_, later) in pairwise(trail)])
        return found

    found = run(pauses())
    for n, most in enumerate((0.25, 0.5, 1.0)):
        nth = [one[n] for one in found]
        assert 0 <= min(nth) < 0.1 * most
        assert 0.9 * most < max(nth) <= most + 0.001 <= BACKOFF_MAX_S
        assert 0.4 * most < sum(nth) / len(nth) < 0.6 * most


@pytest.mark.parametrize("error", [TimedOut("x"), AuthFailed("x"), QuotaExhausted("x")], ids=repr)
def test_after_silence_a_bad_key_or_an_empty_account_a_route_is_never_asked_again(error: BackendError) -> None:
    assert walk([route(A)], lambda *_: error, retries=5) == (["a/m"], [0], error)
    names, _, last = walk([route(A), route(B)], lambda r, _: error if r.backend is A else BadResponse("x"), retries=5)
    assert names[:2] == ["a/m", "b/m"]
    assert names.count("a/m") == 1
    assert isinstance(last, BadResponse)


def test_a_provider_that_says_when_is_asked_again_then() -> None:
    names, at, error = walk([route(A)], lambda _, n: RateLimited("x", retry_after_s=3.0) if n == 1 else None)
    assert (names, at, error) == (["a/m", "a/m"], [0, 3], None)


@pytest.mark.parametrize("wants_s", [PAUSE_MAX_S + 0.1, 120.0])
def test_one_that_wants_too_long_is_not_waited_for(wants_s: float) -> None:
    error = RateLimited("x", retry_after_s=wants_s)
    assert walk([route(A)], lambda *_: error) == (["a/m"], [0], error)
    names, at, _ = walk([route(A), route(B)], lambda r, n: error if r.backend is A else None)
    assert (names, at) == (["a/m", "b/m"], [0, 0])


def test_nobody_is_asked_after_the_deadline() -> None:
    error = RateLimited("x", retry_after_s=3.0)
    assert walk([route(A)], lambda *_: error, within_s=2.9) == (["a/m"], [0], error)

    async def slow() -> None:
        course = Course([route(A), route(B)], 2, HealthBook(), asyncio.get_running_loop().time() + 5, visit())
        chosen = await course.next()
        await asyncio.sleep(5)
        course.failed(chosen, TimedOut("x"))
        with pytest.raises(TimedOut):
            await course.next()

    run(slow())


@pytest.mark.parametrize(
    "error",
    [
        Rejected("x"),
        Rejected("x", status=422),
        ContentFiltered("x", code="content_filter"),
        InvalidRequest("x"),
    ],
    ids=repr,
)
def test_a_verdict_on_the_request_is_the_answer(error: GatewayError) -> None:
    assert walk([route(A), route(B)], lambda *_: error) == (["a/m"], [0], error)
    names, _, last = walk([route(A), route(B)], lambda _, n: UpstreamFailed("x") if n == 1 else error)
    assert (names, last) == (["a/m", "b/m"], error)


def test_a_model_that_a_provider_does_not_have_another_may_have() -> None:
    missing = Rejected("x", status=404)
    assert walk([route(A), route(B)], lambda r, _: missing if r.backend is A else None)[0] == ["a/m", "b/m"]
    assert walk([route(A)], lambda *_: missing) == (["a/m"], [0], missing), "and never asked again"


def test_what_is_too_long_goes_to_another_model_with_a_wider_window_or_an_unknown_one() -> None:
    routes = [
        route(A, "small", context_length=4000),
        route(B, "small", context_length=None),
        route(B, "tiny", context_length=2000),
        route(B, "same", context_length=4000),
        route(C, "unknown"),
        route(C, "wide", context_length=8000),
    ]
    error = ContextTooLong("x")
    names, _, last = walk(routes, lambda *_: error)
    assert names == ["a/small", "c/unknown", "c/wide"]
    assert last is error
    assert walk(routes[1:], lambda *_: error)[0] == ["b/small", "b/tiny", "b/same", "c/unknown", "c/wide"]


def test_what_is_too_long_for_a_model_is_not_sent_to_its_other_copy_again() -> None:
    routes = [route(A, "small"), route(B, "small"), route(C, "tiny", context_length=100)]
    outcome: dict[str, GatewayError] = {"a": UpstreamFailed("x"), "b": ContextTooLong("x")}
    names, _, error = walk(routes[:2], lambda r, _: outcome[r.backend.name])
    assert names == ["a/small", "b/small"]
    assert isinstance(error, ContextTooLong)


def test_the_verdict_on_the_length_stays_whatever_comes_after() -> None:
    names, _, error = walk(
        [route(A, "a"), route(B, "b")], lambda r, _: ContextTooLong("x") if r.backend is A else AuthFailed("x")
    )
    assert names == ["a/a", "b/b"]
    assert isinstance(error, ContextTooLong)


def broken_book(loop: asyncio.AbstractEventLoop, *names: str) -> HealthBook:
    book = HealthBook(Rule(failures=1))
    for seconds, name in enumerate(names):
        book.of(name).failed(loop.time() + seconds, UpstreamFailed("x"), object())
    return book


def inside(work: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]]) -> None:
    async def started() -> None:
        await work(asyncio.get_running_loop())

    run(started())


def test_the_last_route_is_never_ejected() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        book = broken_book(loop, "a/m", "b/m")
        for _ in range(100):
            trail, error = await walked([route(B), route(A)], lambda *_: UpstreamFailed("x"), book=book)
            assert [name for name, _ in trail] == ["a/m"], "the one whose time comes first, once"
            assert isinstance(error, UpstreamFailed)
        trail, error = await walked([route(A)], lambda *_: None, book=book)
        assert error is None
        assert book.of("a/m").breaker.state == "closed"

    inside(work)


def test_a_route_that_was_asked_although_it_wants_rest_is_not_asked_twice() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        book = HealthBook()
        error = RateLimited("x", retry_after_s=1.0)
        error.rest_s = 1.0
        book.of("a/m").failed(loop.time(), error, object())
        trail, _ = await walked([route(A)], lambda *_: error, retries=5, book=book)
        assert [name for name, _ in trail] == ["a/m"]

    inside(work)


def test_routes_that_are_left_alone_are_named() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        who = visit()
        course = Course([route(A), route(B), route(C)], 0, broken_book(loop, "a/m", "b/m"), loop.time() + 60, who)
        chosen = await course.next()
        assert chosen.name == "c/m"
        course.failed(chosen, UpstreamFailed("x"))
        with pytest.raises(UpstreamFailed):
            await course.next()
        assert who.trail == [
            ("a/m", "left alone for 5 s"),
            ("b/m", "left alone for 6 s"),
            ("c/m", "upstream_error"),
        ]

    inside(work)


def test_a_route_whose_breaker_opened_meanwhile_is_not_asked_again() -> None:
    async def work(loop: asyncio.AbstractEventLoop) -> None:
        trail, _ = await walked(
            [route(A)], lambda *_: UpstreamFailed("x"), retries=9, book=HealthBook(Rule(failures=3))
        )
        assert len(trail) == 3

    inside(work)


def test_the_budget_bounds_all_requests_together() -> None:
    """Each request alone would ask three times more."""

    async def work(loop: asyncio.AbstractEventLoop) -> None:
        book = HealthBook(Rule(failures=10**6, window_requests=10**6))
        asked = 0

        async def one() -> None:
            nonlocal asked
            trail, _ = await walked([route(A)], lambda *_: UpstreamFailed("x"), retries=3, book=book)
            asked += len(trail)

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(one())
                await asyncio.sleep(0.1)
        assert 1000 * 1.1 < asked <= 1000 * (1 + Budget.SHARE) + 10

    inside(work)
