"""`Idempotency-Key`: asked twice, answered once, and told twice."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.gateway.answers.conftest import ended, unique
from tests.http import CHAT, chat, error_of
from tests.process import Gateway
from tests.provider import Provider


def ask(http: httpx2.Client, key: str, body: dict[str, Any], path: str = CHAT, **headers: str) -> httpx2.Response:
    return http.post(path, json=body, headers={"idempotency-key": key} | headers)


def asked(upstream: Provider, marker: str) -> int:
    return len([one for one in upstream.seen if marker.encode() in one.body])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1/generate"])
def test_the_same_again_gets_the_same_answer(ann: httpx2.Client, upstream: Provider, path: str, stream: bool) -> None:
    key = unique("same")
    body = chat("up/answer", key, stream=stream) | ({"max_tokens": 9} if path == "/v1/messages" else {})
    if path == "/v1/responses":
        body = {"model": "up/answer", "input": key, "stream": stream}
    elif path == "/v1/generate":
        body = {"model": "up/answer", "input": {"prompt": key}, "stream": stream}
    first, second = ask(ann, key, body, path), ask(ann, key, body, path)
    assert (first.status_code, second.status_code) == (200, 200), first.text
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"]
    assert first.headers["x-gateway-model"] == second.headers["x-gateway-model"]
    assert (first.headers.get("idempotent-replayed"), second.headers["idempotent-replayed"]) == (None, "true")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert asked(upstream, key) == 1
    ids = [one["request_id"] for one in ann.get("/v1/usage").json()["data"]]
    assert first.headers["x-request-id"] in ids
    assert second.headers["x-request-id"] not in ids


def test_another_body_under_the_same_key_is_a_mistake(ann: httpx2.Client) -> None:
    key = unique("reused")
    ask(ann, key, chat("fake/fake"))
    refused = ask(ann, key, chat("fake/fake", "Something else."))
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (400, "idempotency_key_reused", "Idempotency-Key")


def test_keys_are_a_users_an_endpoints_and_a_tenants_own(
    ann: httpx2.Client, bob: httpx2.Client, rival: httpx2.Client
) -> None:
    key = unique("own")
    ask(ann, key, chat("fake/fake"))
    for http in (bob, rival):
        other = ask(http, key, chat("fake/fake", "Mine."))
        assert (other.status_code, other.headers.get("idempotent-replayed")) == (200, None)
    elsewhere = ask(ann, key, {"model": "fake/fake", "input": "x"}, "/v1/responses")
    assert (elsewhere.status_code, elsewhere.headers.get("idempotent-replayed")) == (200, None)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\tb"])
def test_a_key_that_is_none_is_refused(ann: httpx2.Client, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    refused = ann.post(CHAT, json=chat("fake/fake"), headers=headers)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "Idempotency-Key")


def test_two_keys_are_none(ann: httpx2.Client) -> None:
    key = (b"idempotency-key", b"one")
    refused = ann.post(CHAT, json=chat("fake/fake"), headers=[key, (b"idempotency-key", b"two")])
    assert (refused.status_code, error_of(refused)["param"]) == (400, "Idempotency-Key")
    assert ann.post(CHAT, json=chat("fake/fake"), headers=[key, key]).status_code == 200


def test_who_asks_meanwhile_waits_for_the_first(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("meanwhile")
    body = chat("up/events:4:0.1", key, stream=True)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(ann, key, body), range(4)))
    assert len({answer.content for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", "true", "true", "true"]
    assert asked(upstream, key) == 1


@pytest.mark.parametrize("model", ["once-status:500", "once-cut", "once-events:100:0.05"])
def test_when_the_first_comes_to_nothing_the_next_runs_itself(
    ann: httpx2.Client, upstream: Provider, model: str
) -> None:
    key = unique("nothing")
    body = chat(model, key, stream=True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, ann, key, body, **{"x-request-id": key})
        upstream.asked(key)
        if "events" in model:
            second = ThreadPoolExecutor(1).submit(ask, ann, key, body, **{"x-request-id": f"{key}-2"})
            time.sleep(0.3)
            assert asked(upstream, key) == 1
            ann.post(f"/v1/requests/{key}/cancel")
            upstream.asked(key, 2)
            ann.post(f"/v1/requests/{key}-2/cancel")
            assert b"request_cancelled" in second.result().content
        else:
            again = ask(ann, key, body)
            assert again.headers.get("idempotent-replayed") is None
            assert asked(upstream, key) == 2
        first.result()


def test_when_the_first_client_leaves_the_next_runs_and_who_waits_may_leave(
    ann: httpx2.Client, upstream: Provider
) -> None:
    key = unique("leaves")
    body = chat("up/events:30:0.1", key, stream=True)
    with ann.stream("POST", CHAT, json=body, headers={"idempotency-key": key}) as first:
        lines = first.iter_lines()  # held: who lets go of it hangs up
        next(lines)
        with pytest.raises(httpx2.ReadTimeout):
            ann.post(CHAT, json=body, headers={"idempotency-key": key}, timeout=0.3)
    assert asked(upstream, key) == 1
    with ann.stream("POST", CHAT, json=body, headers={"idempotency-key": key}) as second:
        assert "idempotent-replayed" not in second.headers
    assert asked(upstream, key) == 2


def test_it_is_kept_before_its_last_event_is_sent(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("kept")
    body = chat("up/answer", key, stream=True)
    with ann.stream("POST", CHAT, json=body, headers={"idempotency-key": key}) as first:
        for line in first.iter_lines():
            if line == "data: [DONE]":
                break
    again = ask(ann, key, body)
    assert again.headers["idempotent-replayed"] == "true"
    assert asked(upstream, key) == 1


def test_an_answer_that_is_too_large_is_made_anew(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("large")
    body = chat("up/events:500:0", key, stream=True)
    for _ in range(2):
        answer = ask(ann, key, body)
        assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (200, None)
    assert asked(upstream, key) == 2


def test_a_form_sent_again_has_another_boundary(ann: httpx2.Client) -> None:
    key = unique("form")
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 40

    def edit() -> httpx2.Response:
        return ann.post(
            "/v1/images/edits",
            data={"model": "fake/fake", "prompt": "x"},
            files={"image": ("a.png", png, "image/png")},
            headers={"idempotency-key": key},
        )

    first, second = edit(), edit()
    assert error_code(second) != "idempotency_key_reused"
    if first.status_code == 200:
        assert (second.content, second.headers["idempotent-replayed"]) == (first.content, "true")


def error_code(response: httpx2.Response) -> str | None:
    return None if response.status_code == 200 else json.loads(response.content)["error"]["code"]


def test_later_and_under_a_key_names_the_first_request(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("both")
    body = chat("up/events:5:0.1", key)
    first = ask(ann, key, body, prefer="respond-async")
    second = ask(ann, key, body, prefer="respond-async")
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["id"] == first.json()["id"] != second.headers["x-request-id"]
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotent-replayed"] == "true"
    waiting = ask(ann, key, body)
    assert (waiting.status_code, waiting.headers["idempotent-replayed"]) == (200, "true")
    assert waiting.content == ann.get(first.json()["result_url"]).content
    third = ask(ann, key, body, prefer="respond-async")
    assert (third.status_code, third.json()["id"], third.json()["status"]) == (202, first.json()["id"], "done")
    quick = ask(ann, key, body, prefer="respond-async, wait=5")
    assert (quick.status_code, quick.content) == (200, waiting.content)
    assert asked(upstream, key) == 1


def test_later_after_a_failure_begins_anew(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("anew")
    body = chat("once-status:500", key)
    ids = []
    for _ in range(2):
        told = ask(ann, key, body, prefer="respond-async").json()
        assert ended(ann, told["id"])["status"] == "failed"
        ids.append(told["id"])
    assert len(set(ids)) == 2
    assert asked(upstream, key) == 2


def test_the_id_of_a_retry_may_be_the_same(ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("retry")
    for body, kind in ((chat("once-status:500", key), "bad"), (chat("up/answer", key), "good")):
        answers = [ask(ann, f"{key}-{kind}", body, **{"x-request-id": key}) for _ in range(2)]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert asked(upstream, key) == 3


def test_who_waits_is_no_request_yet(desk: Gateway, ann: httpx2.Client, upstream: Provider) -> None:
    key = unique("waits")
    body = chat("up/events:5:0.1", key)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, ann, key, body, **{"x-request-id": key})
        upstream.asked(key)
        second = pool.submit(ask, ann, key, body, **{"x-request-id": f"{key}-2"})
        time.sleep(0.1)
        assert [one["id"] for one in ann.get("/v1/requests?status=running").json()["data"]] == [key]
        assert first.result().content == second.result().content
    desk.wait_for("request_finished", request_id=f"{key}-2")
