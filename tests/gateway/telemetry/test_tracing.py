"""What an OpenTelemetry collector is told of requests, and what requests notice of a collector: nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.gateway.conftest import APP_KEY, AUTH, config, speaking
from tests.http import CHAT, chat
from tests.otlp import CLIENT, SERVER, Collector, collector, garbled, overloaded, silent
from tests.process import Gateway, gateway
from tests.provider import Provider

OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{CALLER[0]}-{CALLER[1]}-01"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def running_traced(
    running_provider: Provider, receiver: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tree = config(running_provider.url) | {"auth": AUTH, "telemetry": {"otlp_endpoint": receiver.url}}
    with gateway(tmp_path_factory.mktemp("traced"), tree, OFTEN) as running:
        yield running


@pytest.fixture
def traced(running_traced: Gateway, upstream: Provider) -> Gateway:
    """A gateway that sends traces, before a provider that has not been asked anything yet."""
    return running_traced


@pytest.fixture
def http(traced: Gateway) -> Iterator[httpx2.Client]:
    with speaking(traced, {"authorization": f"Bearer {APP_KEY}"}) as client:
        yield client


def test_a_request_is_a_span_with_one_beneath_it_for_its_attempt(http: httpx2.Client, receiver: Collector) -> None:
    before = time.time()
    answer = http.post(CHAT, json=chat("up/answer", stream=True))
    span, [attempt] = receiver.request(answer.headers["x-request-id"])
    assert (span.name, span.kind, span.failed, span.parent_id) == (f"POST {CHAT}", SERVER, False, "")
    assert span.attributes == {
        "http.request.method": "POST", "http.route": CHAT, "http.response.status_code": 200, "url.scheme": "http",
        "user.id": "app", "pluggably.tenant": "acme", "pluggably.request_id": answer.headers["x-request-id"],
        "pluggably.requested_model": "up/answer", "pluggably.attempts": 1,
    }  # fmt: skip
    assert (attempt.name, attempt.kind, attempt.failed) == ("chat answer", CLIENT, False)
    assert (attempt.trace_id, attempt.parent_id) == (span.trace_id, span.span_id)
    waited_s = attempt.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < waited_s <= attempt.ended_s - attempt.began_s
    host, port = httpx2.URL(answer.url).host, attempt.attributes.pop("server.port")
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "answer",
        "gen_ai.output.type": "text", "gen_ai.request.stream": True, "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 12, "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 0, "gen_ai.response.finish_reasons": ["stop"],
        "server.address": host, "pluggably.backend": "up",
    }  # fmt: skip
    assert port > 0
    assert before - 1 <= span.began_s <= attempt.began_s < attempt.ended_s <= span.ended_s <= time.time() + 1
    assert span.resource["service.name"] == "pluggably"
    assert span.resource["service.version"]


def test_each_attempt_is_told_with_what_became_of_it(http: httpx2.Client, receiver: Collector) -> None:
    answer = http.post(CHAT, json=chat("after-status:500"))
    assert answer.status_code == 200
    span, [first, second] = receiver.request(answer.headers["x-request-id"])
    assert first.failed
    assert first.attributes["error.type"] == "upstream_error"
    assert first.attributes["gen_ai.request.model"] == "status:500"
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert not second.failed
    assert second.attributes["gen_ai.usage.output_tokens"] == 12
    assert first.ended_s <= second.began_s
    assert not span.failed


def test_a_failure_is_told(http: httpx2.Client, receiver: Collector) -> None:
    for body, status, code, failed, attempts in (
        (chat("once-status:500"), 502, "upstream_error", True, 1),
        (chat("once-tear:2", stream=True), 200, "upstream_unreachable", True, 1),
        (chat("nothing"), 404, "model_not_found", False, 0),
    ):
        answer = http.post(CHAT, json=body)
        span, tries = receiver.request(answer.headers["x-request-id"])
        assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (status, code)
        assert span.failed is failed, "a client's mistake is not the server's failure"
        assert len(tries) == attempts
        assert all(t.failed and t.attributes["error.type"] == code for t in tries)


def test_other_requests_are_spans_without_a_model(http: httpx2.Client, receiver: Collector) -> None:
    answer = http.get("/v1/models")
    span, tries = receiver.request(answer.headers["x-request-id"])
    assert (span.name, tries) == ("GET /v1/models", [])
    for _ in range(3):
        http.get("/health")
    last = http.get("/nowhere/secret-path")
    span, _ = receiver.request(last.headers["x-request-id"])
    assert span.name == "GET"
    assert not [s for s in receiver.spans if "/health" in s.name or "secret-path" in s.name]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/generate"])
def test_a_callers_trace_goes_on_and_reaches_the_provider(
    path: str, http: httpx2.Client, receiver: Collector, upstream: Provider
) -> None:
    body = (
        {"model": "up/answer", "input": {"prompt": "x"}} if path == "/v1/generate" else chat("up/answer", max_tokens=9)
    )
    answer = http.post(path, json=body, headers={"traceparent": PARENT, "tracestate": "vendor=a,other=b"})
    assert answer.status_code == 200, answer.text
    span, [attempt] = receiver.request(answer.headers["x-request-id"])
    assert (span.trace_id, span.parent_id, span.state) == (*CALLER, "vendor=a,other=b")
    got = upstream.asked().headers
    assert got["traceparent"] == f"00-{CALLER[0]}-{attempt.span_id}-01"
    assert "tracestate" not in got, "what other vendors noted is not for a provider"


def test_a_caller_that_does_not_record_is_respected(
    http: httpx2.Client, receiver: Collector, upstream: Provider, traced: Gateway
) -> None:
    answer = http.post(CHAT, json=chat("up/answer"), headers={"traceparent": PARENT[:-1] + "0"})
    assert upstream.asked().headers["traceparent"].startswith(f"00-{CALLER[0]}-")
    assert upstream.asked().headers["traceparent"].endswith("-00")
    id_ = answer.headers["x-request-id"]
    assert traced.wait_for("request_finished", request_id=id_)["trace_id"] == CALLER[0]
    receiver.request(http.get("/v1/models").headers["x-request-id"])
    assert not [s for s in receiver.spans if s.attributes.get("pluggably.request_id") == id_]


@pytest.mark.parametrize(
    "given",
    [
        "", "nonsense", PARENT.upper(), f"00-{'0' * 32}-{CALLER[1]}-01", f"00-{CALLER[0]}-{'0' * 16}-01",
        f"ff-{CALLER[0]}-{CALLER[1]}-01", PARENT + "-more", PARENT[:-1], "00" + PARENT,
    ],
)  # fmt: skip
def test_a_trace_that_is_none_is_not_taken(given: str, http: httpx2.Client, receiver: Collector) -> None:
    answer = http.get("/v1/models", headers={"traceparent": given})
    span, _ = receiver.request(answer.headers["x-request-id"])
    assert span.parent_id == ""
    assert span.trace_id != CALLER[0]


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known(http: httpx2.Client, receiver: Collector) -> None:
    answer = http.get("/v1/models", headers={"traceparent": f"01{PARENT[2:]}-more"})
    assert receiver.request(answer.headers["x-request-id"])[0].parent_id == CALLER[1]


def test_log_lines_name_their_trace(http: httpx2.Client, receiver: Collector, traced: Gateway) -> None:
    id_ = http.post(CHAT, json=chat("up/answer")).headers["x-request-id"]
    span, _ = receiver.request(id_)
    assert traced.wait_for("request_finished", request_id=id_)["trace_id"] == span.trace_id


def test_the_conventions_metrics_are_sent(http: httpx2.Client, receiver: Collector) -> None:
    http.post(CHAT, json=chat("up/answer", stream=True))
    http.post(CHAT, json=chat("once-status:500"))
    http.post(CHAT, json=chat("up/no-such-model-canary"))
    answered = {"gen_ai.request.model": "answer", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}

    def points(name: str, **attributes: str) -> list[tuple[dict[str, str], list[float], int]]:
        found = []
        for point in receiver.points.get(name, ()):
            said = {pair.key: pair.value.string_value for pair in point.attributes}
            if attributes.items() <= said.items():
                found.append((said, list(point.explicit_bounds), point.count))
        return found

    receiver.until(lambda: bool(points("gen_ai.client.token.usage", **answered)))
    assert {said["gen_ai.token.type"] for said, *_ in points("gen_ai.client.token.usage")} == {"input", "output"}
    assert points("gen_ai.client.token.usage")[0][1][:4] == [1, 4, 16, 64]
    [(_, bounds, _), *_] = points("gen_ai.client.operation.duration", **answered)
    assert bounds[:3] == [0.01, 0.02, 0.04]
    assert bounds[-1] == 81.92
    assert points("gen_ai.client.operation.time_to_first_chunk", **answered)
    receiver.until(lambda: bool(points("gen_ai.client.operation.duration", **{"error.type": "upstream_error"})))
    assert points("http.server.request.duration", **{"http.route": CHAT})
    models = {said["gen_ai.request.model"] for said, *_ in points("gen_ai.client.operation.duration")}
    assert "no-such-model-canary" not in models, "a client's word is told in a trace, and counted under no name"
    assert "_OTHER" in models


def test_a_collector_in_trouble_is_nobodys_business(running_provider: Provider, tmp_path: Path) -> None:
    with collector() as receiver:
        tree = config(running_provider.url) | {"telemetry": {"otlp_endpoint": receiver.url}}
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2", **OFTEN}
        with gateway(tmp_path, tree, small) as house, speaking(house) as client:
            for trouble in (garbled, overloaded, silent):
                receiver.answer, told = trouble, len(receiver.raw)
                for _ in range(10):
                    assert client.post(CHAT, json=chat("up/answer")).status_code == 200
                receiver.more_than(told)
            house.wait_for("telemetry_not_sent")
            began = time.monotonic()
            house.stop()
            assert time.monotonic() - began < 6
        assert len([x for x in house.log if x["event"] == "telemetry_not_sent"]) <= 3, "the rest is kept back"


def test_a_collector_that_is_away_is_nobodys_business(running_provider: Provider, tmp_path: Path) -> None:
    tree = config(running_provider.url) | {"telemetry": {"otlp_endpoint": "http://127.0.0.1:9"}}
    with gateway(tmp_path, tree, OFTEN) as house, speaking(house) as client:
        assert client.post(CHAT, json=chat("up/answer", stream=True)).status_code == 200
        told = house.wait_for("telemetry_not_sent")
        assert (told["collector"], told["reason"]) == ("127.0.0.1:9", "The connection to it was lost or refused.")
        began = time.monotonic()
        house.stop()
        assert time.monotonic() - began < 5


def test_what_is_left_is_sent_when_the_gateway_stops_to_whom_and_how_the_environment_says(
    running_provider: Provider, tmp_path: Path
) -> None:
    with collector() as receiver:
        tree = config(running_provider.url) | {"telemetry": {"otlp_endpoint": receiver.url + "/"}}
        environ = {
            "OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_METRIC_EXPORT_INTERVAL": "600000",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_SERVICE_NAME": "east",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=of%20the%20collector",
        }  # fmt: skip
        with gateway(tmp_path, tree, environ) as house, speaking(house) as client:
            client.post(CHAT, json=chat("up/answer"))
            wanted = client.post(CHAT, json=chat("up/answer"), headers={"traceparent": PARENT})
            assert receiver.raw == []
        span, _ = receiver.request(wanted.headers["x-request-id"])
        assert [s.name for s in receiver.spans if s.kind == SERVER] == [f"POST {CHAT}"]
        assert span.resource["service.name"] == "east"
        assert receiver.points["gen_ai.client.token.usage"][0].count == 2, "what is not recorded is counted"
        assert all(given["x-collector-key"] == "of the collector" for given in receiver.headers)


def test_nothing_of_it_is_loaded_where_nobody_wants_it(upstream: Provider, tmp_path: Path) -> None:
    # The provider SDKs import OpenTelemetry's interface themselves, where it is installed.
    tell = """
import atexit, json, sys
def tell():
    names = sorted(n for n in sys.modules if n.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "google")))
    print(json.dumps({"event": "modules", "names": names}), file=sys.stderr, flush=True)
atexit.register(tell)
"""
    with gateway(tmp_path, config(upstream.url), prelude=tell) as house, speaking(house) as client:
        answer = client.post(CHAT, json=chat("up/answer"), headers={"traceparent": PARENT})
        assert "trace_id" not in house.wait_for("request_finished", request_id=answer.headers["x-request-id"])
        assert "traceparent" not in upstream.asked().headers
        house.stop()
    assert house.wait_for("modules")["names"] == []
