"""What becomes of kept answers when a process ends, is killed, or is one of several; and what is still known after."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.answers.conftest import ended, unique
from tests.gateway.conftest import config, speaking
from tests.gateway.db.postgres import cluster, programs
from tests.http import CHAT, chat, error_of, text_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider

ASYNC = {"prefer": "respond-async"}


def later(http: httpx2.Client, body: dict[str, Any], id_: str, **headers: str) -> dict[str, Any]:
    answer = http.post(CHAT, json=body, headers=ASYNC | {"x-request-id": id_} | headers)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def killed(running: Gateway) -> None:
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(10)


def test_after_a_kill_what_was_done_is_there_and_what_ran_is_interrupted(upstream: Provider, tmp_path: Path) -> None:
    done, broken, key = unique("done"), unique("broken"), unique("key")
    tree = config(upstream.url)
    tree["server"]["drain_s"] = 0.2
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        later(http, chat("up/answer"), done)
        kept = ended(http, done)["result"]
        http.get("/v1/usage")  # which waits for what is over to be written
        first = http.post(CHAT, json=chat("up/answer", key, stream=True), headers={"idempotency-key": key})
        later(http, chat("up/silent", broken), broken, **{"idempotency-key": broken})
        with pytest.raises(httpx2.ReadTimeout):
            http.post(CHAT, json=chat("up/silent", "x"), headers={"idempotency-key": "sync"}, timeout=0.2)
        upstream.asked(broken)
        # Acknowledged as the last byte is sent, kept in the same breath: nothing in between may be lost.
        last = http.post(CHAT, json=chat("up/answer", "last"), headers={"idempotency-key": "last"})
        killed(running)
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        assert http.get(f"/v1/requests/{done}").json()["result"] == kept
        told = http.get(f"/v1/requests/{broken}").json()
        assert (told["status"], told["error"]["code"]) == ("failed", "interrupted")
        refused = http.get(told["result_url"])
        assert (refused.status_code, error_of(refused)["code"]) == (503, "interrupted")
        assert refused.headers["x-should-retry"] == "false"
        assert "event: failed" in http.get(told["events_url"]).text
        again = http.post(CHAT, json=chat("up/answer", key, stream=True), headers={"idempotency-key": key})
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        once_more = http.post(CHAT, json=chat("up/answer", "last"), headers={"idempotency-key": "last"})
        assert (once_more.content, once_more.headers["idempotent-replayed"]) == (last.content, "true")
        anew = http.post(CHAT, json=chat("fake/fake", "x"), headers={"idempotency-key": "sync"})
        assert (anew.status_code, anew.headers.get("idempotent-replayed")) == (200, None)
        # It was asked under a key, and has failed: the next under the key runs.
        retried = later(http, chat("up/silent", broken), unique("r"), **{"idempotency-key": broken})
        assert retried["status"] == "running"
        listed = {one["id"]: one["status"] for one in http.get("/v1/requests").json()["data"]}
        assert (listed[done], listed[broken]) == ("done", "failed")


def test_what_runs_when_the_gateway_stops_is_told_so_and_kept(upstream: Provider, tmp_path: Path) -> None:
    quick, slow = unique("quick"), unique("slow")
    tree = config(upstream.url)
    tree["server"]["drain_s"] = 1.0
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        later(http, chat("up/events:3:0.1", quick), quick)
        later(http, chat("up/events:100:0.1", slow, stream=True), slow)
        upstream.asked(slow)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool, speaking(running) as watching:
            watched = pool.submit(watching.get, f"/v1/requests/{slow}/events")
            time.sleep(0.1)
            assert running.stop() == 0
            assert time.monotonic() - began < 8.0
            assert "event: failed" in watched.result().text
        assert not [line for line in running.log if line["level"] == "error"]
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        assert http.get(f"/v1/requests/{quick}").json()["status"] == "done"
        told = http.get(f"/v1/requests/{slow}").json()
        assert (told["status"], told["error"]["code"]) == ("failed", "server_shutting_down")
        stream = http.get(told["result_url"])
        assert stream.status_code == 200
        assert b"server_shutting_down" in stream.content
        assert text_of(stream.content.rpartition(b"data: ")[0])


def test_history_outlives_the_process_and_is_as_long_as_configured(upstream: Provider, tmp_path: Path) -> None:
    ids = [unique(f"old-{n}") for n in range(3)]
    with gateway(tmp_path, config(upstream.url)) as running, speaking(running) as http:
        for id_ in ids:
            http.post(CHAT, json=chat("once-status:500"), headers={"x-request-id": id_})
        before = http.get("/v1/requests").json()
    with gateway(tmp_path, config(upstream.url)) as running, speaking(running) as http:
        assert http.get("/v1/requests").json() == before
        assert [one["id"] for one in before["data"]] == ids[::-1]
        told = http.get(f"/v1/requests/{ids[0]}").json()
        assert told["error"] == before["data"][-1]["error"]
        assert told["error"]["message"]
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.db")) as database:
        database.execute("UPDATE usage SET created_at = created_at - 90000 WHERE request_id = ?", (ids[0],))
        database.commit()
    tree = config(upstream.url) | {"requests": {"history_days": 1}}
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        assert [one["id"] for one in http.get("/v1/requests").json()["data"]] == ids[:0:-1]
        assert http.get(f"/v1/requests/{ids[0]}").status_code == 404


def test_what_is_kept_is_listed_although_its_usage_is_lost(upstream: Provider, tmp_path: Path) -> None:
    ids = [unique(f"usage-{n}") for n in range(4)]
    with gateway(tmp_path, config(upstream.url)) as running, speaking(running) as http:
        for id_ in ids:
            later(http, chat("fake/fake"), id_)
            ended(http, id_)
        before = http.get("/v1/requests").json()
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.db")) as database:
        database.execute("DELETE FROM usage WHERE request_id IN (?, ?)", ids[1:3])
        database.commit()
    with gateway(tmp_path, config(upstream.url)) as running, speaking(running) as http:
        after = http.get("/v1/requests").json()
        assert [(one["id"], one["result_url"]) for one in after["data"]] == [
            (one["id"], one["result_url"]) for one in before["data"]
        ]
        found, cursor = [], None
        for _ in ids:
            one = http.get("/v1/requests", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            found += [each["id"] for each in one["data"]]
            cursor = one["next_cursor"]
        assert (found, cursor) == (ids[::-1], None)
        assert [one["id"] for one in http.get("/v1/requests?status=failed").json()["data"]] == []


def test_an_answer_expires(upstream: Provider, tmp_path: Path) -> None:
    tree = config(upstream.url) | {"requests": {"answers_s": 0.5}}
    with gateway(tmp_path, tree) as running, speaking(running) as http:
        later(http, chat("up/answer"), "short")
        assert ended(http, "short")["result"]
        key = {"idempotency-key": "k"}
        http.post(CHAT, json=chat("up/answer", "k"), headers=key)
        time.sleep(0.6)
        gone = http.get("/v1/requests/short/result")
        assert (gone.status_code, error_of(gone)["code"]) == (404, "result_not_kept")
        assert http.get("/v1/requests/short").json()["status"] == "done"
        assert "idempotent-replayed" not in http.post(CHAT, json=chat("up/answer", "k"), headers=key).headers


def test_a_real_model_answers_later_and_once(tmp_path: Path) -> None:
    body = {
        "model": "local/smollm2-135m-instruct",
        "input": {"prompt": "Say hello."},
        "parameters": {"temperature": 0, "max_tokens": 12},
    }
    with gateway(tmp_path) as running, httpx2.Client(base_url=running.url, timeout=60) as http:
        told = http.post("/v1/generate", json=body, headers=ASYNC | {"idempotency-key": "hello"}).json()
        names = [line[7:] for line in http.get(told["events_url"]).text.splitlines() if line.startswith("event: ")]
        assert names[-1] == "done"
        assert names[0] in ("queued", "loading", "running")
        again = http.post("/v1/generate", json=body, headers={"idempotency-key": "hello"})
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == http.get(told["url"]).json()["result"]
        assert again.json()["output"]["text"]
        story = body | {"stream": True, "input": {"prompt": "Write a long story about a dog."}}
        story["parameters"] = {"temperature": 0, "max_tokens": 1000}
        with http.stream("POST", "/v1/generate", json=story, headers={"x-request-id": "story"}) as got:
            lines = got.iter_lines()  # held: who lets go of it hangs up
            next(line for line in lines if "text.delta" in line)
            cancelled = http.post("/v1/requests/story/cancel").json()
        assert (cancelled["status"], bool(cancelled["partial"]["text"])) == ("cancelled", True)
        assert http.get("/v1/requests/story").json()["partial"] == cancelled["partial"]


@pytest.fixture(scope="module")
def pair(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    """Two gateways on one PostgreSQL."""
    if not programs():
        pytest.skip("PostgreSQL is not installed")
    with cluster() as url:
        tree = config(running_provider.url) | {"database": {"url": url}}
        with (
            gateway(tmp_path_factory.mktemp("one"), tree) as one,
            gateway(tmp_path_factory.mktemp("two"), tree) as two,
        ):
            yield [one, two]


def test_two_gateways_are_one(pair: list[Gateway], upstream: Provider) -> None:
    one, two = (speaking(each) for each in pair)
    with one, two:
        key = unique("replicas")
        body = chat("up/events:5:0.1", key, stream=True)
        with ThreadPoolExecutor(6) as pool:
            answers = list(
                pool.map(lambda n: (one, two)[n % 2].post(CHAT, json=body, headers={"idempotency-key": key}), range(6))
            )
        assert len({answer.content for answer in answers}) == 1
        assert len([answer for answer in answers if "idempotent-replayed" not in answer.headers]) == 1
        assert len([call for call in upstream.seen if key.encode() in call.body]) == 1

        id_ = unique("far")
        later(one, chat("up/events:100:0.1", id_, stream=True), id_)
        upstream.asked(id_)
        told = two.get(f"/v1/requests/{id_}").json()
        assert told["status"] in ("queued", "running")
        assert id_ in [each["id"] for each in two.get("/v1/requests?status=running").json()["data"]]
        assert two.get(told["result_url"]).status_code == 409
        cancelled = two.post(f"/v1/requests/{id_}/cancel").json()
        assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "request_cancelled")
        assert b"request_cancelled" in two.get(told["result_url"]).content


def test_when_one_of_them_is_killed_the_other_says_so(pair: list[Gateway], upstream: Provider) -> None:
    one, two = (speaking(each) for each in pair)
    with one, two:
        id_, key = unique("lost"), unique("flight")
        later(one, chat("up/silent", id_), id_)
        with pytest.raises(httpx2.ReadTimeout):
            one.post(CHAT, json=chat("up/silent", key), headers={"idempotency-key": key}, timeout=0.2)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(one.post, CHAT, json=chat("up/silent", "w"), headers={"idempotency-key": "w"})
            upstream.asked("w")
            killed(pair[0])
            with pytest.raises(httpx2.TransportError):
                waiting.result()
        began = time.monotonic()
        told = ended(two, id_, 12)
        assert (told["status"], told["error"]["code"]) == ("failed", "interrupted")
        body = chat("fake/fake", "w")
        # Another body would be a mistake if the first still counted.
        until(lambda: two.post(CHAT, json=body, headers={"idempotency-key": "w"}).status_code == 200, 10)
        assert time.monotonic() - began < 12
        assert [each["status"] for each in two.get("/v1/requests").json()["data"] if each["id"] == id_] == ["failed"]
