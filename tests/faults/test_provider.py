"""The fault provider does what its faults are named for."""

import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.faults.cases import MESSAGES, question
from tests.faults.dialects import OTHER_TEXT, TEXT
from tests.faults.provider import Faults
from tests.faults.proxy import proxy
from tests.faults.scripts import SCRIPTS, fault_of, script_of
from tests.http import CHAT, text_of, until


@pytest.fixture
def http(faulty: Faults) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=faulty.url, timeout=5) as client:
        yield client


def _continued(http: httpx2.Client, path: str, model: str, given: str) -> httpx2.Response:
    body = question(path, model, streamed=False)
    body["messages"].append({"role": "assistant", "content": given})
    return http.post(path, json=body)


def test_an_answer_is_the_same_in_both_dialects_whole_and_in_pieces(http: httpx2.Client) -> None:
    assert http.post(CHAT, json=question(CHAT, "ok", streamed=False)).json()["choices"][0]["message"]["content"] == TEXT
    assert text_of(http.post(CHAT, json=question(CHAT, "ok", streamed=True)).content) == TEXT
    whole = http.post(MESSAGES, json=question(MESSAGES, "ok", streamed=False)).json()
    assert whole["content"][0]["text"] == TEXT
    assert b" w60" in http.post(MESSAGES, json=question(MESSAGES, "ok", streamed=True)).content


@pytest.mark.parametrize("given", ["w01", "w01 w02 w0", TEXT[:100].rstrip()])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_prefill_is_gone_on_from(http: httpx2.Client, path: str, given: str) -> None:
    body = _continued(http, path, "ok", given).json()
    text = body["choices"][0]["message"]["content"] if path == CHAT else body["content"][0]["text"]
    assert given + text == TEXT


def test_a_prefill_is_refused_ignored_or_contradicted(http: httpx2.Client) -> None:
    assert _continued(http, CHAT, "noprefill", "w01").status_code == 400
    assert _continued(http, MESSAGES, "ok", "w01 ").status_code == 400
    for model, text in (("restart", TEXT), ("other", OTHER_TEXT)):
        assert _continued(http, CHAT, model, "w01").json()["choices"][0]["message"]["content"] == text


def test_a_stream_is_cut_where_it_is_told(http: httpx2.Client) -> None:
    answer = http.post(CHAT, json=question(CHAT, "cut:40", streamed=True))
    assert text_of(answer.content) == TEXT[: TEXT.index(" w41")]


def test_faults_play_in_turns() -> None:
    assert [fault_of("500,429:1,ok", n, 0) for n in range(4)] == ["500", "429:1", "ok", "ok"]
    assert [fault_of("flap:2:1", n, 0) for n in range(4)] == ["500", "500", "ok", "500"]
    assert [fault_of("beat:1:2:cut:3", 0, s) for s in (0.5, 1.5, 2.9, 3.1)] == ["ok", "cut:3", "cut:3", "ok"]
    assert all(script_of(name) for name in SCRIPTS)
    assert script_of("unheard-of") is None


def test_a_control_call_sets_a_fault_and_takes_it_back(http: httpx2.Client, faulty: Faults) -> None:
    def status() -> int:
        return http.post(CHAT, json=question(CHAT, "ok@control", streamed=False)).status_code

    faulty.set("503", "ok@control")
    assert status() == 503
    faulty.set(None, "ok@control")
    assert status() == 200
    assert [record["number"] for record in faulty.seen("ok@control")] == [0, 1]


def test_it_tells_when_a_client_left(http: httpx2.Client, faulty: Faults) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        http.post(CHAT, json=question(CHAT, "silence@left", streamed=True), timeout=0.3)
    left = until(lambda: faulty.seen("silence@left")[0]["left"])
    assert left == pytest.approx(time.monotonic(), abs=3)


def test_a_proxy_refuses_and_swallows(faulty: Faults) -> None:
    body = question(CHAT, "ok", streamed=False)
    with proxy(faulty.port, ["latency:0.1", "refuse", "blackhole", "cut:300"]) as ports:
        urls = {fault: f"http://127.0.0.1:{port}{CHAT}" for fault, port in ports.items()}
        assert httpx2.post(urls["latency:0.1"], json=body).elapsed.total_seconds() > 0.2
        for fault, error in (
            ("refuse", httpx2.ConnectError),
            ("blackhole", httpx2.ReadTimeout),
            ("cut:300", httpx2.RemoteProtocolError),
        ):
            with pytest.raises(error):
                httpx2.post(urls[fault], json=body, timeout=0.5)
