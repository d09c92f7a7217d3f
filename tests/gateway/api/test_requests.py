"""/v1/requests: what runs and has just run, for its tenant only; watched, and ended in whatever phase it is."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest

from tests.claude import Claude
from tests.gateway.api.conftest import ACME_KEY, RIVAL_KEY
from tests.gateway.conftest import config, speaking
from tests.http import CHAT, chat, error_of, events_of, in_band_error, metric, until
from tests.process import Gateway, gateway
from tests.provider import Provider

WITHIN_S = 1.0
FIELDS = {
    "id", "object", "status", "created_at", "ended_at", "endpoint", "streamed", "model", "backend", "answered_model",
    "queue_position", "eta_s", "load_progress", "progress", "attempts", "error", "usage", "timing", "partial",
    "result", "url", "events_url", "cancel_url", "result_url",
}  # fmt: skip


@pytest.fixture
def rivals(keeper: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to the keeper for another tenant."""
    with speaking(keeper, {"authorization": f"Bearer {RIVAL_KEY}"}) as http:
        yield http


@contextmanager
def asking(
    http: httpx2.Client, model: str, id_: str, path: str = CHAT, **fields: Any
) -> Iterator["Future[httpx2.Response]"]:
    """A request under way, under an id of the client's own."""
    body = chat(model, id_, **fields)
    if path == "/v1/generate":
        body = {"model": model, "input": {"prompt": id_}, **fields}
    elif path == "/v1/messages":
        body |= {"max_tokens": 10}
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(http.post, path, json=body, headers={"x-request-id": id_})


def unique(name: str) -> str:
    return f"{name}-{time.monotonic_ns()}"


def feed_of(body: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a feed: name and data."""
    lines = [dict(line.split(": ", 1) for line in event.splitlines()) for event in body.split("\n\n") if event]
    return [(line["event"], json.loads(line["data"])) for line in lines if "event" in line]


def test_a_request_is_there_while_it_runs_and_afterwards(wire_client: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("seen")
    with asking(wire_client, "up/events:3:0.2", id_) as answer:
        upstream.asked(id_)
        running = wire_client.get(f"/v1/requests/{id_}").json()
        listed = wire_client.get("/v1/requests", params={"status": "running"}).json()
        assert answer.result().status_code == 200
    assert set(running) == FIELDS
    assert (running["id"], running["object"], running["status"]) == (id_, "request", "running")
    assert (running["endpoint"], running["model"], running["backend"]) == (CHAT, "up/events:3:0.2", "up")
    assert (running["attempts"], running["ended_at"], running["usage"], running["error"]) == (1, None, None, None)
    assert [one["id"] for one in listed["data"]] == [id_]
    done = wire_client.get(f"/v1/requests/{id_}").json()
    assert (done["status"], done["error"], done["created_at"]) == ("done", None, running["created_at"])
    assert done["ended_at"].endswith("Z")
    assert done["usage"]["output_tokens"] == 12
    assert 0.3 < done["timing"]["total_s"] < 5


def test_the_id_is_the_one_that_the_answer_names(acme: openai.OpenAI, wire_client: httpx2.Client) -> None:
    answer = acme.chat.completions.with_raw_response.create(
        model="up/answer", messages=[{"role": "user", "content": "Hi."}]
    )
    id_ = answer.headers["x-request-id"]
    assert id_.startswith("req_")
    assert wire_client.get(f"/v1/requests/{id_}").json()["status"] == "done"


def test_a_failure_is_told_as_its_client_was_told(wire_client: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("failed")
    refused = wire_client.post(CHAT, json=chat("once-status:500"), headers={"x-request-id": id_})
    told = wire_client.get(f"/v1/requests/{id_}").json()
    error = error_of(refused)
    assert (told["status"], told["error"]) == ("failed", {"code": error["code"], "message": error["message"]})


def test_another_tenants_request_is_not_there(
    wire_client: httpx2.Client, rivals: httpx2.Client, upstream: Provider
) -> None:
    id_ = unique("foreign")
    with asking(wire_client, "up/events:3:0.2", id_) as answer:
        upstream.asked(id_)
        for method, verb in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            theirs = rivals.request(method, f"/v1/requests/{id_}{verb}")
            nobodys = rivals.request(method, f"/v1/requests/{id_[:-1]}x{verb}")
            assert (theirs.status_code, nobodys.status_code) == (404, 404)
            assert theirs.text.replace(id_, "ID") == nobodys.text.replace(f"{id_[:-1]}x", "ID")
        assert id_ not in rivals.get("/v1/requests").text
        assert answer.result().status_code == 200
    assert rivals.get(f"/v1/requests/{id_}").status_code == 404


def test_a_feed_begins_with_what_is_and_ends_with_the_request(wire_client: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("watched")
    with asking(wire_client, "up/events:3:0.2", id_) as answer:
        upstream.asked(id_)
        watched = wire_client.get(f"/v1/requests/{id_}/events")
        ended = time.monotonic()
        answer.result()
        assert time.monotonic() - ended < WITHIN_S
    assert watched.headers["content-type"].startswith("text/event-stream")
    feed = feed_of(watched.text)
    assert feed[0][0] == "running"
    assert feed[-1][0] == "done"
    assert all(name == data["status"] and set(data) == FIELDS for name, data in feed)
    again = feed_of(wire_client.get(f"/v1/requests/{id_}/events").text)
    assert [name for name, _ in again] == ["done"]


PHASES = [
    (CHAT, "up/silent", False),
    (CHAT, "up/silent", True),
    (CHAT, "up/stall:0", True),
    (CHAT, "up/stall:2", True),
    (CHAT, "up/events:500:0.02", True),
    (CHAT, "up/events:500:0.02", False),
    (CHAT, "backing-off", False),
    ("/v1/generate", "up/stall:2", True),
    ("/v1/generate", "up/silent", False),
    ("/v1/messages", "up/stall:2", True),
    ("/v1/messages", "up/silent", False),
]


@pytest.mark.parametrize(("path", "model", "stream"), PHASES)
def test_a_cancelled_request_ends_wherever_it_is(
    keeper: Gateway, wire_client: httpx2.Client, upstream: Provider, path: str, model: str, stream: bool
) -> None:
    id_ = unique("cancelled")
    with asking(wire_client, model, id_, path, stream=stream) as answer:
        call = upstream.asked(id_)
        until(lambda: wire_client.get(f"/v1/requests/{id_}").json()["timing"]["total_s"] > 0.1)
        began = time.monotonic()
        told = wire_client.post(f"/v1/requests/{id_}/cancel").json()
        got = answer.result()
        assert time.monotonic() - began < WITHIN_S
    assert (told["status"], told["error"]["code"]) == ("cancelled", "request_cancelled")
    if model != "backing-off":
        assert call.left_within(WITHIN_S, began)
    assert len([x for x in upstream.seen if id_.encode() in x.body]) == 1, "nobody else was asked"
    if got.status_code == 200:
        assert stream
        assert b"[DONE]" not in got.content
        assert b"message_stop" not in got.content
        assert b"cancelled" in got.content.strip().split(b"\n\n")[-1]
        if path == CHAT:
            assert in_band_error(got.content)["code"] == "request_cancelled"
    else:
        assert got.status_code == 499
        assert got.headers["x-should-retry"] == "false"
        if path != "/v1/messages":
            assert error_of(got)["code"] == "request_cancelled"
    keeper.wait_for("request_finished", request_id=id_, code="request_cancelled")


def test_a_cancelled_request_is_not_tried_again_by_its_sdk(
    keeper: Gateway, wire_client: httpx2.Client, upstream: Provider, sdk_http: httpx2.Client
) -> None:
    id_ = unique("sdk")
    client = openai.OpenAI(base_url=f"{keeper.url}/v1", api_key=ACME_KEY, max_retries=2, http_client=sdk_http)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            lambda: client.chat.completions.create(
                model="up/silent",
                messages=[{"role": "user", "content": id_}],
                extra_headers={"x-request-id": id_},
            )
        )
        upstream.asked(id_)
        wire_client.post(f"/v1/requests/{id_}/cancel")
        with pytest.raises(openai.APIStatusError) as caught:
            asked.result()
    assert (caught.value.status_code, caught.value.code) == (499, "request_cancelled")
    assert len(upstream.seen) == 1


def test_what_is_over_cannot_be_cancelled_but_twice_is_once(wire_client: httpx2.Client, upstream: Provider) -> None:
    done, cancelled = unique("done"), unique("twice")
    wire_client.post(CHAT, json=chat("up/answer"), headers={"x-request-id": done})
    refused = wire_client.post(f"/v1/requests/{done}/cancel")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "conflict")
    with asking(wire_client, "up/silent", cancelled):
        upstream.asked(cancelled)
        assert wire_client.post(f"/v1/requests/{cancelled}/cancel").status_code == 200
    again = wire_client.post(f"/v1/requests/{cancelled}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_a_client_that_left_has_cancelled(wire_client: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("left")
    body = chat("up/events:500:0.02", id_, stream=True)
    with wire_client.stream("POST", CHAT, json=body, headers={"x-request-id": id_}) as got:
        next(got.iter_lines())
    told = until(lambda: (one := wire_client.get(f"/v1/requests/{id_}").json())["ended_at"] and one)
    assert (told["status"], told["error"]["code"]) == ("cancelled", "client_gone")


def test_pages_follow_each_other_and_lose_nothing(wire_client: httpx2.Client, upstream: Provider) -> None:
    ids = [unique(f"paged-{n}") for n in range(5)]
    for id_ in ids:
        wire_client.post(CHAT, json=chat("up/answer"), headers={"x-request-id": id_})
    with asking(wire_client, "up/silent", "paged-running"):
        upstream.asked("paged-running")
        seen: list[str] = []
        cursor = ""
        while len(seen) < 6:
            page = wire_client.get("/v1/requests", params={"limit": 2, "cursor": cursor}).json()
            assert len(page["data"]) == 2
            seen += [one["id"] for one in page["data"]]
            cursor = page["next_cursor"]
        wire_client.post("/v1/requests/paged-running/cancel")
    assert seen == ["paged-running", *reversed(ids)]
    statuses = {one["status"] for one in wire_client.get("/v1/requests?status=done&limit=500").json()["data"]}
    assert statuses == {"done"}


@pytest.mark.parametrize("query", ["cursor=nonsense!", "cursor=YWJj", "status=asleep", "limit=0", "limit=501"])
def test_what_makes_no_sense_is_refused(wire_client: httpx2.Client, query: str) -> None:
    refused = wire_client.get(f"/v1/requests?{query}")
    assert refused.status_code == 400
    assert error_of(refused)["param"] == query.partition("=")[0]


def test_only_what_generates_is_a_request(wire_client: httpx2.Client, keeper: Gateway) -> None:
    wire_client.get("/v1/models", headers={"x-request-id": "a-listing"})
    assert wire_client.get("/v1/requests/a-listing").status_code == 404


@pytest.fixture(scope="module")
def narrow(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Speaks to a gateway whose backend takes one request at a time, and which keeps waiting streams awake."""
    tree = config(running_provider.url)
    tree["backends"]["narrow"] = {"kind": "openai", "base_url": running_provider.url, "concurrent": 1}
    prelude = "import gateway.api.reply; gateway.api.reply.KEEP_ALIVE_S = 0.1"
    with gateway(tmp_path_factory.mktemp("narrow"), tree, prelude=prelude) as running, speaking(running) as http:
        yield http


def test_a_place_in_a_queue_is_told_and_can_be_given_up(narrow: httpx2.Client, upstream: Provider) -> None:
    with asking(narrow, "narrow/events:8:0.2", "first") as first:
        upstream.asked("first")
        with asking(narrow, "narrow/answer", "second") as second, asking(narrow, "narrow/answer", "third") as third:
            told = until(lambda: (one := narrow.get("/v1/requests/third").json()).get("status") == "queued" and one)
            assert told["queue_position"] in (0, 1)
            until(lambda: narrow.get("/v1/requests/second").json().get("status") == "queued")
            watched: list[str] = []
            watcher = threading.Thread(target=lambda: watched.append(narrow.get("/v1/requests/second/events").text))
            watcher.start()
            began = time.monotonic()
            assert narrow.post("/v1/requests/second/cancel").json()["status"] == "cancelled"
            assert second.result().status_code == 499
            assert time.monotonic() - began < WITHIN_S
            watcher.join()
            assert third.result().status_code == 200
            assert third.result().headers["x-gateway-queue-position"] == str(told["queue_position"])
            assert float(third.result().headers["x-gateway-queue-s"]) > 0.2
        assert first.result().status_code == 200
        assert "x-gateway-queue-position" not in first.result().headers
    assert feed_of(watched[0])[-1][0] == "cancelled"
    assert not [x for x in upstream.seen if b"second" in x.body]
    assert metric(str(narrow.base_url), "pluggably_waiting", backend="narrow") == 0


def test_a_stream_that_waits_is_kept_awake_and_cancelled_inside(narrow: httpx2.Client, upstream: Provider) -> None:
    with asking(narrow, "narrow/events:6:0.2", "ahead"):
        upstream.asked("ahead")
        with asking(narrow, "narrow/answer", "waiting", stream=True) as waiting:
            time.sleep(0.5)
            narrow.post("/v1/requests/waiting/cancel")
            got = waiting.result()
    assert got.status_code == 200
    assert got.content.startswith(b": keep-alive\n\n")
    assert in_band_error(got.content)["code"] == "request_cancelled"
    assert len(events_of(got.content)) == 1


def test_anthropics_clients_are_told_in_their_own_words(
    translated_http: httpx2.Client, anthropics: Claude, upstream: Provider
) -> None:
    with asking(translated_http, "up/silent", "in-anthropics", "/v1/messages") as answer:
        upstream.asked("in-anthropics")
        translated_http.post("/v1/requests/in-anthropics/cancel")
        got = answer.result()
    assert got.status_code == 499
    assert got.json()["type"] == "error"
    assert got.json()["error"]["type"] == "invalid_request_error"
    assert got.json()["request_id"] == "in-anthropics"
