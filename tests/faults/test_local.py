"""What befalls a real local model's process, and what its client gets."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import psutil
import pytest

from tests.faults.cases import Expected, Outcome, Said, ask, backend, question, said
from tests.faults.dialects import TEXT
from tests.faults.matrix import LOCAL_FAULTS, RETRIES
from tests.faults.provider import Faults
from tests.faults.resilience import LOCAL, Line, Name
from tests.faults.test_matrix import EARLY_S, LATE_S
from tests.http import CHAT
from tests.process import Gateway, gateway

SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
TIMEOUTS = {"first_token_s": 5.0, "idle_s": 1.0, "total_s": 40.0}
STRUCK_S = 0.3
"""Into an answer."""
AGAIN_S = 30.0
"""What a model may take to come back and answer in full."""
CASES = [(fault, streamed, backed) for fault in LOCAL_FAULTS for streamed in (True, False) for backed in (False, True)]


@pytest.fixture(scope="module")
def house(faulty: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    route = "local/smollm2-135m-instruct"
    models = {
        f"{fault} {backed}": {
            "routes": [route, f"good/ok@{fault} {streamed}"] if backed else [route],
            "retries": RETRIES,
            "timeouts": TIMEOUTS,
        }
        for fault, streamed, backed in CASES
    }
    local = {"kind": "local", "threads": 1, "slots": 2, "context_max": 4096}
    config = {"backends": {"local": local, "good": backend("openai", faulty.port)}, "models": models}
    with gateway(tmp_path_factory.mktemp("local"), config) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "streamed", "backed"),
    CASES,
    ids=[f"{f}-{'streamed' if s else 'whole'}-{'with' if b else 'without'}-fallback" for f, s, b in CASES],
)
async def test_a_worker_that_fails_ends_as_the_table_says(
    house: Gateway, lines: dict[Name, Line], fault: str, streamed: bool, backed: bool
) -> None:
    async with httpx2.AsyncClient(base_url=house.url, timeout=90) as http:
        outcome, answer = await _struck(http, house, fault, streamed=streamed, backed=backed)
    asked = int(outcome.headers["x-gateway-attempts"])
    helped = int(answer.text == TEXT)
    attempts = f"{asked - helped}+{helped}" if backed else f"{asked}"
    name = fault, streamed, LOCAL, backed
    lines[name] = Line(outcome.status, answer.code or "answer", attempts, outcome.seconds)
    row = LOCAL_FAULTS[fault]
    cell = (
        (row.streamed_backed if backed else row.streamed) if streamed else (row.whole_backed if backed else row.whole)
    )
    assert cell is not None
    expected = Expected.read(cell)
    assert (outcome.status, answer.code) == (expected.status, expected.code)
    assert answer.text or outcome.status != 200
    assert (asked - helped, helped) == (expected.primary, expected.fallback), "attempts"
    late_s = LATE_S + (AGAIN_S if expected.primary > 1 else 0)
    assert expected.seconds - EARLY_S <= outcome.seconds <= expected.seconds + late_s


async def _struck(
    http: httpx2.AsyncClient, house: Gateway, fault: str, *, streamed: bool, backed: bool
) -> tuple[Outcome, Said]:
    """Ask for a long answer and strike the worker in the middle of it; seconds count from there."""
    ready = question(CHAT, "local/smollm2-135m-instruct", streamed=False, max_tokens=1)
    assert (await http.post(CHAT, json=ready)).status_code == 200
    body = question(CHAT, f"{fault} {backed}", streamed=streamed, max_tokens=150, ignore_eos=True)
    asking = asyncio.create_task(ask(http, CHAT, body))
    await asyncio.sleep(STRUCK_S)
    assert not asking.done(), "the answer was too short to be broken"
    workers = psutil.Process(house.process.pid).children(recursive=True)
    for worker in workers:
        os.kill(worker.pid, SIGNALS[fault])
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome = await asking
    outcome.seconds = loop.time() - began
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    return outcome, said(outcome, CHAT, streamed=streamed)
