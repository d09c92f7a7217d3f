"""Keys that may ask for some models, or be answered by some backends, only: every endpoint, every way around."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import speaking
from tests.http import CHAT, chat
from tests.process import Gateway, gateway
from tests.provider import Provider

KEYS: dict[str, dict[str, Any]] = {
    "cheap": {"models": ["cheap"]},
    "route": {"models": ["up/answer"]},
    "glob": {"models": ["small-*"]},
    "bare": {"models": ["fake"]},
    "all-of-up": {"models": ["up/*"]},
    "by-up": {"backends": ["up"]},
    "both": {"models": ["mixed"], "backends": ["other"]},
    "none": {"models": []},
    "nowhere": {"backends": []},
    "free": {},
}
SECRET = "other/answer"
"""What none of the narrow keys may reach, as it is addressed."""
ENDPOINTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"]},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/generate": {"input": {"prompt": "Hi"}},
    "/v1/images/generations": {"prompt": "Hi"},
}
EDITS = "/v1/images/edits"


def key(name: str) -> str:
    return f"restricted-{name}-key-canary-00"


@pytest.fixture(scope="module")
def restricted(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    to = {"kind": "openai", "base_url": running_provider.url, "api_key": "k"}
    tree: dict[str, Any] = {
        "auth": {
            "mode": "api_key",
            "keys": [{"name": n, "key": key(n), "scopes": ["inference", "models:read"], **k} for n, k in KEYS.items()],
        },
        "backends": {"up": to, "other": to, "speaks": to | {"responses": True}, "fake": {"kind": "fake"}},
        "models": {
            "auto": {"routes": ["other/answer"]},
            "cheap": {"routes": ["up/answer"], "retries": 0},
            "mixed": {"routes": ["other/answer", "up/answer"], "retries": 0},
            "falling": {"routes": ["up/status:500", "other/answer"], "retries": 0},
            "small-one": {"routes": ["up/answer"]},
            "small-*": {"routes": ["other/*"]},
            "tall-*": {"routes": ["other/*"]},
            "kept": {"routes": ["speaks/spoken"], "retries": 0},
            "by-kind": {"routes": {"text": ["up/answer"], "embedding": ["other/answer"]}},
        },
    }  # fmt: skip
    with gateway(tmp_path_factory.mktemp("restricted"), tree) as running:
        yield running


class Caller:
    def __init__(self, http: httpx2.Client, upstream: Provider) -> None:
        self.http = http
        self._upstream = upstream

    def asks(self, name: str, model: str | None, path: str = CHAT, **fields: Any) -> httpx2.Response:
        body = {**ENDPOINTS[path], **({} if model is None else {"model": model}), **fields}
        return self.http.post(path, json=body, headers={"x-api-key": key(name)})

    def refused(self, answer: httpx2.Response) -> None:
        """It was, in the words of its dialect, and nobody has been asked."""
        assert answer.status_code == 403, answer.text
        error = answer.json()["error"]
        if answer.request.url.path.startswith("/v1/messages"):
            assert (answer.json()["type"], error["type"]) == ("error", "permission_error")
        else:
            assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_allowed")
        assert not [x for x in self._upstream.seen if x.path != "/v1/models"], "somebody was asked"
        assert "x-gateway-backend" not in answer.headers


@pytest.fixture
def caller(restricted: Gateway, upstream: Provider) -> Iterator[Caller]:
    with speaking(restricted) as http:
        yield Caller(http, upstream)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("name", [name for name in KEYS if name != "free"])
def test_no_endpoint_leads_around_a_restriction(caller: Caller, path: str, name: str) -> None:
    for streamed in ({}, {"stream": True}):
        if name != "both":  # whose backend it is
            caller.refused(caller.asks(name, SECRET, path, **streamed))
        caller.refused(caller.asks(name, "tall-tale", path, **streamed))
        caller.refused(caller.asks(name, None, path, **streamed))
        caller.refused(caller.asks(name, "auto", path, **streamed))


@pytest.mark.parametrize("name", [name for name in KEYS if name != "free"])
def test_a_form_is_read_like_a_body(caller: Caller, name: str) -> None:
    files = {"image": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")}
    answer = caller.http.post(
        EDITS, data={"model": "tall-tale", "prompt": "Hi"}, files=files, headers={"x-api-key": key(name)}
    )
    caller.refused(answer)


@pytest.mark.parametrize(
    ("name", "model", "backend"),
    [
        ("cheap", "cheap", "up"),
        ("route", "up/answer", "up"),
        ("route", "cheap", "up"),
        ("route", "mixed", "up"),
        ("glob", "small-one", "up"),
        ("glob", "small-answer", "other"),
        ("all-of-up", "up/events:2", "up"),
        ("all-of-up", "mixed", "up"),
        ("by-up", "mixed", "up"),
        ("by-up", "up/answer", "up"),
        ("by-up", "by-kind", "up"),
        ("both", "mixed", "other"),
        ("free", SECRET, "other"),
        ("free", "mixed", "other"),
    ],
)
def test_who_may_is_answered_by_whom_they_may(
    caller: Caller, upstream: Provider, name: str, model: str, backend: str
) -> None:
    upstream.scripts["small-answer"] = told
    answer = caller.asks(name, model)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-backend"] == backend


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("cheap", "up/answer"),
        ("cheap", "mixed"),
        ("cheap", "cheap "),
        ("cheap", "CHEAP"),
        ("cheap", "cheap/"),
        ("cheap", "up/cheap"),
        ("cheap", "answer"),
        ("glob", "up/small-one"),
        ("glob", "x/small-one"),
        ("glob", "other/small-x"),
        ("route", "up/answer2"),
        ("route", "UP/answer"),
        ("all-of-up", "other/up/answer"),
        ("by-up", "small-x"),
        ("both", "other/answer"),
        ("both", "cheap"),
        ("none", "cheap"),
        ("nowhere", "cheap"),
    ],
)
def test_names_that_are_nearly_right_are_not(caller: Caller, upstream: Provider, name: str, model: str) -> None:
    answer = caller.asks(name, model)
    assert answer.status_code in (403, 404), answer.text
    assert not [x for x in upstream.seen if x.path != "/v1/models"], "somebody was asked"


def test_the_name_that_is_checked_is_the_name_that_is_asked(caller: Caller, upstream: Provider) -> None:
    """Two names in one body: a reader that takes the other one would be led around."""
    for first, second in (("cheap", SECRET), (SECRET, "cheap")):
        body = b'{"model":%b,"messages":[{"role":"user","content":"Hi"}],"model":%b}' % (
            json.dumps(first).encode(),
            json.dumps(second).encode(),
        )
        answer = caller.http.post(
            CHAT, content=body, headers={"x-api-key": key("cheap"), "content-type": "application/json"}
        )
        if answer.status_code == 200:
            assert answer.headers["x-gateway-backend"] == "up"
            assert upstream.seen[-1].body.count(b'"model"') == 1
        else:
            assert answer.status_code in (400, 403), answer.text
    escaped = b'{"m\\u006fdel":"other/answer","messages":[{"role":"user","content":"Hi"}],"model":"cheap"}'
    answer = caller.http.post(
        CHAT, content=escaped, headers={"x-api-key": key("cheap"), "content-type": "application/json"}
    )
    assert answer.status_code in (400, 403) or upstream.seen[-1].body.count(b"other/answer") == 0, answer.text


def test_nothing_falls_back_to_where_a_key_may_not_go(caller: Caller) -> None:
    assert caller.asks("free", "falling").status_code == 200
    for name in ("by-up", "all-of-up"):
        answer = caller.asks(name, "falling")
        assert (answer.status_code, answer.headers["x-gateway-backend"]) == (502, "up")
        assert answer.headers["x-gateway-attempts"] == "1"


def test_a_refusal_is_explained_without_telling_where_the_name_leads(caller: Caller) -> None:
    headers = {"x-api-key": key("cheap"), "x-gateway-explain": "true"}
    answer = caller.http.post(CHAT, json=chat("tall-tale"), headers=headers)
    caller.refused(answer)
    told = json.loads(answer.headers["x-gateway-explain"])
    assert (told["reason"], told["routes"]) == ("not for this API key", [])


def test_a_kind_of_task_leads_elsewhere_and_is_checked_there(caller: Caller) -> None:
    caller.refused(caller.asks("by-up", "by-kind", "/v1/embeddings"))


def test_headers_and_fields_widen_nothing(caller: Caller) -> None:
    for mode in ("auto", "free_only", "local_only", "commercial_only"):
        answer = caller.http.post(
            CHAT,
            json=chat("tall-x", models=["cheap", SECRET], route="fallback", fallback=SECRET),
            headers={"x-api-key": key("cheap"), "x-gateway-selection-mode": mode, "x-gateway-model": SECRET},
        )
        caller.refused(answer)
        caller.refused(caller.asks("cheap", "tall-x", "/v1/generate", selection_mode=mode))


def test_models_are_listed_that_may_be_asked_for(caller: Caller, upstream: Provider) -> None:
    def listed(name: str, **headers: str) -> set[str]:
        answer = caller.http.get("/v1/models", headers={"x-api-key": key(name), **headers})
        return {one["id"] for one in answer.json()["data"]}

    everything = listed("free")
    assert {"cheap", "mixed", "kept", "small-one", "fake/fake"} <= everything
    assert listed("cheap") == listed("cheap", **{"anthropic-version": "2023-06-01"}) == {"cheap"}
    assert listed("glob") == {"small-one"}
    assert listed("none") == listed("nowhere") == set()
    assert {one.partition("/")[0] for one in listed("by-up") if "/" in one} == {"up"}
    assert {"cheap", "mixed", "small-one", "by-kind", "falling"} <= listed("by-up")
    assert not {"kept", "auto"} & listed("by-up")
    upstream.forget()
    # What is listed can be asked for, what is not cannot: the list and the router agree.
    for name in ("cheap", "route", "glob", "by-up"):
        mine = listed(name)
        for model in sorted(everything):
            if model.startswith(("speaks/", "fake/", "kept", "falling")):
                continue
            status = caller.asks(name, model).status_code
            assert (status == 403) is (model not in mine), (name, model, status)


def test_a_key_for_a_bare_name_sees_the_model_that_it_means(caller: Caller) -> None:
    headers = {"x-api-key": key("bare")}
    assert [one["id"] for one in caller.http.get("/v1/models", headers=headers).json()["data"]] == ["fake/fake"]
    for name in ("fake", "fake/fake"):
        assert caller.http.get(f"/v1/models/{name}", headers=headers).json()["id"] == "fake/fake"
        assert caller.asks("bare", name).status_code == 200
    advice = caller.http.get("/v1/schema", headers=headers).json()["guidance"]
    assert {one["model"] for one in advice} <= {"fake/fake", None}
    assert caller.asks("bare", "up/fake").status_code in (403, 404), "another backend's"


def test_a_model_that_is_not_listed_is_not_there(caller: Caller) -> None:
    for name in ("cheap", "by-up", "none"):
        answers = [
            caller.http.get(f"/v1/models/{model}", headers={"x-api-key": key(name)}) for model in ("kept", "absentee")
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text.replace("kept", "absentee") == answers[1].text


def test_what_another_key_has_begun_cannot_be_gone_on_with(caller: Caller, upstream: Provider) -> None:
    """Of one tenant, but of a backend that is not theirs; kept here or at the provider."""
    upstream.scripts["spoken"] = spoken
    here = caller.asks("free", "cheap", "/v1/responses").json()["id"]
    there = caller.asks("free", "kept", "/v1/responses").json()["id"]
    asked = len(upstream.seen)
    for name, previous in (("by-up", there), ("none", here), ("cheap", there)):
        answer = caller.asks(name, "kept", "/v1/responses", previous_response_id=previous)
        assert answer.status_code == 403, (name, answer.text)
    answer = caller.asks("by-up", "cheap", "/v1/responses", previous_response_id=there)
    assert answer.status_code == 400, answer.text
    for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
        answer = caller.http.request(method, f"/v1/responses/{there}{path}", headers={"x-api-key": key("by-up")})
        assert answer.status_code == 403, (method, path, answer.text)
    assert len(upstream.seen) == asked
    assert (
        caller.asks("by-up", "mixed", "/v1/responses", previous_response_id=here).headers["x-gateway-backend"] == "up"
    )


async def told(x: Exchange) -> None:
    x.answer(wire.completion("told"))


async def spoken(x: Exchange) -> None:
    x.answer(wire.fixture("responses_provider.json"))
