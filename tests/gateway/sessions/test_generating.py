"""Generating in a session, before a provider that shows what it was sent, and the fake backend."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import speaking
from tests.gateway.sessions.turns import KEYS, ask, begun, events, listed, said, sent
from tests.http import error_of, until
from tests.process import Gateway
from tests.provider import Provider

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_model_is_told_what_was_said_before(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, system="Be brief.", parameters={"temperature": 0.25, "steps": 3})
    first, second = said(http, session, "One.", "Two.")
    assert sent(upstream) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "word0 word1 word2 "},
        {"role": "user", "content": "Two."},
    ]
    assert upstream.seen[-1].json["temperature"] == 0.25
    assert (first["session_id"], first["context"]) == (session, None)
    assert [m["role"] for m in listed(http, session)] == ["user", "assistant"] * 2
    assert [m["id"] for m in listed(http, session)][1::2] == [first["message_id"], second["message_id"]]
    card = http.get(f"/v1/sessions/{session}").json()
    assert (card["message_count"], card["head"], card["title"]) == (4, second["message_id"], "One.")


def test_generate_with_a_session_id_is_the_same(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="fake/fake")
    asked = {"input": {"prompt": "One."}, "session_id": session, "stream": True}
    got = events(http.post("/v1/generate", json=asked))
    assert [name for name, _ in got] == ["generation.started", *["text.delta"] * 5, "generation.completed"]
    assert (got[-1][1]["session_id"], got[-1][1]["id"]) == (session, got[0][1]["id"])
    assert listed(http, session)[-1]["id"] == got[0][1]["id"]
    assert not upstream.seen
    twice = ask(http, session, session_id=session)
    assert (twice.status_code, error_of(twice)["param"]) == (400, "session_id")


def test_a_request_has_the_last_word(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="fake/fake", parameters={"temperature": 1, "max_tokens": 9})
    said(http, session, "One.", model="up/answer", parameters={"temperature": 0})
    assert (upstream.seen[-1].json["temperature"], upstream.seen[-1].json["max_tokens"]) == (0, 9)


def test_one_conversation_of_text_pictures_and_meshes(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="seeing")
    [drawn] = said(http, session, "a red ball", model="fake/fake", modality="image")
    picture = drawn["output"]["artifacts"][0]
    assert picture["id"].startswith("art_")
    mesh = http.post(
        f"/v1/sessions/{session}/generate",
        json={"input": {"images": ["last"]}, "model": "fake/fake", "modality": "3d"},
    )
    assert mesh.status_code == 200, mesh.text
    solid = mesh.json()["output"]["artifacts"][0]["id"]
    [text] = said(http, session, "What is it?")
    user, drew, gave, built, asks = sent(upstream)
    assert (user["content"], drew["content"]) == ("a red ball", f"[image {picture['id']}: a red ball]")
    assert [part["type"] for part in gave["content"]] == ["image_url", "image_url"]
    assert built["content"].startswith(f"[mesh {solid}")
    assert (asks["content"], text["context"]) == ("What is it?", None)
    [blind] = said(http, session, "And now?", model="blind")
    assert blind["context"]["artifacts"] == [picture["id"]]
    assert all(isinstance(message["content"], str) for message in sent(upstream))
    again = http.post(
        f"/v1/sessions/{session}/generate",
        json={"input": {"prompt": "bluer", "images": ["last"]}, "model": "fake/fake", "modality": "image"},
    )
    assert again.status_code == 200, again.text
    assert [m["modality"] for m in listed(http, session) if m["role"] == "assistant"] == [
        "image", "3d", "text", "text", "image",
    ]  # fmt: skip


def test_a_picture_that_was_given_stays_with_its_session(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="seeing")
    answer = http.post(f"/v1/sessions/{session}/generate", json={"input": {"prompt": "See?", "images": [PIXEL]}})
    assert answer.status_code == 200, answer.text
    said(http, session, "And?")
    assert sent(upstream)[0]["content"][1] == {"type": "image_url", "image_url": {"url": PIXEL}}
    kept = listed(http, session)[0]["artifacts"]
    assert [one["id"][:4] for one in kept] == ["art_"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": {"images": ["last"]}, "modality": "3d"}, "input.images[0]"),
        ({"input": {"prompt": "x"}, "modality": "embedding"}, "modality"),
        ({"input": {"prompt": "x", "images": ["art_0"]}}, "input.images[0]"),
        ({"input": {"prompt": "x"}, "parameters": {"steps": 3}}, "parameters.steps"),
        ({"input": {"messages": [{"role": "user", "content": "x"}]}, "modality": "image"}, "input.messages"),
    ],
)
def test_what_cannot_be_asked_is_named_and_leaves_nothing(
    http: httpx2.Client, fields: dict[str, Any], param: str
) -> None:
    session = begun(http, model="fake/fake")
    refused = http.post(f"/v1/sessions/{session}/generate", json=fields)
    assert refused.status_code in (400, 404), refused.text
    assert error_of(refused)["param"] == param
    assert listed(http, session) == []


def test_whose_it_is_not_finds_nothing(http: httpx2.Client, running: Gateway) -> None:
    session = begun(http, model="fake/fake")
    with speaking(running, {"authorization": f"Bearer {KEYS[1]['key']}"}) as rival:
        foreign, absent = ask(rival, session), ask(rival, session[:-1] + ("0" if session[-1] != "0" else "1"))
        assert (foreign.status_code, absent.status_code) == (404, 404)
        assert foreign.text[:40] == absent.text[:40]
        named = rival.post("/v1/generate", json={"input": {"prompt": "x"}, "session_id": session})
        assert (named.status_code, named.json()) == (404, foreign.json())
    with speaking(running, {"authorization": f"Bearer {KEYS[2]['key']}"}) as bare:
        assert (ask(bare, session).status_code, error_of(ask(bare, session))["code"]) == (403, "insufficient_scope")
    assert listed(http, session) == []


def test_a_closed_session_is_read_only(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    said(http, session, "One.")
    http.post(f"/v1/sessions/{session}/close").raise_for_status()
    for refused in (ask(http, session), http.post(f"/v1/sessions/{session}/regenerate", json={})):
        assert (refused.status_code, error_of(refused)["code"]) == (409, "conflict")


def test_an_answer_is_made_anew_and_the_older_is_kept(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="up/answer")
    first, second = said(http, session, "One.", "Two.", parameters={"temperature": 0, "seed": 5})
    path = f"/v1/sessions/{session}/regenerate"
    third = http.post(path, json={"parameters": {"seed": 6}}).json()
    assert [m["content"] for m in sent(upstream)] == ["One.", "word0 word1 word2 ", "Two."]
    assert (upstream.seen[-1].json["temperature"], upstream.seen[-1].json["seed"]) == (0, 6)
    last = listed(http, session)[-1]
    assert last["id"] == third["message_id"]
    assert second["message_id"] in json.dumps(last["alternatives"])
    other = http.post(path, json={"message_id": first["message_id"], "model": "fake/fake"}).json()
    assert [m["id"] for m in listed(http, session)][1:] == [other["message_id"]]
    asked_again = http.post(path, json={"message_id": listed(http, session)[0]["id"], "stream": True})
    assert events(asked_again)[-1][0] == "generation.completed"
    lost = http.post(path, json={"message_id": "gen_nothing"})
    assert (lost.status_code, error_of(lost)["param"]) == (404, "message_id")
    empty = http.post(f"/v1/sessions/{begun(http)}/regenerate", json={})
    assert (empty.status_code, error_of(empty)["param"]) == (400, "message_id")


def test_what_was_shown_of_a_broken_answer_is_kept(http: httpx2.Client) -> None:
    session = begun(http)
    said(http, session, "One.", model="fake/fake")
    got = events(ask(http, session, "Two.", model="torn", stream=True))
    assert got[-1][0] == "error"
    shown = "".join(data["delta"] for name, data in got if name == "text.delta")
    last = listed(http, session)[-1]
    assert (last["status"], last["text"]) == ("incomplete", shown)
    failed = ask(http, session, "Three.", model="broken", stream=True)
    assert failed.status_code == 502
    assert ask(http, session, "Three.", model="torn").status_code == 502
    assert len(listed(http, session)) == 4, "nothing was shown of these"
    said(http, session, "Go on.", model="fake/fake")


def test_who_leaves_leaves_what_was_shown(http: httpx2.Client, running: Gateway) -> None:
    session = begun(http, model="slow/fake")
    asked = {"input": {"prompt": "One."}, "stream": True}
    with http.stream("POST", f"/v1/sessions/{session}/generate", json=asked) as answer:
        lines = answer.iter_lines()
        while "text.delta" not in next(lines):
            pass
    began = time.monotonic()
    [_, last] = until(lambda: listed(http, session))
    assert time.monotonic() - began < 1
    assert (last["status"], last["text"][:5]) == ("incomplete", "Hello")
    said(http, session, "Two.", model="fake/fake")


def test_one_that_is_cancelled_says_so_and_is_kept(http: httpx2.Client) -> None:
    session = begun(http, model="slow/fake")
    asked = {"input": {"prompt": "One."}, "stream": True}
    head = {"x-request-id": f"cancel-{session}"}
    with http.stream("POST", f"/v1/sessions/{session}/generate", json=asked, headers=head) as answer:
        lines = answer.iter_lines()
        while "text.delta" not in next(lines):
            pass
        assert http.post(f"/v1/requests/cancel-{session}/cancel").status_code == 200
        rest = "\n".join(lines)
    assert "request_cancelled" in rest
    assert listed(http, session)[-1]["status"] == "incomplete"


def test_generates_of_one_session_come_one_after_the_other(http: httpx2.Client, running: Gateway) -> None:
    session = begun(http, model="fake/fake")

    async def crowd() -> list[str]:
        headers = {"authorization": f"Bearer {KEYS[0]['key']}"}
        async with httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=60) as client:

            async def one(n: int) -> str:
                body = {"input": {"prompt": f"No. {n}"}}
                answer = await client.post(f"/v1/sessions/{session}/generate", json=body)
                assert answer.status_code == 200, answer.text
                return str(answer.json()["message_id"])

            return list(await asyncio.gather(*map(one, range(20))))

    ids = asyncio.run(crowd())
    messages = listed(http, session)
    assert sorted(m["id"] for m in messages[1::2]) == sorted(ids)
    assert [m["role"] for m in messages] == ["user", "assistant"] * 20
    counts = [m["usage"]["input_tokens"] for m in messages[1::2]]
    assert counts == [2 * n + 1 for n in range(20)], "each was told of all before it"


def test_who_waits_is_queued_and_may_leave(http: httpx2.Client, running: Gateway) -> None:
    session = begun(http, model="slow/fake")

    def standing(id_: str) -> dict[str, Any] | None:
        found = http.get(f"/v1/requests/{id_}")
        shown: dict[str, Any] = found.json()
        return shown if found.status_code == 200 and shown["status"] == "queued" else None

    def one(name: str, timeout_s: float) -> int:
        head = {"x-request-id": f"{name}-{session}", "authorization": f"Bearer {KEYS[0]['key']}"}
        try:
            with httpx2.Client(base_url=running.url, headers=head, timeout=timeout_s) as client:
                return ask(client, session, name).status_code
        except httpx2.TimeoutException:
            return 0

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(one, "first", 30)
        until(lambda: http.get(f"/v1/requests/first-{session}").status_code == 200 or None)
        second = pool.submit(one, "second", 0.4)
        assert until(lambda: standing(f"second-{session}"))["queue_position"] == 0
        third = pool.submit(one, "third", 30)
        assert until(lambda: standing(f"third-{session}"))["queue_position"] == 1
        assert second.result() == 0
        assert until(lambda: (found := standing(f"third-{session}")) and found["queue_position"] == 0)
        assert (first.result(), third.result()) == (200, 200)
    assert [m["text"] for m in listed(http, session) if m["role"] == "user"] == ["first", "third"]


def test_one_that_is_deleted_meanwhile_takes_no_turn(http: httpx2.Client, running: Gateway) -> None:
    session = begun(http, model="slow/fake")
    answers: list[httpx2.Response] = []

    def asking() -> None:
        with speaking(running, {"authorization": f"Bearer {KEYS[0]['key']}"}) as client:
            answers.append(ask(client, session))

    thread = threading.Thread(target=asking)
    thread.start()
    until(lambda: [r for r in http.get("/v1/requests").json()["data"] if r["status"] == "running"])
    assert http.delete(f"/v1/sessions/{session}").status_code in (200, 204)
    thread.join()
    assert (answers[0].status_code, error_of(answers[0])["message"]) == (404, f"Session with id '{session}' not found.")


def test_state_stays_with_its_session(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    [first] = said(http, session, "One.", state={"a": 1, "b": 1})
    [second] = said(http, session, "Two.", state={"b": 2})
    assert (first["state"], second["state"]) == ({"a": 1, "b": 1}, {"a": 1, "b": 2})
    assert http.get(f"/v1/sessions/{session}").json()["state"] == {"a": 1, "b": 2}


def test_messages_with_calls_and_results_stay_whole(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="up/tools")
    [called] = said(http, session, "Weather?")
    [call, other] = called["output"]["tool_calls"]
    results = [
        {"role": "tool", "tool_call_id": c["id"], "content": f"{n} degrees"} for n, c in enumerate((call, other))
    ]
    answer = http.post(f"/v1/sessions/{session}/generate", json={"input": {"messages": results}, "model": "up/answer"})
    assert answer.status_code == 200, answer.text
    _, calls, *told = sent(upstream)
    assert [c["id"] for c in calls["tool_calls"]] == [call["id"], other["id"]]
    assert [(m["role"], m["tool_call_id"]) for m in told] == [("tool", call["id"]), ("tool", other["id"])]
