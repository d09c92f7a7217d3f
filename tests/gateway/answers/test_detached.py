"""`Prefer: respond-async`: asked now, answered later, and kept as it would have been sent."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from gateway.api.detached import wish_of
from tests.gateway.answers.conftest import ended, unique
from tests.http import CHAT, chat, error_of, events_of, text_of, until
from tests.process import Gateway
from tests.provider import Provider

ASYNC = {"prefer": "respond-async"}


def later(http: httpx2.Client, body: dict[str, Any], path: str = CHAT, **headers: str) -> dict[str, Any]:
    """Ask to be answered later; the standing that is told."""
    answer = http.post(path, json=body, headers=ASYNC | headers)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["location"] == told["url"] == f"/v1/requests/{told['id']}"
    assert answer.headers["x-request-id"] == told["id"]
    assert answer.headers["preference-applied"] == "respond-async"
    assert int(answer.headers["retry-after"]) >= 1
    return told


BODIES = [
    (CHAT, chat("fake/fake", seed=1)),
    (CHAT, chat("up/answer")),
    ("/v1/completions", {"model": "fake/fake", "prompt": "x"}),
    ("/v1/messages", chat("fake/fake", max_tokens=9)),
    ("/v1/messages/count_tokens", chat("fake/fake")),
    ("/v1/responses", {"model": "fake/fake", "input": "x"}),
    ("/v1/generate", {"model": "fake/fake", "input": {"prompt": "x"}}),
    ("/v1/embeddings", {"model": "fake/fake", "input": "x"}),
    ("/v1/rerank", {"model": "fake/fake", "query": "x", "documents": ["x", "y"]}),
    ("/v1/images/generations", {"model": "fake/fake", "prompt": "x"}),
    ("/v1/3d/generations", {"model": "fake/fake", "prompt": "x"}),
]


def _alike(body: bytes) -> str:
    """A body without what is another each time."""
    told = json.loads(body)
    for name in ("id", "created", "created_at", "completed_at", "timing", "request_id", "output", "data"):
        told.pop(name, None)
    return json.dumps(told, sort_keys=True)


@pytest.mark.parametrize(("path", "body"), BODIES, ids=[f"{path}-{body['model']}" for path, body in BODIES])
def test_every_generating_endpoint_answers_later_what_it_answers_at_once(
    ann: httpx2.Client, path: str, body: dict[str, Any]
) -> None:
    at_once = ann.post(path, json=body)
    told = later(ann, body, path)
    done = ended(ann, told["id"])
    result = ann.get(told["result_url"])
    assert result.status_code == at_once.status_code
    assert result.headers["content-type"] == at_once.headers["content-type"]
    assert done["status"] == ("done" if at_once.status_code == 200 else "failed")
    if at_once.status_code == 200:
        assert _alike(result.content) == _alike(at_once.content)
        assert done["result"] == result.json()
        assert result.headers["x-gateway-model"] == at_once.headers["x-gateway-model"]
    else:
        assert done["result"] is None
        assert set(result.json()) == set(at_once.json())


def test_a_stream_is_kept_whole(ann: httpx2.Client) -> None:
    told = later(ann, chat("up/events:3:0.05", stream=True))
    assert told["streamed"]
    assert ended(ann, told["id"])["result"] is None
    result = ann.get(told["result_url"])
    assert result.headers["content-type"].startswith("text/event-stream")
    assert events_of(result.content)[-1] == b"[DONE]"
    assert text_of(result.content) == text_of(ann.post(CHAT, json=chat("up/events:3:0.05", stream=True)).content)


def test_it_stands_running_is_watched_and_has_no_result_yet(ann: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("running")
    told = later(ann, chat("up/events:4:0.1", id_), **{"x-request-id": id_})
    upstream.asked(id_)
    assert told["id"] == id_
    early = ann.get(told["result_url"])
    assert (early.status_code, error_of(early)["code"]) == (409, "request_unfinished")
    assert [one["id"] for one in ann.get("/v1/requests?status=running").json()["data"]] == [id_]
    feed = ann.get(told["events_url"]).text
    assert feed.startswith("event: running")
    assert "event: done" in feed
    [listed] = [one for one in ann.get("/v1/requests").json()["data"] if one["id"] == id_]
    assert (listed["status"], listed["result_url"]) == ("done", told["result_url"])


def test_what_is_wrong_is_told_at_once(ann: httpx2.Client) -> None:
    for headers, body in ((ASYNC, {"model": 7}), (ASYNC | {"x-request-timeout": "x"}, chat("fake/fake"))):
        assert ann.post(CHAT, json=body, headers=headers).status_code == 400
    nobody = ann.post(CHAT, json=chat("fake/fake"), headers=ASYNC | {"authorization": "Bearer nobody"})
    assert nobody.status_code == 401


def test_a_failure_is_kept_as_it_would_have_been_told(ann: httpx2.Client) -> None:
    told = later(ann, chat("once-status:500"))
    failed = ended(ann, told["id"])
    result = ann.get(told["result_url"])
    at_once = ann.post(CHAT, json=chat("once-status:500"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", error_of(at_once)["code"])
    assert (result.status_code, result.json()) == (at_once.status_code, at_once.json())


def test_who_waits_gets_a_quick_answer_itself(ann: httpx2.Client) -> None:
    quick = ann.post(CHAT, json=chat("fake/fake"), headers={"prefer": 'return=minimal, wait="5", respond-async'})
    assert (quick.status_code, quick.headers["preference-applied"]) == (200, "wait=5")
    assert quick.json()["object"] == "chat.completion"
    began = time.monotonic()
    slow = ann.post(CHAT, json=chat("up/events:20:0.1"), headers={"prefer": "respond-async, wait=1"})
    assert slow.status_code == 202
    assert 0.9 < time.monotonic() - began < 2.0
    ann.post(slow.json()["cancel_url"])


def test_it_is_metered_and_logged_once(desk: Gateway, ann: httpx2.Client) -> None:
    id_ = unique("once")
    later(ann, chat("up/answer"), **{"x-request-id": id_})
    ended(ann, id_)
    rows = [one for one in ann.get("/v1/usage").json()["data"] if one["request_id"] == id_]
    assert [(row["status"], row["output_tokens"]) for row in rows] == [(200, 12)]
    desk.wait_for("request_finished", request_id=id_)
    assert len([line for line in desk.log if line.get("request_id") == id_]) == 1


def test_it_is_cancelled_with_what_there_is(ann: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("partly")
    body = {"model": "up/events:100:0.05", "input": {"prompt": id_}, "stream": True}
    later(ann, body, "/v1/generate", **{"x-request-id": id_})
    call = upstream.asked(id_)
    until(lambda: ann.get(f"/v1/requests/{id_}").json()["timing"]["first_token_s"] is not None)
    time.sleep(0.2)
    began = time.monotonic()
    told = ann.post(f"/v1/requests/{id_}/cancel").json()
    assert time.monotonic() - began < 1.0
    assert call.left_within(1.0, began)
    again = ann.get(f"/v1/requests/{id_}").json()
    for one in (told, again):
        assert (one["status"], one["error"]["code"]) == ("cancelled", "request_cancelled")
        assert one["partial"]["text"]
        assert one["partial"]["artifacts"] == []
    assert b"request_cancelled" in ann.get(again["result_url"]).content


def test_what_there_is_of_an_answer_at_once_is_kept_as_well(ann: httpx2.Client, upstream: Provider) -> None:
    id_ = unique("left")
    body = {"model": "up/events:100:0.05", "input": {"prompt": id_}, "stream": True}
    with ann.stream("POST", "/v1/generate", json=body, headers={"x-request-id": id_}) as got:
        for line in got.iter_lines():
            if "text.delta" in line:
                break
    told = ended(ann, id_)
    assert (told["status"], told["error"]["code"]) == ("cancelled", "client_gone")
    assert told["partial"]["text"]
    assert told["result_url"] is None


def test_others_cannot_have_it(ann: httpx2.Client, rival: httpx2.Client) -> None:
    told = later(ann, chat("fake/fake"))
    ended(ann, told["id"])
    absent = rival.get(told["result_url"].replace(told["id"], told["id"][:-1] + "x"))
    foreign = rival.get(told["result_url"])
    assert (foreign.status_code, absent.status_code) == (404, 404)
    assert foreign.text.replace(told["id"], "ID") == absent.text.replace(told["id"][:-1] + "x", "ID")


def test_an_id_whose_answer_is_kept_cannot_be_used_again(ann: httpx2.Client) -> None:
    id_ = unique("again")
    later(ann, chat("fake/fake"), **{"x-request-id": id_})
    ended(ann, id_)
    refused = ann.post(CHAT, json=chat("fake/fake"), headers=ASYNC | {"x-request-id": id_})
    assert (refused.status_code, error_of(refused)["code"]) == (409, "conflict")


def test_a_tenant_has_so_many_at_a_time(ann: httpx2.Client, rival: httpx2.Client) -> None:
    told = [later(ann, chat("up/silent")) for _ in range(4)]
    refused = ann.post(CHAT, json=chat("up/silent"), headers=ASYNC)
    assert (refused.status_code, error_of(refused)["code"]) == (429, "too_many_detached")
    later(rival, chat("fake/fake"))
    for one in told:
        ann.post(one["cancel_url"])
    later(ann, chat("fake/fake"))


def test_an_answer_that_is_too_large_is_not_kept_and_that_is_said(ann: httpx2.Client) -> None:
    told = later(ann, chat("up/events:500:0", stream=True))
    assert ended(ann, told["id"])["status"] == "done"
    refused = ann.get(told["result_url"])
    assert (refused.status_code, error_of(refused)["code"]) == (507, "answer_too_large")
    waited = ann.post(CHAT, json=chat("up/events:500:0", stream=True), headers={"prefer": "respond-async, wait=5"})
    again = ann.get(f"/v1/requests/{told['id']}").json()
    for one in (waited.json(), again):
        assert (one["status"], one["result_url"], one["error"]["code"]) == ("done", None, "answer_too_large")


def test_what_has_an_id_next_does_not_hide_the_answer_that_is_kept_under_it(ann: httpx2.Client) -> None:
    id_, key = unique("hidden"), unique("key")
    url = later(ann, chat("slow/fake"), **{"x-request-id": id_})["result_url"]
    kept = ended(ann, id_)["result"]
    assert ann.post(CHAT, json=chat("fake/fake", "plain"), headers={"x-request-id": id_}).status_code == 200
    assert ann.get(f"/v1/requests/{id_}").json()["result_url"] == url
    assert ann.get(url).json() == kept
    listed = [one for one in ann.get("/v1/requests").json()["data"] if one["id"] == id_]
    assert [one["result_url"] for one in listed] == [None, url]
    keyed = ann.post(CHAT, json=chat("fake/fake", key), headers={"x-request-id": id_, "idempotency-key": key})
    other = ann.get(f"/v1/requests/{id_}").json()["result_url"]
    assert ann.get(other).content == keyed.content
    assert ann.get(url).json() == kept
    listed = [one for one in ann.get("/v1/requests").json()["data"] if one["id"] == id_]
    assert [one["result_url"] for one in listed] == [other, None, url]


@pytest.mark.parametrize("stream", [False, True])
def test_what_there_is_of_an_answer_that_is_not_streamed_is_kept_as_well(ann: httpx2.Client, stream: bool) -> None:
    id_ = unique("held")
    body = {"model": "slow/fake", "input": {"prompt": "x"}, "stream": stream}
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ann.post, "/v1/generate", json=body, headers={"x-request-id": id_})
        until(lambda: ann.get(f"/v1/requests/{id_}").status_code == 200)
        time.sleep(0.25)
        told = ann.post(f"/v1/requests/{id_}/cancel").json()
        asking.result()
    assert told["status"] == "cancelled"
    assert told["partial"]["text"].startswith("Hello")
    assert ann.get(f"/v1/requests/{id_}").json()["partial"] == told["partial"]


@pytest.mark.parametrize("id_", [".", ".."])
def test_an_id_that_is_a_step_in_a_path_is_none(ann: httpx2.Client, id_: str) -> None:
    assert later(ann, chat("fake/fake"), **{"x-request-id": id_})["id"].startswith("req_")


PREFERENCES = [
    ("respond-async", (True, 0)),
    ("Respond-Async, wait=10", (True, 10)),
    ("wait = 10 , respond-async; x=y", (True, 10)),
    ('foo="a, respond-async"', None),
    ("foo; respond-async", None),
    ("respond-async, wait=many, wait=3", (True, 0)),
    ("respond-async, wait=99999", (True, 60)),
    ("wait=10", None),
    ("handling=lenient", None),
    (',,;=,"', None),
    ('respond-async, foo="', None),
    ("respond-async" + ", x" * 2000, None),
]


@pytest.mark.parametrize(("header", "wish"), PREFERENCES)
def test_preferences_are_read_as_their_rfc_says(header: str, wish: tuple[bool, int] | None) -> None:
    found = wish_of({b"prefer": header.encode()})
    assert (None if found is None else (found.later, found.wait_s)) == wish


@pytest.mark.parametrize("size", [4_000, 32_000])
@pytest.mark.parametrize("piece", ['\\"', '"', '"a",', 'a=" ', " ", ",;="])
def test_preferences_are_read_at_once_whatever_they_are(piece: str, size: int) -> None:
    header = ('"' + piece * size)[:size].encode()
    began = time.perf_counter()
    assert wish_of({b"prefer": header}) is None
    assert time.perf_counter() - began < 0.01
