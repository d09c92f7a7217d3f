"""What a key may use: exact however many come at once, and honest about when to come again."""

import asyncio
import random

import pytest

from compat.canonical.error import LimitReached
from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from gateway.routing.limits import ANSWER_TOKENS, BYTES_PER_TOKEN, KNOWN_MAX, Limiter, Pass
from gateway.settings import Limit, Limits
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import chat


def limiter(
    requests_per_minute: int | None = None, tokens_per_minute: int | None = None, concurrent: int | None = None
) -> Limiter:
    limit = Limit(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent)
    return Limiter(Limits(default=limit))


def let_in(limits: Limiter, envelope: Envelope, key: str = "k") -> Pass | LimitReached:
    try:
        return limits.enter(key, envelope)
    except LimitReached as e:
        return e


def usage(tokens: int) -> Usage:
    return Usage(input_tokens=tokens // 2, output_tokens=tokens - tokens // 2)


def test_without_limits_it_is_idle() -> None:
    assert limiter().idle
    assert not limiter(concurrent=1).idle


def test_requests_a_minute_are_exact_under_concurrency() -> None:
    async def work() -> None:
        limits, envelope = limiter(requests_per_minute=50), chat()

        async def one() -> bool:
            await asyncio.sleep(0)
            return isinstance(let_in(limits, envelope), Pass)

        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 50
        await asyncio.sleep(30)
        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 25, "they come back evenly"
        await asyncio.sleep(600)
        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 50, "and are not saved up"

    run(work())


@pytest.mark.parametrize("per_minute", [1, 7, 60, 1000, 99_991])
def test_the_wait_it_names_is_enough_and_no_less_is(per_minute: int) -> None:
    async def work() -> None:
        limits, envelope, rnd = limiter(requests_per_minute=per_minute), chat(), random.Random(per_minute)  # noqa: S311
        for _ in range(per_minute):
            limits.enter("k", envelope)
        for _ in range(50):
            await asyncio.sleep(rnd.random() * 0.9 * 60 / per_minute)
            refused = let_in(limits, envelope)
            assert isinstance(refused, LimitReached)
            wait_s = refused.retry_after_s
            assert wait_s is not None
            assert 0 < wait_s <= 60 / per_minute + 1e-9
            await asyncio.sleep(wait_s * 0.99)
            assert isinstance(let_in(limits, envelope), LimitReached)
            await asyncio.sleep(wait_s * 0.01 + 1e-9)
            assert isinstance(let_in(limits, envelope), Pass)

    run(work())


def test_the_wait_for_tokens_is_enough_and_no_less_is() -> None:
    async def work() -> None:
        limits, envelope = limiter(tokens_per_minute=6000), chat(max_tokens=1000)
        while isinstance(refused := let_in(limits, envelope), Pass):
            pass
        assert refused.type == "tokens"
        wait_s = refused.retry_after_s
        assert wait_s is not None
        await asyncio.sleep(wait_s * 0.99)
        assert isinstance(let_in(limits, envelope), LimitReached)
        await asyncio.sleep(wait_s * 0.01 + 1e-9)
        assert isinstance(let_in(limits, envelope), Pass)

    run(work())


def test_requests_at_once() -> None:
    async def work() -> None:
        limits, envelope = limiter(concurrent=3), chat()
        given = [limits.enter("k", envelope) for _ in range(3)]
        assert isinstance(let_in(limits, envelope), LimitReached)
        assert isinstance(let_in(limits, envelope, "other"), Pass), "each key has its own"
        limits.leave(given.pop(), None, answered=False)
        assert isinstance(let_in(limits, envelope), Pass)
        assert isinstance(let_in(limits, envelope), LimitReached)

    run(work())


def left(limits: Limiter) -> float:
    """The tokens that a key has now."""
    tokens = limits._accounts["k"].tokens
    assert tokens is not None
    return tokens.left(asyncio.get_running_loop().time())


def test_tokens_are_reserved_and_then_settled() -> None:
    async def work() -> None:
        limits, envelope = limiter(tokens_per_minute=10_000), chat(max_completion_tokens=2000)
        asked = len(envelope.body) / BYTES_PER_TOKEN + 2000
        given = limits.enter("k", envelope)
        assert left(limits) == pytest.approx(10_000 - asked)
        limits.leave(given, usage(300), answered=True)
        assert left(limits) == pytest.approx(9700)
        limits.leave(limits.enter("k", envelope), None, answered=False)
        assert left(limits) == pytest.approx(9700), "nobody answered: nothing was used"
        limits.leave(limits.enter("k", envelope), None, answered=True)
        assert left(limits) == pytest.approx(9700 - asked), "nobody knows what was used"
        limits.leave(limits.enter("k", envelope), usage(15_000), answered=True)
        assert left(limits) == pytest.approx(-5300 - asked), "what was used above is owed"
        refused = let_in(limits, envelope)
        assert isinstance(refused, LimitReached)
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 30

    run(work())


def test_many_at_once_cannot_pass_a_limit_that_each_respects() -> None:
    async def work() -> None:
        limits, envelope = limiter(tokens_per_minute=10_000), chat(max_tokens=2000)
        given = [one for _ in range(100) if isinstance(one := let_in(limits, envelope), Pass)]
        assert len(given) == 4
        for one in given:
            limits.leave(one, usage(2000), answered=True)
        assert left(limits) == 2000

    run(work())


def test_a_request_larger_than_the_limit_needs_all_of_it() -> None:
    async def work() -> None:
        limits = limiter(tokens_per_minute=100)
        given = limits.enter("k", chat(max_tokens=5000))
        assert given.reserved == 100
        refused = let_in(limits, chat(max_tokens=5000))
        assert isinstance(refused, LimitReached)
        assert refused.retry_after_s == pytest.approx(60)

    run(work())


@pytest.mark.parametrize("unsaid", [{}, {"max_tokens": None}, {"max_completion_tokens": None}])
def test_an_answer_of_unsaid_length_is_estimated(unsaid: dict[str, None]) -> None:
    async def work() -> None:
        envelope = chat(**unsaid)
        given = limiter(tokens_per_minute=10_000).enter("k", envelope)
        assert given.reserved == len(envelope.body) / BYTES_PER_TOKEN + ANSWER_TOKENS

    run(work())


def test_of_two_fields_the_one_that_says_something_counts() -> None:
    async def work() -> None:
        envelope = chat(max_completion_tokens=None, max_tokens=5000)
        assert limiter(tokens_per_minute=10_000).enter("k", envelope).reserved > 5000

    run(work())


def test_who_is_refused_reserves_nothing() -> None:
    async def work() -> None:
        limits = limiter(requests_per_minute=2, tokens_per_minute=1000, concurrent=5)
        limits.enter("k", chat(max_tokens=800))
        for _ in range(10):
            assert isinstance(let_in(limits, chat(max_tokens=800)), LimitReached), "tokens"
        assert isinstance(let_in(limits, chat(max_tokens=10)), Pass), "a request is left"
        assert limits._accounts["k"].under_way == 2

    run(work())


@pytest.mark.parametrize("seed", range(10))
def test_over_any_time_no_more_than_the_limit_gets_through(seed: int) -> None:
    rnd = random.Random(seed)  # noqa: S311

    async def work() -> None:
        loop = asyncio.get_running_loop()
        limits, envelope, entered = limiter(requests_per_minute=30, concurrent=8), chat(), list[float]()
        under_way: list[Pass] = []
        for _ in range(3000):
            await asyncio.sleep(rnd.expovariate(2))
            if isinstance(given := let_in(limits, envelope), Pass):
                entered.append(loop.time())
                under_way.append(given)
            while under_way and rnd.random() < 0.6:
                limits.leave(under_way.pop(rnd.randrange(len(under_way))), None, answered=True)
            assert len(under_way) <= 8
        for n, begin in enumerate(entered):
            for m in range(n, min(n + 200, len(entered))):
                assert m - n + 1 <= 30 + (entered[m] - begin) / 2 + 1e-6

    run(work())


def test_new_limits_begin_anew_and_the_same_ones_do_not() -> None:
    async def work() -> None:
        limits, envelope = limiter(requests_per_minute=1), chat()
        given = limits.enter("k", envelope)
        limits.adopt(Limits(default=Limit(requests_per_minute=1)))
        assert isinstance(let_in(limits, envelope), LimitReached)
        limits.adopt(Limits(default=Limit(requests_per_minute=2)))
        assert isinstance(let_in(limits, envelope), Pass)
        limits.leave(given, None, answered=True)
        assert limits._accounts["k"].under_way == 1, "it left the account it had entered"

    run(work())


def test_keys_that_are_not_used_do_not_pile_up() -> None:
    async def work() -> None:
        limits, envelope = limiter(concurrent=1), chat()
        limits.enter("busy", envelope)
        for n in range(3 * KNOWN_MAX):
            limits.leave(limits.enter(f"k{n}", envelope), None, answered=True)
        assert len(limits._accounts) <= KNOWN_MAX
        assert isinstance(let_in(limits, envelope, "busy"), LimitReached)

    run(work())
