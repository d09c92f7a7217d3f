"""A part of a request that is in already uses tokens, and is no further request; in one process or several."""

from collections.abc import Iterator

import pytest

from backends.fake import FakeBackend, Settings
from compat.canonical.error import LimitReached
from compat.canonical.event import Usage
from gateway.limits.limiter import Limiter
from gateway.routing.router import Plan, Route
from gateway.settings import Limit, Limits
from gateway.telemetry.prices import Prices
from tests.gateway.limits.desk import grant
from tests.gateway.routing.stage import chat, visit
from tests.valkey import valkey_server

NOBODY = Prices({}, {})


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "memory"
        return
    with valkey_server() as running:
        yield running.url


async def test_a_part_takes_tokens_only(store: str) -> None:
    limiter = Limiter(
        Limits(default=Limit(requests_per_minute=1, concurrent=1, tokens_per_minute=1_000_000), store=store)
    )
    key, route = grant("k"), Route(FakeBackend("fake", Settings()), "fake")
    plan = Plan(requested="fake", routes=(route,), reason="")
    whole = await limiter.enter(key, plan, chat(), NOBODY)
    part = await limiter.enter(key, plan, chat(), NOBODY, part=True)
    with pytest.raises(LimitReached):
        await limiter.enter(key, plan, chat(), NOBODY)

    async def standing() -> tuple[float, float, float]:
        return (await limiter.standings(limiter.accounts(key, None)))[0]

    assert (await standing())[2] == 1
    done = visit()
    done.answered, done.usage = route, Usage(input_tokens=100_000, output_tokens=500_000)
    limiter.leave(part, done, whole=True)
    requests, tokens, under_way = await standing()
    assert requests == pytest.approx(0, abs=0.5)
    assert under_way == 1
    assert tokens == pytest.approx(400_000 - whole.reserved, rel=0.1)
    limiter.leave(whole, visit(), whole=True)
    assert (await standing())[2] == 0
    await limiter.aclose()
