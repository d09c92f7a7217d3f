"""Loading and unloading a real local model over HTTP, and what requests meet with meanwhile."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from tests.gateway.conftest import ADMIN_KEY, AUTH, READER_KEY, speaking
from tests.http import CHAT, chat, error_of, events_of, in_band_error, metric, text_of, until
from tests.process import Gateway, gateway

MODEL = "local/smollm2-135m-instruct"
PINNED = "local/all-minilm-l6-v2"
WITHIN_S = 1.0
LONG = "word " * 3000
"""A prompt that takes seconds to read."""
TREE: dict[str, Any] = {
    "auth": AUTH,
    "backends": {
        "local": {"kind": "local", "threads": 1, "slots": 1, "n_batch": 64, "pin": ["all-minilm-l6-v2"]},
        "fake": {"kind": "fake"},
    },
    "models": {
        "mine": {"routes": [MODEL]},
        "either": {"routes": [MODEL, "fake/fake"], "while_loading": "fallback"},
        "patient": {"routes": [MODEL, "fake/fake"]},
    },
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    prelude = "import gateway.api.reply; gateway.api.reply.KEEP_ALIVE_S = 0.05"
    with gateway(tmp_path_factory.mktemp("loading"), TREE, prelude=prelude) as running:
        yield running


@pytest.fixture(scope="module")
def root(house: Gateway) -> Iterator[httpx2.Client]:
    """Speaks to it as an administrator."""
    with speaking(house, {"x-api-key": ADMIN_KEY}) as http:
        yield http


@pytest.fixture
def out(root: httpx2.Client) -> httpx2.Client:
    """The same, the text model not in memory."""
    assert root.post(f"/v1/models/{MODEL}/unload").json()["status"] == "unloaded"
    return root


@pytest.fixture
def ready(root: httpx2.Client) -> httpx2.Client:
    """The same, the text model in memory."""
    assert root.post(f"/v1/models/{MODEL}/load").json()["status"] == "ready"
    return root


def status(http: httpx2.Client, model: str = MODEL) -> dict[str, Any]:
    told: dict[str, Any] = http.get(f"/v1/models/{model}/status").json()
    return told


def shown(http: httpx2.Client, id_: str) -> dict[str, Any]:
    told: dict[str, Any] = http.get(f"/v1/requests/{id_}").json()
    return told


def names(feed: str) -> list[str]:
    return [line.removeprefix("event: ") for line in feed.splitlines() if line.startswith("event: ")]


def test_a_model_is_loaded_and_unloaded(out: httpx2.Client) -> None:
    told = status(out)
    assert (told["id"], told["object"], told["status"], told["pid"]) == (MODEL, "model.status", "unloaded", None)
    loaded = out.post(f"/v1/models/{MODEL}/load").json()
    assert (loaded["status"], loaded["running"], loaded["waiting"], loaded["slots"]) == ("ready", 0, 0, 1)
    assert loaded["memory_bytes"] > 50e6
    assert loaded["load_s"] > 0
    assert loaded["loaded_at"].endswith("Z")
    assert loaded["idle_unload_at"] > loaded["loaded_at"]
    listed = out.get("/v1/models/loaded").json()
    assert {one["id"] for one in listed["data"]} == {MODEL, PINNED}
    assert listed["pools"]["local"]["memory_bytes"] >= loaded["memory_bytes"]
    assert listed["pools"]["local"]["memory_max_bytes"] > listed["pools"]["local"]["memory_bytes"]
    statuses = {model["id"]: model["status"] for model in out.get("/v1/models").json()["data"]}
    assert statuses[MODEL] == statuses["mine"] == "ready"
    assert metric(str(out.base_url), "pluggably_local_model_memory_bytes", model="smollm2-135m-instruct") > 50e6
    assert out.post(f"/v1/models/{MODEL}/unload").json()["status"] == "unloaded"
    assert out.get(f"/v1/models/{MODEL}").json()["status"] == "unloaded"
    acts = out.get("/v1/audit", params={"actor": "root", "limit": 2}).json()["data"]
    assert [(act["action"], act["target"]) for act in acts] == [("model.unload", MODEL), ("model.load", MODEL)]


@pytest.mark.parametrize("id_", [MODEL, MODEL.replace("/", "%2F"), "mine", "smollm2-135m-instruct", "either"])
def test_a_model_goes_by_all_its_names(root: httpx2.Client, id_: str) -> None:
    assert root.get(f"/v1/models/{id_}/status").json()["id"] == MODEL


@pytest.mark.parametrize(
    ("path", "expected", "code"),
    [
        ("fake%2Ffake/load", 400, "not_local"),
        ("nothing/load", 404, "model_not_found"),
        ("local/nothing/unload", 404, "model_not_found"),
        ("local%2Fnothing%2Fload", 405, None),
        ("mine/begin", 405, None),
        ("load", 405, None),
        (f"{MODEL}/load?wait=perhaps", 400, "invalid_value"),
        ("mine/load?modality=smell", 400, "invalid_value"),
    ],
)
def test_what_cannot_be_loaded_is_refused(root: httpx2.Client, path: str, expected: int, code: str | None) -> None:
    refused = root.post(f"/v1/models/{path}")
    assert (refused.status_code, error_of(refused)["code"]) == (expected, code)


def test_a_body_is_held_to_its_fields(root: httpx2.Client) -> None:
    refused = root.post("/v1/models/mine/unload", json={"force": "yes"})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "force")


def test_who_does_not_wait_is_answered_at_once(out: httpx2.Client) -> None:
    begun = out.post("/v1/models/mine/load", json={"wait": False})
    assert begun.status_code == 202
    assert begun.json()["status"] in ("queued", "loading")
    until(lambda: status(out)["status"] == "ready", 20.0)
    assert out.post("/v1/models/mine/unload?wait=false").status_code == 202
    until(lambda: status(out)["status"] == "unloaded")


def test_what_is_pinned_is_there_from_the_start_and_stays(root: httpx2.Client) -> None:
    until(lambda: status(root, PINNED)["status"] == "ready", 20.0)
    for query in ("", "?wait=false"):
        refused = root.post(f"/v1/models/{PINNED}/unload{query}")
        assert (refused.status_code, error_of(refused)["code"]) == (409, "conflict")
    assert root.post(f"/v1/models/{PINNED}/unload", json={"force": True}).json()["status"] == "unloaded"
    assert root.post(f"/v1/models/{PINNED}/load").json()["pinned"]


def test_a_stream_is_kept_awake_while_its_model_loads_and_tells_what_it_waited_for(out: httpx2.Client) -> None:
    id_ = "loads-and-streams"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            out.post, CHAT, json=chat("mine", stream=True, max_tokens=5), headers={"x-request-id": id_}
        )
        until(lambda: shown(out, id_).get("status") == "loading")
        feed = out.get(f"/v1/requests/{id_}/events").text
        got = answer.result()
    assert names(feed)[0] == "loading"
    assert names(feed)[-2:] == ["running", "done"]
    assert got.content.startswith(b": keep-alive\n\n")
    pieces = got.content.removesuffix(b"\n\n").split(b"\n\n")
    assert all(piece == b": keep-alive" or piece.startswith(b"data: ") for piece in pieces), "inside an event"
    assert text_of(got.content)
    assert events_of(got.content)[-1] == b"[DONE]"
    told = shown(out, id_)
    assert told["timing"]["load_s"] > 0.1
    assert told["usage"]["output_tokens"] == 5


def test_anthropics_stream_is_kept_awake_in_its_own_way(out: httpx2.Client) -> None:
    got = out.post("/v1/messages", json=chat("mine", stream=True, max_tokens=5))
    pings, _, rest = got.content.partition(b"event: message_start")
    assert pings.startswith(b"event: ping\n")
    assert b"event: message_stop" in rest


def test_a_whole_answer_tells_in_its_headers_how_long_its_model_loaded(out: httpx2.Client) -> None:
    sdk = openai.OpenAI(base_url=f"{out.base_url}/v1", api_key=ADMIN_KEY, max_retries=0, http_client=out)
    answer = sdk.chat.completions.with_raw_response.create(
        model="mine", max_tokens=5, messages=[{"role": "user", "content": "Hello."}]
    )
    assert float(answer.headers["x-gateway-load-s"]) > 0.1
    assert answer.headers["x-gateway-queue-position"] == "0"
    again = out.post(CHAT, json=chat("mine", max_tokens=5))
    assert not {"x-gateway-load-s", "x-gateway-queue-position"} & set(again.headers)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_cancelled_while_its_model_loads(out: httpx2.Client, stream: bool) -> None:
    id_ = f"cancelled-loading-{stream}"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(out.post, CHAT, json=chat("mine", stream=stream), headers={"x-request-id": id_})
        until(lambda: shown(out, id_).get("status") == "loading")
        began = time.monotonic()
        assert out.post(f"/v1/requests/{id_}/cancel").json()["status"] == "cancelled"
        got = answer.result()
        assert time.monotonic() - began < WITHIN_S
    error = in_band_error(got.content) if got.status_code == 200 else error_of(got)
    assert error["code"] == "request_cancelled"
    told = status(out)
    assert (told["running"], told["waiting"]) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [LONG, "Tell a long story."], ids=["reading", "writing"])
def test_a_request_is_cancelled_in_its_slot(ready: httpx2.Client, words: str, stream: bool) -> None:
    id_ = f"cancelled-in-{len(words)}-{stream}"
    body = chat("mine", words, stream=stream, max_tokens=2000)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ready.post, CHAT, json=body, headers={"x-request-id": id_})
        until(lambda: shown(ready, id_).get("timing", {}).get("total_s", 0) > 0.4)
        assert status(ready)["status"] == "busy"
        began = time.monotonic()
        ready.post(f"/v1/requests/{id_}/cancel")
        answer.result()
        assert status(ready)["running"] == 0
        assert time.monotonic() - began < WITHIN_S
    assert shown(ready, id_)["status"] == "cancelled"


def test_a_request_that_waits_for_a_slot_is_cancelled_and_the_one_in_it_is_not(ready: httpx2.Client) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(
            ready.post, CHAT, json=chat("mine", max_tokens=60, stream=True), headers={"x-request-id": "in-the-slot"}
        )
        until(lambda: status(ready)["running"] == 1)
        second = pool.submit(ready.post, CHAT, json=chat("mine"), headers={"x-request-id": "in-the-queue"})
        until(lambda: shown(ready, "in-the-queue").get("status") == "queued")
        assert shown(ready, "in-the-queue")["queue_position"] == 0
        assert status(ready)["waiting"] == 1
        ready.post("/v1/requests/in-the-queue/cancel")
        assert second.result().status_code == 499
        assert status(ready)["waiting"] == 0
        assert events_of(first.result().content)[-1] == b"[DONE]"


def test_unloading_lets_finish_what_runs(ready: httpx2.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ready.post, CHAT, json=chat("mine", max_tokens=40, stream=True))
        until(lambda: status(ready)["running"] == 1)
        began = ready.post("/v1/models/mine/unload?wait=false")
        assert (began.status_code, began.json()["status"]) == (202, "draining")
        assert events_of(answer.result().content)[-1] == b"[DONE]"
    until(lambda: status(ready)["status"] == "unloaded")


def test_another_route_answers_while_the_model_loads(out: httpx2.Client) -> None:
    first = out.post(CHAT, json=chat("either"), headers={"x-gateway-explain": "true"})
    assert first.headers["x-gateway-model"] == "fake/fake"
    assert first.headers["x-gateway-attempts"] == "1"
    outcomes = [one["outcome"] for one in json.loads(first.headers["x-gateway-explain"])["routes"]]
    assert outcomes == ["loading", "answered"]
    until(lambda: status(out)["status"] == "ready", 20.0)
    assert out.post(CHAT, json=chat("either", max_tokens=3)).headers["x-gateway-model"] == MODEL


@pytest.mark.parametrize(
    ("name", "header", "answers"), [("either", "wait", MODEL), ("patient", "fallback", "fake/fake")]
)
def test_a_request_says_itself_whether_it_waits(out: httpx2.Client, name: str, header: str, answers: str) -> None:
    got = out.post(CHAT, json=chat(name, max_tokens=3), headers={"x-gateway-while-loading": header})
    assert got.headers["x-gateway-model"] == answers


def test_another_word_for_it_is_refused(root: httpx2.Client) -> None:
    refused = root.post(CHAT, json=chat("either"), headers={"x-gateway-while-loading": "hurry"})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "x-gateway-while-loading")


def test_only_an_operator_sees_what_the_engine_said(house: Gateway, ready: httpx2.Client) -> None:
    os.kill(status(ready)["pid"], signal.SIGKILL)
    failure: dict[str, Any] = until(lambda: status(ready)["failure"])
    assert failure["log_tail"]
    assert "SIGKILL" in failure["reason"]
    with speaking(house, {"x-api-key": READER_KEY}) as reader:
        told = status(reader)
        assert (told["failure"]["log_tail"], told["pid"]) == (None, None)
        assert told["failure"]["reason"] == failure["reason"]
        assert reader.post("/v1/models/mine/load").status_code == 403
    until(lambda: ready.post("/v1/models/mine/load").status_code == 200, 20.0)
    assert status(ready)["failure"] is None
    assert metric(house.url, "pluggably_local_acts_total", act="crashes") >= 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"model": "local/tiny-shapes", "prompt": "a red circle", "n": 4}),
        ("/v1/3d/generations", {"model": "local/tiny-3d", "prompt": "a chair"}),
    ],
)
def test_a_picture_or_a_mesh_tells_its_steps_and_is_cancelled_between_them(
    root: httpx2.Client, path: str, body: dict[str, Any]
) -> None:
    watched, cancelled = f"steps-of-{path[4]}", f"cancelled-{path[4]}"
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(root.post, path, json=body, headers={"x-request-id": watched})
        until(lambda: "status" in shown(root, watched))
        feed = root.get(f"/v1/requests/{watched}/events").text
        assert whole.result().status_code == 200
        assert names(feed)[-1] == "done"
        assert "progress" in names(feed)
        broken = pool.submit(root.post, path, json=body, headers={"x-request-id": cancelled})
        until(lambda: shown(root, cancelled).get("progress"))
        began = time.monotonic()
        assert root.post(f"/v1/requests/{cancelled}/cancel").json()["status"] == "cancelled"
        assert error_of(broken.result())["code"] == "request_cancelled"
        until(lambda: status(root, str(body["model"]))["running"] == 0)
        assert time.monotonic() - began < WITHIN_S
