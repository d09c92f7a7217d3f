"""Scenes of leaving: clients that go in the middle, and a gateway that is told to."""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter

from msgspec import Struct

from tests.http import CHAT
from tests.load.client import GENERATE, MESSAGES, Answer, Connection, connect, request
from tests.load.plan import Size
from tests.load.result import Figure, Progress, Result, rank, words
from tests.load.stage import Stage, stage

AT_ONCE = 50
LEFT_S = 1.0
PHASES = (
    # What is asked, streamed or not, and how many events the client waits for before it leaves.
    ("load-silent", True, 0),
    ("load-silent", False, 0),
    ("load-stall:0", True, 0),
    ("load-stall:2", True, 2),
    ("load-paced:2000:0.01", True, 1),
    ("load-paced:2000:0.01", True, 20),
    ("load-paced:2000:0.01", False, 0),
    ("load-paced:2000:0.001", True, 0),
    ("load-flood:2000:20000:0.005", True, 1),
    ("torn-faulty:1:40:0.1", True, 0),
    ("torn-faulty:1:40:0.1", False, 0),
)
"""Before the head, before the first token, in a pause, mid-stream, unstreamed, between two attempts."""


async def departures(stage: Stage, say: Progress, size: Size) -> Result:
    """Clients that leave at any moment: the provider is hung up on, and nothing stays."""
    start, run = await stage.warm(), time.monotonic_ns()
    gates, left, phases = asyncio.Semaphore(AT_ONCE), dict[str, float](), dict[str, str]()

    async def one(n: int) -> None:
        async with gates:
            marker = f"marked-{run}-{n}"
            phases[marker] = await _leave(stage.port, marker, random.Random(n))  # noqa: S311
            left[marker] = time.monotonic()

    going = [asyncio.ensure_future(one(n)) for n in range(size.departures)]
    while not all(task.done() for task in going):
        say(f"{len(left)} of {size.departures} left")
        await asyncio.wait(going, timeout=1.0)
    await asyncio.gather(*going)
    await asyncio.sleep(LEFT_S + 0.5)
    books = await stage.books()
    closed = {marker: books.left[marker] - at for marker, at in left.items() if marker in books.left}
    late = Counter(phases[marker] for marker, took in closed.items() if took > LEFT_S)
    return Result(
        f"{size.departures} departures",
        [
            Figure("of them seen by the provider", len(set(books.seen) & set(left))),
            Figure("hung up on after, p99", rank([*closed.values()], 0.99), "s", note=f"{len(closed)} under way"),
            Figure("hung up on later than 1 s", sum(late.values()), most=0, note=words(late)),
            *await stage.remains(start),
        ],
    )


async def _leave(port: int, marker: str, rng: random.Random) -> str:
    """Ask, and leave somewhere; returns what was asked."""
    model, stream, events = rng.choice(PHASES)
    path = rng.choice((CHAT, CHAT, CHAT, MESSAGES, GENERATE))
    connection = await connect(port)
    over = connection.send(request(model, path, stream=stream, text=marker))
    try:
        deadline = time.monotonic() + 5.0
        while connection.answer.events < events and not over.done() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        # Somewhere inside a phase, the very first moments included.
        await asyncio.sleep(rng.choice((0.0, 0.05, 0.5, 0.5)) * rng.random())
    finally:
        connection.leave(reset=rng.random() < 0.5)
    return f"{model} on {path}, {'streamed' if stream else 'whole'}"


class _Stop(Struct):
    """One SIGTERM under load."""

    good: int = 0
    told: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    """Of those that the gateway had accepted: it handed them on, or had begun to answer."""
    unaccepted: int = 0
    took_s: float = 0.0
    status: int = 0


async def stopping(here: Stage, say: Progress, size: Size) -> Result:
    """SIGTERM again and again under load: whatever was accepted is answered in full."""
    stops: list[_Stop] = []
    for n in range(size.stops):
        stops.append(await _stopped(here, size, n))
        say(f"{n + 1} of {size.stops} stops, {sum(stop.good for stop in stops):,} answers")
    told = sum((stop.told for stop in stops), Counter[str]())
    lost = sum((stop.lost for stop in stops), Counter[str]())
    strange = {code: count for code, count in told.items() if code != "server_shutting_down"}
    return Result(
        f"SIGTERM × {size.stops}",
        [
            Figure("requests answered well", sum(stop.good for stop in stops), least=size.stops),
            Figure("turned away in words", told["server_shutting_down"]),
            Figure("turned away before they were accepted", sum(stop.unaccepted for stop in stops)),
            Figure("accepted and not answered", sum(lost.values()), most=0, note=words(lost)),
            Figure("other errors", sum(strange.values()), most=0, note=words(strange)),
            Figure("exit statuses other than 0", sum(stop.status != 0 for stop in stops), most=0),
            Figure("SIGTERM to exit, longest", max(stop.took_s for stop in stops), "s", most=5.0 * size.patience),
        ],
    )


async def _stopped(here: Stage, size: Size, n: int) -> _Stop:
    run = time.monotonic_ns()
    answers: dict[str, Answer] = {}
    rng = random.Random(n)  # noqa: S311
    with stage(here.gateway.folder / f"stop-{n}", here.upstream_port, size) as own:
        plays = [("load-answer:0.05", False, True)] * 16 + [("load-answer:0.02", False, False)] * 8
        plays += [("load-paced:20:0.05", True, True)] * 8
        going = [
            asyncio.ensure_future(_ask_until_refused(own.port, f"marked-{run}-{n}", *play, answers))
            for n, play in enumerate(plays)
        ]
        await asyncio.sleep(0.5 + rng.random() / 2)
        stop, begun = _Stop(told=Counter(), lost=Counter()), time.monotonic()
        stop.status = await asyncio.to_thread(own.gateway.stop, signal.SIGTERM, 40.0)
        stop.took_s = time.monotonic() - begun
        await asyncio.gather(*going)
        seen = set((await own.books()).seen)
    for marker, answer in answers.items():
        if answer.good:
            stop.good += 1
        elif answer.told:
            stop.told[answer.code] += 1
        elif answer.bytes or marker in seen:
            stop.lost[answer.broken or f"status {answer.status}"] += 1
        else:
            stop.unaccepted += 1
    return stop


async def _ask_until_refused(
    port: int, name: str, model: str, stream: bool, keeps: bool, answers: dict[str, Answer]
) -> None:
    connection: Connection | None = None
    n = 0
    with contextlib.suppress(OSError):
        while True:
            if connection is None or not connection.open:
                connection = await connect(port)
            marker = f"{name}-{n}"
            answers[marker] = answer = await connection.ask(request(model, stream=stream, text=marker), 30.0)
            n += 1
            if answer.code:
                await asyncio.sleep(0.01)
            if not keeps or answer.code:
                connection.leave()
                connection = None
    if connection is not None:
        connection.leave()
