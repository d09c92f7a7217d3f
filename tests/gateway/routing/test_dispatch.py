"""Attempts, time shares and guards, before backends that fail in every way; on a clock that tests turn."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from unittest.mock import Mock

import msgspec
import pytest

from backends.base import Call, Timeouts
from compat.canonical.error import (
    BackendError,
    ContentFiltered,
    GatewayError,
    InvalidRequest,
    RateLimited,
    Rejected,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from compat.canonical.event import TextDelta
from compat.canonical.message import Text
from compat.canonical.request import Envelope, TextRequest
from compat.taps import AnyTap
from gateway.routing.breaker import Rule
from gateway.settings import Guard
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import (
    END,
    FOREVER,
    START,
    Cut,
    Play,
    Player,
    Relayer,
    Script,
    Stage,
    chat,
    cut,
    messages,
    said,
)

DOWN: Play = [UpstreamFailed("It is down.")]
SILENT: Play = [FOREVER]
LANES = pytest.mark.parametrize("lane", [Player, Relayer])
STREAMED = pytest.mark.parametrize("streamed", [True, False])


def counted(stage: Stage) -> list[int]:
    return [len(backend.requests) for backend in stage.backends]


@LANES
@STREAMED
def test_the_next_route_answers_for_one_that_is_down(lane: type[Player], streamed: bool) -> None:
    async def work() -> None:
        stage = Stage(lane("a", DOWN), lane("b", said("Hello", " you")))
        asked = stage.asked(chat(streamed))
        assert "Hello you" in await stage.ask(asked)
        assert asked.visit.attempts == 2
        assert [outcome for _, outcome in asked.visit.trail] == ["upstream_error", "answered"]
        stage.assert_at_rest()

    run(work())


@pytest.mark.parametrize("guard", ["off", "resume", "buffer"])
def test_a_whole_answer_that_breaks_off_unseen_is_asked_for_elsewhere(guard: Guard) -> None:
    """Nothing was sent, so nothing is lost, although the lane is translated."""

    async def work() -> None:
        stage = Stage(Player("a", cut("Hel")), Player("b", said("Hello")))
        assert await stage.ask(stage.asked(chat(False), guard=guard)) == "Hello"
        assert counted(stage) == [1, 1]
        stage.assert_at_rest()

    run(work())


def test_what_breaks_before_an_attempt_takes_no_place_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        stage = Stage(Player("a", DOWN, said("Hello")), rule=Rule(failures=1, cooldown_s=5), places={"a": (1, 10)})
        with pytest.raises(GatewayError):
            await stage.ask(stage.asked(chat()))
        await asyncio.sleep(10)  # cooled down: the next request is a probe
        with monkeypatch.context() as broken:
            broken.setattr(stage.dispatcher.quotas, "draw", Mock(side_effect=ValueError))
            stage.routes[0] = msgspec.structs.replace(stage.routes[0], price="free")
            with pytest.raises(ValueError):
                await stage.ask(stage.asked(chat()))
        stage.assert_at_rest()
        assert await stage.ask(stage.asked(chat())) == "Hello"

    run(work())


@LANES
def test_before_its_first_content_a_stream_may_be_swapped(lane: type[Player]) -> None:
    async def work() -> None:
        stage = Stage(lane("a", [START, Unreachable("x")]), lane("b", said("Hello")))
        assert await stage.ask(stage.asked(chat())) == "Hello"
        stage.assert_at_rest()

    run(work())


@LANES
def test_without_a_guard_a_stream_that_dies_ends_with_an_error(lane: type[Player]) -> None:
    async def work() -> None:
        stage = Stage(lane("a", cut("Hello", " wo")), lane("b", said("Hello")))
        with pytest.raises(Cut, match=r"^Hello wo$"):
            await stage.ask(stage.asked(chat(), retries=2))
        assert counted(stage) == [1, 0]
        stage.assert_at_rest()

    run(work())


@LANES
@pytest.mark.parametrize(
    "last", [cut("Hel", "lo"), [START, TextDelta(text="Hello")], [START, TextDelta(text="H"), FOREVER]]
)
def test_held_back_to_its_end_a_stream_may_die_unseen(lane: type[Player], last: Play) -> None:
    async def work() -> None:
        stage = Stage(lane("a", last), lane("b", said("Good", "bye")))
        assert await stage.ask(stage.asked(chat(), guard="buffer")) == "Goodbye"
        assert counted(stage) == [1, 1]
        stage.assert_at_rest()

    run(work())


@LANES
def test_held_back_in_vain_it_ends_with_the_failure(lane: type[Player]) -> None:
    async def work() -> None:
        stage = Stage(lane("a", cut("Hel")), lane("b", cut("Hello")))
        with pytest.raises(Unreachable):
            await stage.ask(stage.asked(chat(), guard="buffer"))
        stage.assert_at_rest()

    run(work())


@LANES
@pytest.mark.parametrize(
    ("asks", "budget"),
    [(chat(), 6.0), (chat(False), 6.0)],
    ids=["streamed", "whole"],
)
def test_a_silent_route_leaves_time_for_the_others(lane: type[Player], asks: Envelope, budget: float) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        stage = Stage(lane("a", SILENT), lane("b", SILENT), lane("c", [budget / 5, *said("Hello")]))
        began = loop.time()
        asked = stage.asked(asks, within_s=budget, timeouts=Timeouts(first_token_s=120, total_s=budget))
        assert "Hello" in await stage.ask(asked)
        assert loop.time() - began < budget
        assert counted(stage) == [1, 1, 1]
        stage.assert_at_rest()

    run(work())


@LANES
@STREAMED
def test_all_silent_it_ends_at_the_deadline(lane: type[Player], streamed: bool) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        stage = Stage(lane("a", SILENT), lane("b", SILENT))
        began = loop.time()
        with pytest.raises(TimedOut):
            await stage.ask(stage.asked(chat(streamed), within_s=6, retries=5))
        assert loop.time() - began == pytest.approx(6)
        assert counted(stage) == [1, 1], "nobody silent is asked again"
        stage.assert_at_rest()

    run(work())


@LANES
@STREAMED
def test_a_hurried_client_opens_no_breaker(lane: type[Player], streamed: bool) -> None:
    """Its limit ends each attempt, also those that only had a share of it."""

    async def work() -> None:
        stage = Stage(lane("a", [1.0, *said("x")]), lane("b", [1.0, *said("x")]), rule=Rule(failures=1))
        for _ in range(20):
            with pytest.raises(TimedOut):
                await stage.ask(stage.asked(chat(streamed), within_s=0.5, hurried=True))
        assert stage.health(0).breaker.state == stage.health(1).breaker.state == "closed"
        stage.assert_at_rest()

    run(work())


@LANES
def test_a_hurried_clients_patience_does_not_excuse_a_stall(lane: type[Player]) -> None:
    async def work() -> None:
        piece: Play = [TextDelta(text="x"), 2.0]
        slowly: Play = [START, *(list(piece) * 10), FOREVER]
        stage = Stage(lane("a", slowly), lane("b", said("x")), rule=Rule(failures=1))
        with pytest.raises(Cut):  # after its share of the time, long before the end of it
            await stage.ask(
                stage.asked(chat(), within_s=30, hurried=True, timeouts=Timeouts(first_token_s=20, idle_s=3))
            )
        assert stage.health().breaker.state == "open"
        stage = Stage(lane("a", SILENT), rule=Rule(failures=1))
        with pytest.raises(TimedOut):
            await stage.ask(stage.asked(chat(), within_s=30, hurried=True, timeouts=Timeouts(first_token_s=10)))
        assert stage.health().breaker.state == "open", "the model's own limit ended it"

    run(work())


@LANES
def test_a_slow_reader_is_not_a_silent_backend(lane: type[Player]) -> None:
    async def work() -> None:
        pieces: list[str] = []
        stage = Stage(lane("a", [START, TextDelta(text="a"), 1.0, TextDelta(text="b"), 1.0, *END]))
        asked = stage.asked(chat(), timeouts=Timeouts(idle_s=2))
        answer = await stage.dispatcher.answer(asked)
        events = answer.events or answer.frames
        assert events is not None
        async for piece in events:
            pieces.append(str(piece))
            await asyncio.sleep(5)
        assert answer.tally.finished
        stage.assert_at_rest()

    run(work())


# A stream that is gone on with.

TEXT = [f" w{n}" for n in range(60)]
WHOLE = "".join(TEXT)
BROKEN = cut(*TEXT[:40])


def going_on(prefill: bool, upto: int = 60, then: Play = END) -> Script:
    """Goes on from what it is given as the answer's beginning, or begins anew."""

    def play(request: TextRequest) -> Play:
        given = beginning(request) if prefill else ""
        assert WHOLE.startswith(given)
        rest = WHOLE[len(given) : len("".join(TEXT[:upto]))]
        return [START, *(TextDelta(text=rest[n : n + 5]) for n in range(0, len(rest), 5)), *then]

    return play


def beginning(request: TextRequest) -> str:
    """Of the answer, where the request gives one."""
    last = request.messages[-1]
    return "".join(part.text for part in last.parts if isinstance(part, Text)) if last.role == "assistant" else ""


GUARDED = pytest.mark.parametrize(
    ("first", "envelope"),
    [(Player, chat()), (Relayer, chat()), (Player, messages()), (Relayer, messages())],
    ids=["chat events", "chat frames", "messages events", "messages frames"],
)


@GUARDED
@pytest.mark.parametrize("prefills", [True, False, None])
def test_a_stream_cut_after_40_of_60_is_gone_on_with(
    first: type[Player], envelope: Envelope, prefills: bool | None
) -> None:
    async def work() -> None:
        second = Player("b", going_on(prefills is not False), prefills=prefills)
        stage = Stage(first("a", BROKEN), second)
        asked = stage.asked(envelope, guard="resume")
        assert await stage.ask(asked) == WHOLE
        assert counted(stage) == [1, 1]
        assert (second.requests[0].messages[-1].role == "assistant") == (prefills is not False)
        assert [outcome for _, outcome in asked.visit.trail] == ["answered", "upstream_unreachable", "went on"]
        assert (asked.visit.backend, asked.visit.attempts) == ("b", 2)
        stage.assert_at_rest()

    run(work())


class Foreigner(Relayer):
    """Its ids do not look like OpenAI's."""

    async def _frames(
        self, frames: AsyncGenerator[bytes, None], watch: AnyTap, call: Call
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(super()._frames(frames, watch, call)) as passing:
            async for frame in passing:
                yield frame.replace(b'"chatcmpl-x"', b'"gen-1"')


def test_a_stream_that_is_gone_on_with_keeps_its_id() -> None:
    async def work() -> None:
        stage = Stage(Foreigner("a", BROKEN), Player("b", going_on(True), prefills=True))
        answer = await stage.dispatcher.answer(stage.asked(chat(), guard="resume"))
        assert answer.frames is not None
        frames = b"".join([frame async for frame in answer.frames])
        ids = [json.loads(event[6:])["id"] for event in frames.split(b"\n\n") if event.startswith(b"data: {")]
        assert len(ids) > 50
        assert set(ids) == {"gen-1"}

    run(work())


@GUARDED
def test_what_the_next_route_breaks_off_as_well_the_third_goes_on_with(first: type[Player], envelope: Envelope) -> None:
    async def work() -> None:
        breaks = going_on(True, 50, [Unreachable("x")])
        stage = Stage(
            first("a", BROKEN),
            Player("b", breaks, prefills=True),
            Player("c", going_on(False)),
        )
        assert await stage.ask(stage.asked(envelope, guard="resume")) == WHOLE
        assert counted(stage) == [1, 1, 1]
        stage.assert_at_rest()

    run(work())


@GUARDED
def test_the_same_route_goes_on_where_there_is_no_other(first: type[Player], envelope: Envelope) -> None:
    async def work() -> None:
        stage = Stage(first("a", BROKEN, going_on(False)))
        assert await stage.ask(stage.asked(envelope, guard="resume", retries=1)) == WHOLE
        stage.assert_at_rest()

    run(work())


@GUARDED
@pytest.mark.parametrize("says", [True, None])
def test_a_route_that_refuses_prefills_is_asked_anew_and_that_is_remembered(
    first: type[Player], envelope: Envelope, says: bool | None
) -> None:
    async def work() -> None:
        def picky(request: TextRequest) -> Play:
            if beginning(request):
                return [Rejected("A conversation must end with a user message.")]
            return said(*TEXT)

        stage = Stage(first("a", BROKEN), Player("b", picky, prefills=says))
        for asked in (2, 3):
            assert await stage.ask(stage.asked(envelope, guard="resume")) == WHOLE
            assert counted(stage)[1] == asked
        assert stage.health(1).breaker.state == "closed"
        stage.assert_at_rest()

    run(work())


@GUARDED
def test_a_route_that_takes_a_prefill_for_a_turn_that_is_over_is_not_believed(
    first: type[Player], envelope: Envelope
) -> None:
    async def work() -> None:
        def deaf(request: TextRequest) -> Play:
            if beginning(request):
                return said("Is there", " anything else?")
            return said(*TEXT)

        stage = Stage(first("a", BROKEN), Player("b", deaf, prefills=None))
        assert await stage.ask(stage.asked(envelope, guard="resume")) == WHOLE
        assert counted(stage) == [1, 2]
        stage.assert_at_rest()

    run(work())


@GUARDED
@pytest.mark.parametrize(
    "second",
    [
        said("Something else entirely."),
        said(*TEXT[:30]),
        DOWN,
        SILENT,
        [START, *END],
        [ContentFiltered("x")],
        [RateLimited("x", retry_after_s=100)],
        cut(*TEXT[:40]),
    ],
    ids=["diverges", "shorter", "down", "silent", "empty", "filtered", "limited", "breaks off in the same place"],
)
@pytest.mark.parametrize("prefills", [False, None])
def test_where_nobody_can_go_on_the_client_is_told(
    first: type[Player], envelope: Envelope, second: Play, prefills: bool | None
) -> None:
    async def work() -> None:
        stage = Stage(first("a", BROKEN), Player("b", second, prefills=prefills))
        with pytest.raises(Cut) as broken:
            await stage.ask(stage.asked(envelope, guard="resume", within_s=30))
        assert str(broken.value) == "".join(TEXT[:40]), "to the letter, and nothing of another answer"
        assert isinstance(broken.value.__cause__, Unreachable)
        stage.assert_at_rest()

    run(work())


@GUARDED
def test_a_refusal_in_the_middle_does_not_say_things_twice(first: type[Player], envelope: Envelope) -> None:
    async def work() -> None:
        filtered = going_on(True, 50, [ContentFiltered("x")])
        stage = Stage(first("a", BROKEN), Player("b", filtered, prefills=True))
        with pytest.raises(Cut) as broken:
            await stage.ask(stage.asked(envelope, guard="resume"))
        assert str(broken.value) == "".join(TEXT[:50])
        assert counted(stage) == [1, 1]
        stage.assert_at_rest()

    run(work())


@pytest.mark.parametrize("envelope", [chat(n=2), chat(logprobs=True)])
def test_what_cannot_be_joined_is_not_tried(envelope: Envelope) -> None:
    async def work() -> None:
        stage = Stage(Player("a", BROKEN), Player("b", said(*TEXT)))
        with pytest.raises(Cut):
            await stage.ask(stage.asked(envelope, guard="resume"))
        assert counted(stage) == [1, 0]
        stage.assert_at_rest()

    run(work())


@pytest.mark.parametrize("seed", range(100))
def test_an_answer_that_breaks_off_again_and_again_comes_out_whole(seed: int) -> None:
    """Each route breaks off somewhere, some after nothing; the last one does not."""
    rnd = random.Random(seed)  # noqa: S311

    async def work() -> None:
        lane = rnd.choice((Player, Relayer))
        backends: list[Player] = [lane("first", cut(*TEXT[: rnd.randrange(1, 60)]))]
        for n in range(3):
            takes = rnd.choice((True, False, None))
            breaks = going_on(takes is not False, rnd.randrange(60), [Unreachable("x")])
            backends.append(Player(f"b{n}", breaks, prefills=takes))
        takes = rnd.choice((True, False, None))
        backends.append(Player("last", going_on(takes is not False), prefills=takes))
        stage = Stage(*backends, places={"b0": (1, 1), "last": (1, 1)})
        assert await stage.ask(stage.asked(rnd.choice((chat(), messages())), guard="resume")) == WHOLE
        stage.assert_at_rest()

    run(work())


# Trouble that lasts.


@pytest.mark.parametrize("rate", [1, 10, 100])
@pytest.mark.parametrize("routes", [1, 2])
def test_with_everything_down_trouble_is_not_multiplied(rate: int, routes: int) -> None:
    """Over minutes, upstream sees at most 1.2 times the requests that clients make."""

    async def work() -> None:
        stage = Stage(*(Relayer(f"b{n}", DOWN) for n in range(routes)))
        minute = 60 * rate if rate < 100 else 20 * rate
        steady = 0

        async def one() -> None:
            with pytest.raises(BackendError):
                await stage.ask(stage.asked(chat(), retries=2))

        async with asyncio.TaskGroup() as group:
            for n in range(2 * minute):
                if n == minute:
                    steady = sum(counted(stage))
                group.create_task(one())
                await asyncio.sleep(1 / rate)
        assert sum(counted(stage)) - steady <= 1.2 * minute
        stage.assert_at_rest()

    run(work())


def test_a_provider_that_comes_back_is_used_again() -> None:
    async def work() -> None:
        first = Player("a", DOWN)
        stage = Stage(first, Player("b", said("x")), rule=Rule(failures=2, cooldown_s=5))
        for _ in range(30):
            await stage.ask(stage.asked(chat()))
            await asyncio.sleep(0.1)
        assert len(first.requests) == 2, "left alone"
        first.plays = [said("y")]
        await asyncio.sleep(5)
        assert await stage.ask(stage.asked(chat())) == "y"
        assert stage.health().breaker.state == "closed"

    run(work())


def test_a_client_that_leaves_frees_the_probe() -> None:
    async def work() -> None:
        stage = Stage(
            Player("a", DOWN, [10.0, *said("x")]), Player("b", said("y")), rule=Rule(failures=1, cooldown_s=5)
        )
        assert await stage.ask(stage.asked(chat())) == "y"
        await asyncio.sleep(5)
        leaving = asyncio.create_task(stage.ask(stage.asked(chat())))
        await asyncio.sleep(1)
        assert stage.health().breaker.state == "half_open"
        assert await stage.ask(stage.asked(chat())) == "y", "one probe at a time"
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        stage.assert_at_rest()
        assert stage.health().breaker.state == "open"
        assert await stage.ask(stage.asked(chat())) == "x"
        assert stage.health().breaker.state == "closed"

    run(work())


def test_a_client_that_leaves_the_queue_frees_the_probe() -> None:
    async def work() -> None:
        backend = Player("a", DOWN, [10.0, *said("x")])
        stage = Stage(backend, rule=Rule(failures=1, cooldown_s=5), places={"a": (1, 10)})
        with pytest.raises(UpstreamFailed):
            await stage.ask(stage.asked(chat()))
        inside = asyncio.create_task(stage.ask(stage.asked(chat())))
        await asyncio.sleep(5)
        leaving = asyncio.create_task(stage.ask(stage.asked(chat())))
        await asyncio.sleep(1)
        assert stage.health().breaker.state == "half_open"
        leaving.cancel()
        await asyncio.sleep(0)
        assert stage.health().breaker.state == "open"
        assert await inside == "x"
        stage.assert_at_rest()

    run(work())


def test_a_full_queue_leads_to_the_next_route_and_blames_nobody() -> None:
    async def work() -> None:
        slow, other = Player("a", [1.0, *said("a")]), Player("b", said("b"))
        stage = Stage(slow, other, places={"a": (1, 1)}, rule=Rule(failures=1))
        answers = await asyncio.gather(*(stage.ask(stage.asked(chat())) for _ in range(10)))
        assert sorted(answers) == ["a"] * 2 + ["b"] * 8
        assert stage.health().breaker.state == "closed"
        assert slow.most == 1
        stage.assert_at_rest()

    run(work())


@LANES
@pytest.mark.parametrize("guard", ["off", "resume"])
def test_a_stream_keeps_its_place_to_its_end(lane: type[Player], guard: Guard) -> None:
    async def work() -> None:
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        backend = lane("a", [START, TextDelta(text="x"), 3.0, *END])
        stage = Stage(backend, places={"a": (1, 9)})
        asks = [asyncio.create_task(stage.ask(stage.asked(chat(), guard=guard))) for _ in range(3)]
        await asyncio.sleep(1)
        assert stage.health().busy == 1
        assert stage.dispatcher.gates["a"].waiting == 2
        assert await asyncio.gather(*asks) == ["x"] * 3
        assert loop.time() - began == pytest.approx(9)
        assert backend.most == 1
        stage.assert_at_rest()

    run(work())


def test_what_we_refuse_ourselves_closes_no_breaker() -> None:
    async def work() -> None:
        stage = Stage(Player("a", DOWN), rule=Rule(failures=2))
        strict = chat(unheard_of=1)

        for _ in range(3):
            with pytest.raises(UpstreamFailed):
                await stage.ask(stage.asked(chat()))
            asked = stage.asked(strict)
            stage.backends[0].plays, before = [[InvalidRequest("x")]], stage.backends[0].plays
            with pytest.raises(InvalidRequest):
                await stage.ask(asked)
            stage.backends[0].plays = before
        assert stage.health().breaker.state == "open"

    run(work())


PLAYS: list[Play] = [
    said("Hello", " you"),
    [1.0, *said("Hello", " you")],
    [START, 1.0, TextDelta(text="Hello"), 1.0, TextDelta(text=" you"), 1.0, *END],
    cut("Hello"),
    [START, TextDelta(text="Hello"), 2.0, Unreachable("x")],
    [START, TextDelta(text="Hello"), FOREVER],
    DOWN,
    [1.0, UpstreamFailed("x")],
    [RateLimited("x", retry_after_s=1)],
    SILENT,
    [ContentFiltered("x")],
    said("Good", "bye"),
]


@pytest.mark.parametrize("seed", range(300))
def test_whoever_leaves_whenever_nothing_is_left_behind(seed: int) -> None:
    """Requests of every kind at once, before backends of every kind, cancelled at random moments."""
    rnd = random.Random(seed)  # noqa: S311
    random.seed(seed)

    async def work() -> None:
        backends = [
            rnd.choice((Player, Relayer))(
                name, *rnd.choices(PLAYS, k=rnd.randrange(1, 6)), prefills=rnd.choice((True, False, None))
            )
            for name in "abc"[: rnd.randrange(1, 4)]
        ]
        places = {name: (rnd.randrange(1, 3), rnd.randrange(4)) for name in "ab" if rnd.random() < 0.7}
        stage = Stage(*backends, places=places, rule=Rule(failures=2, cooldown_s=1))
        tasks: list[asyncio.Task[str]] = []
        for _ in range(12):
            asked = stage.asked(
                rnd.choice((chat, messages))(rnd.random() < 0.7),
                guard=rnd.choice(("off", "resume", "buffer")),
                retries=rnd.randrange(3),
                within_s=rnd.choice((0.0, 2, 5, 20)),
                timeouts=Timeouts(first_token_s=3, idle_s=2),
                caller=rnd.choice("xyz"),
                strategy=rnd.choice(("order", "weighted", "latency", "least_busy")),
                hurried=rnd.random() < 0.3,
            )
            tasks.append(task := asyncio.create_task(stage.ask(asked, rnd.choice((None, 0, 1)))))
            if rnd.random() < 0.6:
                asyncio.get_running_loop().call_later(rnd.choice((0, 0.5, 1, 1, 2, 3)), task.cancel)
            for _ in range(rnd.randrange(4)):
                await asyncio.sleep(0)
            if rnd.random() < 0.2:
                rnd.choice(tasks).cancel()
            await asyncio.sleep(rnd.choice((0, 0, 0.5, 1)))
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, (str, Cut, GatewayError, asyncio.CancelledError)), repr(result)
        await asyncio.sleep(0)
        stage.assert_at_rest()

    run(work())
