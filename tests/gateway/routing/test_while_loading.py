"""What answers while a local model loads: it itself, waited for, or the next route; on a clock that tests turn."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest

from backends.base import Call
from compat.canonical.error import GatewayError, ModelLoading, Unreachable, UpstreamFailed
from compat.canonical.event import Event
from compat.canonical.request import Request
from gateway.routing.attempt import Asked
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import Play, Player, Stage, chat, said

LOAD_S = 30.0
DOWN: Play = [UpstreamFailed("It is down.")]
AWAY: Play = [Unreachable("It is away.")]


class Loading(Player):
    """Has its model in memory so long after it was first asked; who is in a hurry is told so."""

    ready_at: float | None = None

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        if self.ready_at is None:
            self.ready_at = loop.time() + LOAD_S
        if (left_s := self.ready_at - loop.time()) > 0:
            if not call.patient:
                raise ModelLoading("It loads.", retry_after_s=left_s)
            await asyncio.sleep(left_s)
        async for event in super().run(request, call):
            yield event


def hurried(stage: Stage, *, retries: int = 0, stream: bool = True) -> Asked:
    return msgspec.structs.replace(stage.asked(chat(stream), retries=retries, within_s=100.0), patient=False)


def test_the_next_route_answers_meanwhile_and_the_model_when_it_is_there() -> None:
    async def work() -> None:
        stage = Stage(Loading("local", said("own")), Player("far", said("else")))
        asked, loop = hurried(stage), asyncio.get_running_loop()
        began = loop.time()
        assert await stage.ask(asked) == "else"
        assert loop.time() == began
        assert asked.visit.trail == [("local/m", "loading"), ("far/m", "answered")]
        assert (asked.visit.attempts, asked.visit.fell_back, asked.visit.lost) == (1, True, [])
        await asyncio.sleep(LOAD_S)
        again = hurried(stage)
        assert await stage.ask(again) == "own"
        assert again.visit.trail == [("local/m", "answered")]
        stage.assert_at_rest()

    run(work())


def test_who_waits_is_not_sent_elsewhere() -> None:
    async def work() -> None:
        local = Loading("local", said("own"))
        stage, loop = Stage(local, Player("far", said("else"))), asyncio.get_running_loop()
        local.ready_at = loop.time() + 5
        asked = msgspec.structs.replace(hurried(stage), patient=True)
        began = loop.time()
        assert await stage.ask(asked) == "own"
        assert loop.time() - began == 5
        assert asked.visit.trail == [("local/m", "answered")]
        stage.assert_at_rest()

    run(work())


@pytest.mark.parametrize("stream", [True, False])
def test_the_model_is_come_back_to_when_all_others_fail(stream: bool) -> None:
    async def work() -> None:
        local = Loading("local", said("own"))
        stage = Stage(local, Player("one", AWAY), Player("two", DOWN))
        local.ready_at = asyncio.get_running_loop().time() + 5
        asked = hurried(stage, stream=stream)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert "own" in await stage.ask(asked)
        assert loop.time() - began == 5
        outcomes = [outcome for _, outcome in asked.visit.trail]
        assert outcomes == ["loading", "upstream_unreachable", "upstream_error", "answered"]
        assert asked.visit.attempts == 3
        stage.assert_at_rest()

    run(work())


def test_the_only_route_is_waited_for() -> None:
    async def work() -> None:
        local = Loading("local", said("own"))
        stage = Stage(local)
        local.ready_at = asyncio.get_running_loop().time() + 5
        asked = hurried(stage)
        assert await stage.ask(asked) == "own"
        assert asked.visit.trail == [("local/m", "answered")]

    run(work())


def test_of_two_models_that_load_the_first_is_waited_for() -> None:
    async def work() -> None:
        first, second = Loading("first", said("1")), Loading("second", said("2"))
        stage = Stage(first, second)
        first.ready_at = asyncio.get_running_loop().time() + 5
        asked = hurried(stage)
        assert await stage.ask(asked) == "1"
        assert [outcome for _, outcome in asked.visit.trail] == ["loading", "loading", "answered"]

    run(work())


def test_loading_harms_no_health_and_costs_no_retry() -> None:
    async def work() -> None:
        local, far = Loading("local", said("own")), Player("far", AWAY)
        stage = Stage(local, far)
        for _ in range(20):
            asked = hurried(stage)
            local.ready_at = asyncio.get_running_loop().time() + 1
            assert await stage.ask(asked) == "own"
            await asyncio.sleep(60)
        assert stage.health(0).breaker.opened_until is None
        stage.assert_at_rest()

    run(work())


def test_a_model_that_does_not_come_up_is_the_failure_in_the_end() -> None:
    async def work() -> None:
        loading: Play = [ModelLoading("It failed.", retry_after_s=50)]
        stage = Stage(Player("local", loading), Player("far", AWAY))
        asked = hurried(stage)
        with pytest.raises(GatewayError, match="It failed"):
            await stage.ask(asked)
        assert [outcome for _, outcome in asked.visit.trail] == ["loading", "upstream_unreachable", "model_loading"]
        stage.assert_at_rest()

    run(work())
