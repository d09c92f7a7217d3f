"""What is left of a request when it is over: one log line, one usage row, metrics; no secret, no prompt."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from compat.canonical.principal import Principal
from gateway.db.engine import connect, upgrade
from gateway.db.usage import UsageRows, Which
from gateway.telemetry.charge import charged
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.usage import Ledger
from gateway.visit import Visit
from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, READER_KEY, UPSTREAM_KEY
from tests.http import CHAT, chat, metric, usage_row
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import BODY_CANARY

PROMPT_CANARY = "prompt-canary-8841"


def test_each_request_is_one_line_that_says_who_what_and_how_much(client: httpx2.Client, house: Gateway) -> None:
    for stream in (False, True):
        id_ = client.post(CHAT, json=chat("up/answer", stream=stream)).headers["x-request-id"]
        line = house.wait_for("request_finished", request_id=id_)
        expected = {
            "principal": "app", "method": "POST", "route": CHAT, "status": 200, "requested_model": "up/answer",
            "backend": "up", "model": "answer", "attempts": 1, "streamed": stream, "input_tokens": 9,
            "output_tokens": 12, "level": "info",
        }  # fmt: skip
        assert {name: line.get(name) for name in expected} == expected
        assert 0 < line["first_token_s"] <= line["total_s"]
        assert len([x for x in house.log if x.get("request_id") == id_ and x["event"] == "request_finished"]) == 1


def test_a_refused_request_is_a_line_too(client: httpx2.Client, house: Gateway) -> None:
    for answer, code in (
        (client.get("/nothing"), None),
        (client.post(CHAT, content=b"{"), None),
        (client.post(CHAT, json=chat("nothing")), "model_not_found"),
        (client.post(CHAT, json=chat("up/answer"), headers={"x-api-key": "another"}), None),
    ):
        line = house.wait_for("request_finished", request_id=answer.headers["x-request-id"])
        assert line["status"] == answer.status_code
        assert code is None or line["code"] == code


def test_an_error_inside_a_stream_is_in_the_line(client: httpx2.Client, house: Gateway) -> None:
    id_ = client.post(CHAT, json=chat("once-tear:2", stream=True)).headers["x-request-id"]
    assert house.wait_for("request_finished", request_id=id_)["code"] == "upstream_unreachable"


def test_usage_is_kept_for_whole_streamed_and_translated_answers(client: httpx2.Client, house: Gateway) -> None:
    for path, body, tokens in (
        (CHAT, chat("up/answer"), (9, 12, 4, 0)),
        (CHAT, chat("up/answer", stream=True), (9, 12, 4, 0)),
        (CHAT, chat("up/usage_unasked", stream=True), (9, 12, 4, 0)),
        (CHAT, chat("fake/fake", stream=True), (1, 5, None, None)),
        ("/v1/generate", {"model": "up/answer", "input": {"prompt": "x"}}, (9, 12, 4, 0)),
        ("/v1/generate", {"model": "fake/fake", "input": {"prompt": "x"}, "stream": True}, (1, 5, None, None)),
    ):
        row = usage_row(house.folder, client.post(path, json=body).headers["x-request-id"])
        assert (row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"]) == tokens
        assert (row["tenant_id"], row["owner_id"], row["route"], row["status"]) == ("acme", "app", path, 200)
        assert row["requested_model"] == body["model"]
        assert row["streamed"] == int(bool(body.get("stream")))
        assert row["total_s"] > 0


def test_a_failed_request_has_a_usage_row(client: httpx2.Client, house: Gateway) -> None:
    row = usage_row(house.folder, client.post(CHAT, json=chat("once-status:500")).headers["x-request-id"])
    assert (row["status"], row["code"], row["attempts"]) == (502, "upstream_error", 1)
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


def test_a_stream_whose_reader_stops_at_done_is_settled(client: httpx2.Client, house: Gateway) -> None:
    with client.stream("POST", CHAT, json=chat("up/answer", stream=True)) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                break
    row = usage_row(house.folder, answer.headers["x-request-id"])
    assert row["output_tokens"] == 12


def test_odd_figures_of_a_provider_do_not_stop_the_books(
    client: httpx2.Client, house: Gateway, upstream: Provider
) -> None:
    for usage in (b"1e400", b'{"prompt_tokens":1e300}', b'{"prompt_tokens":123456789012345678901234567890}', b'"x"'):

        async def odd(x: Exchange, usage: bytes = usage) -> None:
            x.answer(wire.completion().replace(wire.dump(wire.USAGE), usage))

        upstream.scripts["odd"] = odd
        answer = client.post(CHAT, json=chat("up/odd"))
        assert answer.status_code in (200, 502)
        usage_row(house.folder, answer.headers["x-request-id"])


def test_counts_are_right(client: httpx2.Client, house: Gateway) -> None:
    def figures() -> list[float]:
        url = house.url
        return [
            metric(url, "pluggably_requests_total", route=CHAT, backend="up", status="200"),
            metric(url, "pluggably_errors_total", route=CHAT, backend="up", code="upstream_error"),
            metric(url, "pluggably_tokens_total", backend="up", direction="input"),
            metric(url, "pluggably_tokens_total", backend="up", direction="output"),
            metric(url, "pluggably_attempts_total", backend="up", outcome="ok"),
            metric(url, "pluggably_request_seconds_count", route=CHAT),
            metric(url, "pluggably_first_token_seconds_count", backend="up"),
            metric(url, "pluggably_overhead_seconds_count", route=CHAT),
        ]

    before = figures()
    for stream in (False, True):
        client.post(CHAT, json=chat("up/answer", stream=stream))
    client.post(CHAT, json=chat("once-status:500"))
    after = figures()
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 18, 24, 2, 3, 2, 3]
    assert metric(house.url, "pluggably_in_flight") == 1, "the question itself"


def test_labels_are_never_a_clients_words(client: httpx2.Client, house: Gateway) -> None:
    for name in ("made-up-model-canary", "up/status:404", "nowhere/made-up-model-canary", "up/made-up-model-canary"):
        client.post(CHAT, json=chat(name))
    client.get("/made-up-path-canary")
    client.get("/v1/models/made-up-id-canary")
    client.request("MADEUP", "/health")
    text = client.get("/metrics").text
    assert "made-up" not in text
    assert "MADEUP" not in text


def test_labels_are_never_a_providers_words(client: httpx2.Client, upstream: Provider) -> None:
    async def wordy(x: Exchange) -> None:
        x.answer(wire.error("no", code="made-up-code-canary"), "400 Bad Request")

    upstream.scripts["wordy"] = wordy
    answer = client.post(CHAT, json=chat("up/wordy"))
    assert answer.json()["error"]["code"] == "made-up-code-canary"
    assert "made-up-code-canary" not in client.get("/metrics").text


def test_no_key_prompt_or_answer_is_ever_logged(
    client: httpx2.Client, anonymous: httpx2.Client, house: Gateway
) -> None:
    bodies = [
        chat(model, PROMPT_CANARY, stream=stream)
        for stream in (False, True)
        for model in (
            "up/answer", "up/tools", "once-status:400", "once-status:401", "once-status:500", "quota", "once-html",
            "once-error_in_200", "once-tear:2", "once-reset", "nothing", "fake/fake", "dead", "once-malformed",
        )
    ]  # fmt: skip
    for body in bodies:
        client.post(CHAT, json=body)
    client.post("/v1/generate", json={"model": "once-tear:1", "input": {"prompt": PROMPT_CANARY}})
    client.post(CHAT, content=b'{"messages": "' + PROMPT_CANARY.encode())
    client.post(CHAT, json=chat("up/answer") | {"messages": [{"role": PROMPT_CANARY, "content": 1}]})
    for headers in ({"x-api-key": "wrong-key-canary-42"}, {"authorization": "Basic wrong-key-canary-42"}):
        anonymous.post(CHAT, json=bodies[0], headers=headers)
    anonymous.get(f"/v1/models?api_key={APP_KEY}")
    last = client.get("/v1/models")
    house.wait_for("request_finished", request_id=last.headers["x-request-id"])
    text = "".join(house.lines)
    for canary in (
        APP_KEY, READER_KEY, ADMIN_KEY, UPSTREAM_KEY, PROMPT_CANARY, BODY_CANARY, "wrong-key-canary", "word0",
        "provider-cookie-canary", "provider-echo-canary", "Traceback",
    ):  # fmt: skip
        assert canary not in text
    for line in house.lines:
        json.loads(line)


def test_usage_rows_hold_no_prompt_and_no_key(client: httpx2.Client, house: Gateway) -> None:
    usage_row(house.folder, client.post(CHAT, json=chat("up/answer", PROMPT_CANARY)).headers["x-request-id"])
    with closing(sqlite3.connect(house.folder / "data" / "gateway.db")) as database:
        dumped = "\n".join(database.iterdump())
    for canary in (APP_KEY, UPSTREAM_KEY, PROMPT_CANARY):
        assert canary not in dumped


def test_old_usage_is_forgotten_where_that_is_wanted(tmp_path: Path) -> None:
    tree = {"backends": {"fake": {"kind": "fake"}}}
    with gateway(tmp_path, tree) as running:
        ids = [httpx2.post(f"{running.url}{CHAT}", json=chat("fake/fake")).headers["x-request-id"] for _ in range(2)]
        usage_row(tmp_path, ids[0])
        usage_row(tmp_path, ids[1])
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.db")) as database:
        database.execute("UPDATE usage SET created_at = created_at - 3 * 86400 WHERE request_id = ?", (ids[0],))
        database.commit()
    with gateway(tmp_path, tree | {"telemetry": {"usage_days": 2}}) as running:
        assert running.wait_for("usage_forgotten")["rows"] == 1
        listed = httpx2.get(f"{running.url}/v1/usage", params={"from": "2026-01-01"}).json()["data"]
    assert [row["request_id"] for row in listed] == [ids[1]]


class Books:
    """A database that fails as often as it is told to, and takes its time."""

    def __init__(self, failures: int = 0, pause_s: float = 0.0, refused: Collection[str] = ()) -> None:
        self.kept: list[str] = []
        self.fail_after: int | None = None
        """Once, after so many calls."""
        self._refused = refused
        self._failures = failures
        self._pause_s = pause_s

    async def add(self, rows: list[dict[str, Any]]) -> None:
        await asyncio.sleep(self._pause_s)
        if self._failures:
            self._failures -= 1
            raise OSError("disk full")
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after == 0:
                self.fail_after = None
                raise OSError("gone")
        if any(row["request_id"] in self._refused for row in rows):
            raise ValueError("too long")
        self.kept += [row["request_id"] for row in rows]


def a_visit(n: int) -> Visit:
    return Visit(
        request_id=f"req_{n}",
        method="POST",
        path=CHAT,
        began=0.0,
        requested="m",
        status=200,
        principal=Principal(id="p"),
    )


def test_what_a_user_pays_the_provider_costs_the_house_nothing() -> None:
    visit = a_visit(0)
    visit.handed, visit.backend, visit.model, visit.own_key = 1.0, "openai", "gpt-5", True
    assert charged(visit) == (0, "own_key", None)
    visit.own_key = False
    assert charged(visit) == (None, None, None)


async def test_rows_outlast_a_database_that_fails() -> None:
    ledger, books = Ledger(Metrics()), Books(failures=2)
    writing = asyncio.create_task(ledger.write_to(books))
    for n in range(700):
        ledger.settle(a_visit(n))
    await ledger.caught_up(10)
    assert books.kept == [f"req_{n}" for n in range(700)]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert len(books.kept) == 700


async def test_a_row_that_cannot_be_written_is_dropped_and_holds_up_no_other() -> None:
    ledger, books = Ledger(Metrics()), Books(failures=1, refused={"req_3", "req_444", "req_699"})
    writing = asyncio.create_task(ledger.write_to(books))
    for n in range(700):
        ledger.settle(a_visit(n))
    await ledger.caught_up(10)
    assert books.kept == [f"req_{n}" for n in range(700) if n not in (3, 444, 699)]
    assert (ledger.dropped, ledger.queued) == (3, 0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_database_that_goes_away_while_a_bad_row_is_looked_for_loses_no_other() -> None:
    ledger, books = Ledger(Metrics()), Books(refused={"req_3"})
    writing = asyncio.create_task(ledger.write_to(books))
    for n in range(8):
        ledger.settle(a_visit(n))
    books.fail_after = 3
    await ledger.caught_up(10)
    assert set(books.kept) == {f"req_{n}" for n in range(8) if n != 3}
    assert (ledger.dropped, ledger.queued) == (1, 0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_texts_are_cut_to_what_their_columns_hold(tmp_path: Path) -> None:
    ledger, engine = Ledger(Metrics()), connect(f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    await upgrade(engine)
    visit = a_visit(0)
    visit.principal, visit.code, visit.model = Principal(id="p" * 80, tenant="t\0"), "c" * 80, "m" * 400
    visit.request_id, visit.backend = "r" * 200, "b" * 80
    writing = asyncio.create_task(ledger.write_to(rows := UsageRows(engine)))
    ledger.settle(visit)
    await ledger.caught_up(10)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    [kept] = await rows.page(Which(until=time.time() + 9), 9)
    await engine.dispose()
    assert (kept["owner_id"], kept["tenant_id"], kept["code"]) == ("p" * 64, "t", "c" * 64)
    assert (kept["request_id"], kept["backend"], kept["model"]) == ("r" * 128, "b" * 64, "m" * 300)


async def test_rows_are_written_when_the_gateway_stops_even_while_others_are_being_written() -> None:
    ledger, books = Ledger(Metrics()), Books(failures=1, pause_s=0.1)
    writing = asyncio.create_task(ledger.write_to(books))
    for n in range(1_200):
        ledger.settle(a_visit(n))
    ledger.account()
    await asyncio.sleep(0.05)  # the first batch is on its way
    ledger.settle(a_visit(1_200))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert books.kept == [f"req_{n}" for n in range(1_201)]


async def test_a_database_that_is_away_does_not_hold_up_whoever_asks() -> None:
    ledger, books = Ledger(Metrics()), Books(failures=1_000)
    writing = asyncio.create_task(ledger.write_to(books))
    ledger.settle(a_visit(0))
    await asyncio.wait_for(ledger.caught_up(0.1), 5)
    assert ledger.queued == 1
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
