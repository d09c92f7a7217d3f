"""What may be used: exact however many come at once, and honest about when to come again."""

import asyncio
import random
from typing import Any

import pytest

from compat.canonical.error import LimitReached
from gateway.limits.binding import ID_MAX, bindings
from gateway.limits.counters import KNOWN_MAX, OWED_MAX, Counters, Entry, Level, Refused, duration
from gateway.settings import Limit, Limits
from tests.gateway.limits.desk import desk, grant
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import chat


def test_requests_a_minute_are_exact_under_concurrency() -> None:
    async def work() -> None:
        limits, envelope = desk(requests_per_minute=50), chat()

        async def one() -> bool:
            await asyncio.sleep(0)
            return isinstance(limits.try_in(envelope), Entry)

        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 50
        await asyncio.sleep(30)
        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 25, "they come back evenly"
        await asyncio.sleep(600)
        assert sum(await asyncio.gather(*(one() for _ in range(500)))) == 50, "and are not saved up"

    run(work())


@pytest.mark.parametrize("per_minute", [1, 7, 60, 1000, 99_991])
def test_the_wait_it_names_is_enough_and_no_less_is(per_minute: int) -> None:
    async def work() -> None:
        limits, envelope, rnd = desk(requests_per_minute=per_minute), chat(), random.Random(per_minute)  # noqa: S311
        for _ in range(per_minute):
            limits.enter(envelope)
        for _ in range(50):
            await asyncio.sleep(rnd.random() * 0.9 * 60 / per_minute)
            refused = limits.try_in(envelope)
            assert isinstance(refused, LimitReached)
            wait_s = refused.retry_after_s
            assert wait_s is not None
            assert 0 < wait_s <= 60 / per_minute + 1e-9
            await asyncio.sleep(wait_s * 0.99)
            assert isinstance(limits.try_in(envelope), LimitReached)
            await asyncio.sleep(wait_s * 0.01 + 1e-9)
            assert isinstance(limits.try_in(envelope), Entry)

    run(work())


def test_the_wait_for_tokens_is_enough_and_no_less_is() -> None:
    async def work() -> None:
        limits, envelope = desk(tokens_per_minute=6000), chat(max_tokens=1000)
        while isinstance(refused := limits.try_in(envelope), Entry):
            pass
        assert refused.type == "tokens"
        wait_s = refused.retry_after_s
        assert wait_s is not None
        await asyncio.sleep(wait_s * 0.99)
        assert isinstance(limits.try_in(envelope), LimitReached)
        await asyncio.sleep(wait_s * 0.01 + 1e-9)
        assert isinstance(limits.try_in(envelope), Entry)

    run(work())


def test_requests_at_once() -> None:
    async def work() -> None:
        limits, envelope = desk(concurrent=3), chat()
        given = [limits.enter(envelope) for _ in range(3)]
        assert isinstance(limits.try_in(envelope), LimitReached)
        assert isinstance(limits.try_in(envelope, "other"), Entry), "each key has its own"
        limits.leave(given.pop(), 0.0)
        assert isinstance(limits.try_in(envelope), Entry)
        assert isinstance(limits.try_in(envelope), LimitReached)

    run(work())


def test_tokens_are_reserved_and_then_settled() -> None:
    async def work() -> None:
        limits, envelope = desk(tokens_per_minute=10_000), chat(max_completion_tokens=2000)
        asked = len(envelope.body) / 4 + 2000
        given = limits.enter(envelope)
        assert limits.tokens_left() == pytest.approx(10_000 - asked)
        limits.leave(given, 300)
        assert limits.tokens_left() == pytest.approx(9700)
        limits.leave(limits.enter(envelope), 0.0)
        assert limits.tokens_left() == pytest.approx(9700), "nobody answered: nothing was used"
        limits.leave(limits.enter(envelope), None)
        assert limits.tokens_left() == pytest.approx(9700 - asked), "nobody knows what was used"
        limits.leave(limits.enter(envelope), 15_000)
        assert limits.tokens_left() == pytest.approx(-5300 - asked), "what was used above is owed"
        refused = limits.try_in(envelope)
        assert isinstance(refused, LimitReached)
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 30

    run(work())


def test_nonsense_about_usage_locks_nobody_out_for_long() -> None:
    async def work() -> None:
        limits, envelope = desk(tokens_per_minute=10_000), chat(max_tokens=100)
        for _ in range(2):
            entries = [limits.enter(envelope) for _ in range(3)]
            for entry in entries:
                limits.leave(entry, 1e9)
            assert limits.tokens_left() == -OWED_MAX * 10_000
            await asyncio.sleep(60 * OWED_MAX + 30)
            assert isinstance(limits.try_in(envelope), Entry)

    run(work())


def test_many_at_once_cannot_pass_a_limit_that_each_respects() -> None:
    async def work() -> None:
        limits, envelope = desk(tokens_per_minute=10_000), chat(max_tokens=2000)
        given = [one for _ in range(100) if isinstance(one := limits.try_in(envelope), Entry)]
        assert len(given) == 4
        for one in given:
            limits.leave(one, 2000)
        assert limits.tokens_left() == 2000

    run(work())


def test_a_request_larger_than_the_limit_needs_all_of_it() -> None:
    async def work() -> None:
        limits = desk(tokens_per_minute=100)
        limits.enter(chat(max_tokens=5000))
        assert limits.tokens_left() == 0
        refused = limits.try_in(chat(max_tokens=5000))
        assert isinstance(refused, LimitReached)
        assert refused.retry_after_s == pytest.approx(60)

    run(work())


def test_who_is_refused_reserves_nothing() -> None:
    async def work() -> None:
        limits = desk(requests_per_minute=2, tokens_per_minute=1000, concurrent=5)
        limits.enter(chat(max_tokens=800))
        for _ in range(10):
            assert isinstance(limits.try_in(chat(max_tokens=800)), LimitReached), "tokens"
        assert isinstance(limits.try_in(chat(max_tokens=10)), Entry), "a request is left"
        assert limits.states()[0].under_way == 2

    run(work())


@pytest.mark.parametrize("seed", range(10))
def test_over_any_time_no_more_than_the_limit_gets_through(seed: int) -> None:
    rnd = random.Random(seed)  # noqa: S311

    async def work() -> None:
        loop = asyncio.get_running_loop()
        limits, envelope, entered = desk(requests_per_minute=30, concurrent=8), chat(), list[float]()
        under_way: list[Entry] = []
        for _ in range(3000):
            await asyncio.sleep(rnd.expovariate(2))
            if isinstance(given := limits.try_in(envelope), Entry):
                entered.append(loop.time())
                under_way.append(given)
            while under_way and rnd.random() < 0.6:
                limits.leave(under_way.pop(rnd.randrange(len(under_way))), None)
            assert len(under_way) <= 8
        for n, begin in enumerate(entered):
            for m in range(n, min(n + 200, len(entered))):
                assert m - n + 1 <= 30 + (entered[m] - begin) / 2 + 1e-6

    run(work())


def test_what_took_long_is_owed_all_the_same() -> None:
    async def work() -> None:
        limits, envelope = desk(tokens_per_minute=1000), chat(max_tokens=900)
        given = limits.enter(envelope)
        await asyncio.sleep(600)
        limits.leave(given, 3000)
        assert limits.tokens_left() < -900, "the time that it took had filled it up once, not ten times"

    run(work())


def test_new_limits_go_on_from_what_was_used() -> None:
    async def work() -> None:
        limits, envelope = desk(requests_per_minute=10, tokens_per_minute=1000, concurrent=20), chat(max_tokens=50)
        given = [limits.enter(envelope) for _ in range(8)]
        used = 1000 - limits.tokens_left()

        def now(requests: int | None, tokens: int | None, concurrent: int | None) -> None:
            limit = Limit(requests_per_minute=requests, tokens_per_minute=tokens, concurrent=concurrent)
            limits.limits = Limits(default=limit)

        now(20, 2000, 20)
        assert limits.tokens_left() == pytest.approx(2000 - used)
        given += [one for _ in range(50) if isinstance(one := limits.try_in(envelope), Entry)]
        assert len(given) == 20
        now(5, 2000, 30)
        assert isinstance(refused := limits.try_in(envelope), LimitReached)
        assert refused.retry_after_s == pytest.approx(12), "a smaller limit is used up, and nothing is owed"
        now(None, 2000, 20)
        assert isinstance(refused := limits.try_in(envelope), LimitReached)
        assert "20 requests under way" in refused.message, "those of before are still under way"
        limits.leave(given[0], 0.0)
        assert isinstance(limits.try_in(envelope), Entry)

    run(work())


def test_accounts_that_are_not_used_do_not_pile_up() -> None:
    async def work() -> None:
        limits, envelope = desk(concurrent=1, requests_per_minute=10), chat()
        limits.enter(envelope, "busy")
        await asyncio.sleep(3600)
        for n in range(3 * KNOWN_MAX):
            limits.leave(limits.enter(envelope, f"k{n}"), None)
        assert len(limits.counters) <= KNOWN_MAX
        assert isinstance(limits.try_in(envelope, "busy"), LimitReached)

    run(work())


def test_a_request_is_entered_in_all_of_its_accounts_or_in_none() -> None:
    async def work() -> None:
        limits = Limits(
            default=Limit(requests_per_minute=100),
            users={"*": Limit(concurrent=50)},
            tenants={"acme": Limit(tokens_per_minute=1000)},
            models={"gpt-*": Limit(requests_per_minute=5), "up/*": Limit(requests_per_minute=50)},
        )
        counters, now = Counters(), asyncio.get_running_loop().time()
        states = counters.states(bindings(limits, grant(), "gpt-5", "up/gpt-5"), now)
        assert [state.account.id for state in states] == [
            "key:k", "user:acme/k", "tenant:acme", "model:gpt-*", "model:up/*",
        ]  # fmt: skip
        for _ in range(5):
            counters.enter(states, 10, now)
        for _ in range(10):
            with pytest.raises(Refused, match="with this model, may make 5 requests"):
                counters.enter(states, 10, now)
        key, user, tenant, _, _ = states
        assert key.requests is not None
        assert tenant.tokens is not None
        assert (key.requests.left, user.under_way, tenant.tokens.left) == (95, 5, 950)
        entry = counters.enter(counters.states(bindings(limits, grant(), "other", "up/other"), now), 10, now)
        assert (entry.requests, entry.tokens) == (Level(50, 44), Level(1000, 940)), "the tightest"
        counters.undo(entry, now)
        assert (key.requests.left, user.under_way, tenant.tokens.left) == (95, 5, 950)

    run(work())


def test_whom_a_limit_binds() -> None:
    limit, other = Limit(requests_per_minute=1), Limit(requests_per_minute=2)
    limits = Limits(default=limit, keys={"key_1": other}, users={"ann": other, "*": limit}, tenants={"*": limit})

    def found(**who: Any) -> dict[str, Limit]:
        return {account.id: account.limit for account in bindings(limits, grant(**who))}

    assert found(key="key_1", user="ann") == {"key:key_1": other, "user:acme/ann": other, "tenant:acme": limit}
    assert found(key="key_2", user="bob") == {"key:key_2": limit, "user:acme/bob": limit, "tenant:acme": limit}
    assert found(key="key_1", limit=limit)["key:key_1"] == limit, "a key's own goes before the configuration's"
    assert found(key=None, user="ann", tenant="x") == {"token:x/ann": limit, "user:x/ann": other, "tenant:x": limit}
    assert bindings(Limits(), grant()) == ()
    ids = {next(iter(found(key=name))) for name in ("a" * 300, "a" * 301, "b\x00", "b\ud800")}
    assert len(ids) == 4
    assert all(len(id_) <= ID_MAX and id_.isprintable() for id_ in ids), "fit for every store"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0ms"), (0.1195, "120ms"), (0.9999, "1s"), (1, "1s"), (1.2, "2s"), (59.5, "1m0s"), (360, "6m0s")],
)
def test_a_duration_as_openai_writes_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said
