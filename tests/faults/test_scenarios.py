"""Sixteen ways in which a provider lets its clients down, before one fallback and with two retries: nobody notices.

Content that a provider refuses stays refused; that it is, once and in the provider's words, is what is right there.
The flapping provider takes six seconds here and a minute with SOAK=1.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from msgspec import Struct

from tests.faults.cases import LANES, PACE_S, Expected, Outcome, Said, ask, backend, chosen, code_for, question, said
from tests.faults.dialects import INPUT_TOKENS, TEXT, TOKENS
from tests.faults.matrix import TIMEOUTS
from tests.faults.provider import Faults
from tests.http import CHAT, metric, usage_row
from tests.process import Gateway, gateway

ENTRY = {"retries": 2, "stream_guard": "resume", "timeouts": TIMEOUTS | {"total_s": 12.0}}
FLAPPING_S = 60.0 if os.environ.get("SOAK") else 6.0
FLAPPING_PER_S = 10
UPSTREAM_PER_REQUEST = 1.6
"""What a provider that is down half of the time may cost, both routes together."""


class Scenario(Struct, frozen=True):
    primary: str
    """The fault of the first route."""
    attempts: tuple[int, int]
    """At each route, at most; what is not needed is not asked."""
    within_s: float = 5.0
    fallback: str = "ok"
    cell: str = ""
    """How it ends, where that is not the whole answer; as in the matrix."""
    whole: bool = True
    """It happens to answers that are not streamed, too."""


SCENARIOS = {
    "429 with Retry-After": Scenario("429:2", (1, 1)),
    "429 without Retry-After": Scenario("429", (1, 1)),
    "one 500": Scenario("500,ok", (2, 1)),
    "lasting 503": Scenario("503", (1, 1)),
    "reset before the head": Scenario("reset", (1, 1)),
    "silence": Scenario("silence", (1, 1), within_s=8.0),
    "slow first token": Scenario("late:30", (1, 1), within_s=8.0),
    "stream cut": Scenario("cut:40", (1, 2), whole=False),
    "stream stall": Scenario("stall:40", (1, 2), within_s=8.0, whole=False),
    "malformed chunk": Scenario("malformed:20", (1, 0), whole=False),
    "missing end": Scenario("nodone", (1, 2), whole=False),
    "context length": Scenario("context", (1, 1)),
    "content filter": Scenario("filter", (1, 0)),
    "fallback that rejects prefill": Scenario("cut:40", (1, 2), fallback="noprefill", whole=False),
    "fallback that begins anew": Scenario("cut:40", (1, 2), fallback="restart", whole=False),
    "fallback that says something else": Scenario(
        "cut:40", (5, 5), fallback="other", cell="200 upstream_bad_response 1", whole=False
    ),
    "a reset, then a fallback that is cut": Scenario("reset", (3, 3), fallback="cut:40,ok", whole=False),
    "stream reset": Scenario("rst:40", (1, 2), whole=False),
    "error inside the stream": Scenario("error:40", (1, 2), whole=False),
    "stream torn apart, fallback that rejects prefill": Scenario("tear:3", (1, 2), fallback="noprefill", whole=False),
}
"""Those of the sixteen that are one request each, and some of their kin."""
ONLY_OPENAI = ("context length", "missing end")
"""Anthropic says in words only that a prompt is too long, and its last event is no formality."""
Row = tuple[str, str, bool]
ROWS: list[Row] = [
    (name, dialect, streamed)
    for name, scenario in SCENARIOS.items()
    for dialect in LANES
    for streamed in ((True, False) if scenario.whole else (True,))
    if name not in ONLY_OPENAI or dialect == "OpenAI"
]


def name_of(name: str, dialect: str, streamed: bool) -> str:
    return f"{name}, {dialect}, {'streamed' if streamed else 'whole'}"


def config(port: int) -> dict[str, Any]:
    kinds = ("openai", "anthropic")
    models: dict[str, Any] = {}
    for name, dialect, streamed in ROWS:
        scenario, lane, model = SCENARIOS[name], LANES[dialect], name_of(name, dialect, streamed)
        routes = [f"{lane.kind}/{scenario.primary}@{model}", f"{lane.fallback}/{scenario.fallback}@{model}, then"]
        models[model] = {"routes": routes, **ENTRY}
    for fault in ("503", "cut:40", "reset"):
        spec = f"beat:1.2:1.2:{fault}@flapping {fault}"
        models[f"flapping {fault}"] = {"routes": [f"openai/{spec}", f"good-openai/ok@flapping {fault}"], **ENTRY}
    models["accounts"] = {"routes": ["openai/500@accounts", "good-openai/ok@accounts"], **ENTRY}
    models["accounts, cut"] = {"routes": ["openai/cut:40@accounts, cut", "good-openai/ok@accounts, cut"], **ENTRY}
    backends = {kind: backend(kind, port) for kind in kinds} | {f"good-{kind}": backend(kind, port) for kind in kinds}
    return {"backends": backends, "models": models}


@pytest.fixture(scope="module")
def house(faulty: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("scenarios"), config(faulty.port)) as running:
        yield running


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, house: Gateway) -> dict[Row, Outcome]:
    """All scenarios that were chosen, side by side."""
    return asyncio.run(_ask_all(house.url, chosen(request, "row")))


async def _ask_all(url: str, rows: list[Row]) -> dict[Row, Outcome]:
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        asked = []
        for row in rows:
            _, dialect, streamed = row
            path = LANES[dialect].path
            asked.append(asyncio.create_task(ask(http, path, question(path, name_of(*row), streamed=streamed))))
            await asyncio.sleep(PACE_S)
        return dict(zip(rows, await asyncio.gather(*asked), strict=True))


async def _ask(house: Gateway, path: str, model: str, **fields: Any) -> tuple[Outcome, Said]:
    body = question(path, model, **fields)
    async with httpx2.AsyncClient(base_url=house.url, timeout=60) as http:
        outcome = await ask(http, path, body)
    return outcome, said(outcome, path, streamed=body["stream"])


@pytest.mark.parametrize("row", ROWS, ids=[name_of(*row).replace(" ", "-") for row in ROWS])
def test_the_client_gets_the_whole_answer(outcomes: dict[Row, Outcome], faulty: Faults, row: Row) -> None:
    name, dialect, streamed = row
    scenario, path, model = SCENARIOS[name], LANES[dialect].path, name_of(*row)
    outcome = outcomes[row]
    answer = said(outcome, path, streamed=streamed)
    if name == "content filter":
        assert outcome.status == 400
    elif scenario.cell:
        expected = Expected.read(scenario.cell)
        assert (outcome.status, answer.code) == (expected.status, code_for(expected, path))
        assert TEXT.startswith(answer.text), "another answer was joined to the one begun"
    else:
        assert (outcome.status, answer.code, answer.text) == (200, None, TEXT)
    asked = len(faulty.seen(f"{scenario.primary}@{model}")), len(faulty.seen(f"{scenario.fallback}@{model}, then"))
    assert 1 <= asked[0] <= scenario.attempts[0], asked
    assert asked[1] <= scenario.attempts[1], asked
    assert outcome.seconds <= scenario.within_s


@pytest.mark.timeout(FLAPPING_S + 90)
@pytest.mark.parametrize("fault", ["503", "cut:40", "reset"])
async def test_a_primary_that_flaps_is_not_noticed(house: Gateway, faulty: Faults, fault: str) -> None:
    model = f"flapping {fault}"
    body = question(CHAT, model, streamed=True)
    outcomes = []
    async with httpx2.AsyncClient(base_url=house.url, timeout=60) as http:
        for _ in range(int(FLAPPING_S / 3 * FLAPPING_PER_S)):
            outcomes.append(asyncio.create_task(ask(http, CHAT, body)))
            await asyncio.sleep(1 / FLAPPING_PER_S)
        answers = [said(await outcome, CHAT, streamed=True) for outcome in outcomes]
    assert [answer.text for answer in answers if answer.text != TEXT or answer.code] == []
    primary = len(faulty.seen(f"beat:1.2:1.2:{fault}@{model}"))
    fallback = len(faulty.seen(f"ok@{model}"))
    assert primary > 0
    assert primary + fallback <= UPSTREAM_PER_REQUEST * len(answers)


async def test_a_failover_is_accounted_for_once(house: Gateway, faulty: Faults) -> None:
    before = {b: metric(house.url, "pluggably_attempts_total", backend=b) for b in ("openai", "good-openai")}
    outcome, answer = await _ask(house, CHAT, "accounts", streamed=False)
    assert answer.text == TEXT
    usage = json.loads(outcome.body)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (INPUT_TOKENS, len(TOKENS))
    assert outcome.headers["x-gateway-backend"] == "good-openai"
    assert outcome.headers["x-gateway-model"] == "good-openai/ok@accounts"
    assert outcome.headers["x-gateway-attempts"] == "2"
    assert len(faulty.seen("500@accounts")) == len(faulty.seen("ok@accounts")) == 1
    row = await asyncio.to_thread(usage_row, house.folder, outcome.headers["x-request-id"])
    shown = {name: row[name] for name in ("backend", "model", "status", "attempts", "input_tokens", "output_tokens")}
    assert shown == {
        "backend": "good-openai", "model": "ok@accounts", "status": 200, "attempts": 2,
        "input_tokens": INPUT_TOKENS, "output_tokens": len(TOKENS),
    }  # fmt: skip
    after = {b: metric(house.url, "pluggably_attempts_total", backend=b) for b in before}
    assert {b: after[b] - before[b] for b in before} == {"openai": 1, "good-openai": 1}


async def test_a_resumed_answer_is_accounted_for_once(house: Gateway) -> None:
    outcome, answer = await _ask(house, CHAT, "accounts, cut", streamed=True)
    assert answer.text == TEXT
    row = await asyncio.to_thread(usage_row, house.folder, outcome.headers["x-request-id"])
    assert (row["status"], row["code"], row["attempts"], row["backend"]) == (200, None, 2, "good-openai")
    assert row["output_tokens"] is not None
