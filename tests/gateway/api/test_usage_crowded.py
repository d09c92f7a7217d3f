"""Reports of usage over many rows, wanted by many at once: they wait for each other, and nobody else for them."""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, speaking
from tests.http import CHAT, chat, error_of
from tests.process import Gateway, gateway

ROWS = 200_000
HEAVY = {"group_by": "hour,model,key,status"}
_FILL = """
INSERT INTO usage (id, tenant_id, owner_id, key_id, request_id, created_at, route, requested_model, model, status,
                   attempts, streamed, cost_nanousd, queue_s, load_s, total_s)
WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?)
SELECT 'use_' || n, 'acme', 'app', 'key' || (n % 7), 'req_' || n, ? - n * 12, '/v1/chat/completions', 'm',
       'm' || (n % 50), 200, 1, 0, 1, 0, 0, 0.5 FROM counted
"""


@contextmanager
def crowded(folder: Path, wait_s: float, report_s: float) -> Iterator[Gateway]:
    prelude = f"from gateway import archive; archive.REPORT_S = {report_s}\n"
    prelude += f"from gateway.api import usage; usage.WAIT_S = {wait_s}"
    with gateway(folder, {"auth": AUTH, "backends": {"fake": {"kind": "fake"}}}, prelude=prelude) as running:
        with closing(sqlite3.connect(folder / "data" / "gateway.db", timeout=10)) as database:
            database.execute(_FILL, (ROWS, time.time()))
            database.commit()
        yield running


@pytest.fixture
def app() -> dict[str, str]:
    return {"authorization": f"Bearer {APP_KEY}"}


def test_keys_and_readiness_do_not_wait_behind_reports(tmp_path: Path, app: dict[str, str]) -> None:
    with (
        crowded(tmp_path, 1.0, 30.0) as running,
        speaking(running, app) as http,
        speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as admin,
        ThreadPoolExecutor(40) as pool,
    ):
        keys = [admin.post("/v1/keys", json={"name": f"k{n}"}).json()["key"] for n in range(3)]
        asked = [pool.submit(http.get, "/v1/usage", params=HEAVY) for _ in range(40)]
        time.sleep(0.5)
        for key in keys:  # none of which has been seen before
            assert http.get("/ready").status_code == 200
            assert (
                http.post(CHAT, json=chat("fake/fake"), headers={"authorization": f"Bearer {key}"}).status_code == 200
            )
        assert not all(one.done() for one in asked)
        answers = [one.result() for one in asked]
        assert {answer.status_code for answer in answers} == {200, 503}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert error_of(refused)["code"] == "reports_busy"
        assert refused.headers["retry-after"] == "1"
        as_csv = http.get("/v1/usage", params=HEAVY | {"format": "csv", "limit": 5})
        assert (as_csv.status_code, as_csv.text.count("\n")) == (200, 6)


def test_who_leaves_gives_their_turn_to_the_next(tmp_path: Path, app: dict[str, str]) -> None:
    with crowded(tmp_path, 60.0, 60.0) as running:
        for query in (HEAVY, HEAVY | {"format": "csv"}):
            seen = len(running.log)
            with ThreadPoolExecutor(20) as pool, speaking(running, app) as http:
                asked = [pool.submit(http.get, "/v1/usage", params=query, timeout=0.2) for _ in range(20)]
                assert all(isinstance(one.exception(), httpx2.TimeoutException) for one in asked)
            running.wait_for("request_finished", since=seen, status=499)
            with speaking(running, app) as http:
                assert http.get("/v1/usage", params={"limit": 1}).status_code == 200
            assert not [line for line in running.log[seen:] if line["event"] == "request_failed"]


def test_what_takes_too_long_says_how_to_ask_for_less(tmp_path: Path, app: dict[str, str]) -> None:
    with crowded(tmp_path, 5.0, 0.02) as running, speaking(running, app) as http:
        for query in (HEAVY, HEAVY | {"format": "csv"}):
            refused = http.get("/v1/usage", params=query)
            assert (refused.status_code, error_of(refused)["code"]) == (504, "report_timeout")
            assert "'from'" in error_of(refused)["message"]
            assert refused.headers["x-should-retry"] == "false"
        assert http.get("/ready").status_code == 200
