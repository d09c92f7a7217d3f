"""Generating in sessions at its edges: calls without results, limits of what is given, and what refusals name."""

from pathlib import Path

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.sessions.test_generating import PIXEL
from tests.gateway.sessions.turns import ask, begun, events, listed, said, sent
from tests.http import error_of
from tests.process import gateway
from tests.provider import Provider

HALF_CALL = 3
"""Frames of `wire.tool_call` that end within the first call's arguments."""


def breaking(upstream: Provider, frames: int, word: str = "") -> None:
    """Have the model `torncall` end its answer after so many frames of two calls, a word before them."""

    async def torn(x: Exchange) -> None:
        x.begin()
        told = wire.tool_call(x.wants_usage)
        for frame in [told[0], *([wire.word(word, None)] if word else []), *told[1:frames]]:
            x.send(frame)
        x.end()

    upstream.scripts["torncall"] = torn


@pytest.mark.parametrize(("frames", "word"), [(HALF_CALL, ""), (HALF_CALL, "Let me see."), (6, "")])
def test_a_call_that_broke_off_is_not_told_again(
    http: httpx2.Client, upstream: Provider, frames: int, word: str
) -> None:
    breaking(upstream, frames, word)
    session = begun(http)
    got = events(ask(http, session, "Weather?", model="up/torncall", stream=True))
    assert got[-1][0] == "error"
    said(http, session, "Go on.", model="up/answer")
    assert not any("tool_calls" in message for message in sent(upstream))
    calls = [call["name"] for m in listed(http, session) for call in m.get("tool_calls") or ()]
    # The first of two is whole once the second has begun.
    assert calls == (["get_weather"] if frames > HALF_CALL else [])
    assert (word in str(sent(upstream))) == bool(word or frames)


def test_calls_that_nobody_answered_are_told_as_words(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="up/tools")
    said(http, session, "Weather?")
    said(http, session, "Never mind.", model="up/answer")
    _, called, asked = sent(upstream)
    assert "tool_calls" not in called
    assert "get_weather" in called["content"]
    assert asked["content"] == "Never mind."


def test_of_two_calls_the_answered_one_is_told(http: httpx2.Client, upstream: Provider) -> None:
    session = begun(http, model="up/tools")
    [answer] = said(http, session, "Weather?")
    call = answer["output"]["tool_calls"][0]["id"]
    messages = [
        {"role": "tool", "tool_call_id": call, "content": "21 degrees"},
        {"role": "user", "content": "And?"},
    ]
    body = {"input": {"messages": messages}, "model": "up/answer"}
    assert http.post(f"/v1/sessions/{session}/generate", json=body).status_code == 200
    told = sent(upstream)
    assert [m["role"] for m in told] == ["user", "assistant", "tool", "user"]
    assert [one["id"] for one in told[1]["tool_calls"]] == [call]


def test_state_is_held_to_its_limits(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"a": deep}
    for state in ({"a": "x" * 70_000}, deep):
        refused = ask(http, session, state=state)
        assert (refused.status_code, error_of(refused)["param"]) == (400, "state")
    said(http, session, "One.", state={"a": "x" * 40_000})
    refused = ask(http, session, state={"b": "x" * 40_000})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "state"), "with what is there already"


def test_the_model_that_is_asked_is_the_one_that_is_reported(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    again = f"/v1/sessions/{session}/regenerate"
    named = [ask(http, session).headers["x-request-id"], http.post(again, json={}).headers["x-request-id"]]
    for id_ in named:
        assert http.get(f"/v1/requests/{id_}").json()["model"] == "fake/fake"


def test_the_last_picture_is_the_newest_that_is_still_there(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    drawn = said(http, session, "one", "two", modality="image", parameters={"seed": 1})
    first, second = (answer["output"]["artifacts"][0]["id"] for answer in drawn)
    last = {"input": {"prompt": "bluer", "images": ["last"]}, "modality": "image"}
    path = f"/v1/sessions/{session}/generate"
    assert http.delete(f"/v1/artifacts/{second}", params={"force": True}).status_code in (200, 204)
    answer = http.post(path, json=last)
    assert answer.status_code == 200, answer.text
    assert [one["id"] for one in listed(http, session)[-2]["artifacts"]] == [first]
    for message in listed(http, session):
        for one in message["artifacts"] or ():
            http.delete(f"/v1/artifacts/{one['id']}", params={"force": True})
    refused = http.post(path, json=last)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "no_picture"), refused.text
    assert error_of(refused)["param"] == "input.images[0]"


def test_a_system_prompt_that_is_too_long_is_what_is_named(http: httpx2.Client) -> None:
    session = begun(http, model="small", system="word " * 1000)
    refused = ask(http, session)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "context_length_exceeded")
    assert error_of(refused)["param"] == "input"
    assert "'system'" in error_of(refused)["message"]


def test_an_answer_is_made_anew_without_a_body(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    said(http, session, "One.")
    answer = http.post(f"/v1/sessions/{session}/regenerate")
    assert answer.status_code == 200, answer.text


def test_a_picture_for_a_model_that_cannot_see_is_named_where_it_was_given(tmp_path: Path) -> None:
    tree = {"backends": {"local": {"kind": "local", "threads": 1}, "fake": {"kind": "fake"}}}
    with gateway(tmp_path, tree) as running, httpx2.Client(base_url=running.url, timeout=60) as http:
        session = begun(http, model="fake/fake")
        said(http, session, "One.", "Two.")
        body = {"input": {"prompt": "See?", "images": [PIXEL]}, "model": "local/smollm2-135m-instruct"}
        shown = [{"type": "text", "text": "See?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        spoken = body | {"input": {"messages": [{"role": "user", "content": shown}]}}
        path = f"/v1/sessions/{session}/generate"
        answers = [
            http.post(one[0], json=one[1]) for one in ((path, body), ("/v1/generate", body), ("/v1/generate", spoken))
        ]
        assert [answer.status_code for answer in answers] == [400] * 3, answers[-1].text
        assert [error_of(answer)["param"] for answer in answers] == [
            "input.images", "input.images", "input.messages[0].content",
        ]  # fmt: skip
