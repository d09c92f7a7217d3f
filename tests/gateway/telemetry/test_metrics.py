"""What Prometheus reads: both formats, figures that operators need, labels without anybody's own words."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.telemetry.metrics import Metrics
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, READER_KEY, config, speaking
from tests.http import CHAT, chat, metric, until
from tests.process import ROOT, Gateway, gateway
from tests.provider import Provider

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""What Prometheus itself sends."""
DASHBOARD = ROOT / "deploy/grafana/pluggably.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
NAMES = re.compile(r"\b(?:pluggably|process)_[a-z_]+")
MATCHERS = re.compile(r"\b((?:pluggably|process)_[a-z_]+)\{([^}]*)\}")
WITHOUT_SAMPLES = {"pluggably_places", "pluggably_waiting", "pluggably_local_models"}
"""Of backends that this house has not: their labels cannot be seen."""
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def families(http: httpx2.Client, accept: str = PROMETHEUS) -> dict[str, Metric]:
    answer = http.get("/metrics", headers={"accept": accept})
    read: Any = read_openmetrics if "openmetrics" in answer.headers["content-type"] else read_text
    return {family.name: family for family in read(answer.text)}


def test_openmetrics_is_for_those_who_accept_it(open_client: httpx2.Client) -> None:
    for accept, kind in ((PROMETHEUS, OPENMETRICS), ("*/*", "text/plain; version=0.0.4; charset=utf-8")):
        answer = open_client.get("/metrics", headers={"accept": accept})
        assert answer.headers["content-type"] == kind
        assert answer.text.endswith("# EOF\n") is (kind == OPENMETRICS)
    both = [{s.name for f in families(open_client, accept).values() for s in f.samples} for accept in (PROMETHEUS, "")]
    assert both[0] == both[1]


def test_figures_name_a_request(client: httpx2.Client) -> None:
    id_ = client.post(CHAT, json=chat("up/answer", stream=True), headers={"x-request-id": "of-this-test"})
    assert id_.headers["x-request-id"] == "of-this-test"
    found = families(client)
    for name, label in (
        ("pluggably_request_seconds", ("route", CHAT)),
        ("pluggably_first_token_seconds", ("backend", "up")),
    ):
        marks = [s.exemplar for s in found[name].samples if s.labels.get(label[0]) == label[1] and s.exemplar]
        assert {"request_id": "of-this-test"} in [mark.labels for mark in marks]
        assert all(0 < mark.value < 60 for mark in marks)


def test_a_request_with_a_long_name_is_counted_like_others(client: httpx2.Client) -> None:
    before = metric(str(client.base_url).rstrip("/"), "pluggably_request_seconds_count", route=CHAT)
    client.post(CHAT, json=chat("up/answer"), headers={"x-request-id": "x" * 128})
    assert metric(str(client.base_url).rstrip("/"), "pluggably_request_seconds_count", route=CHAT) == before + 1


def test_labels_stay_few_whatever_clients_say(client: httpx2.Client) -> None:
    def labels() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(s.name, frozenset(s.labels.items())) for f in families(client).values() for s in f.samples}

    hostile = [
        'made-up"} 1\nx{y="',
        "made-up-\u2028",
        "up/made-up-\\",
        "nowhere/" + "made-up" * 100,
        "made-up\x00",
        "once-made-up",
    ]

    def say() -> None:
        for name in hostile:
            client.post(CHAT, json=chat(name))
            client.post("/v1/generate", json={"model": name, "input": {"prompt": "x"}})
            client.post(
                CHAT, json=chat("up/answer"), headers={"x-request-id": "made-up", "authorization": "Bearer made-up"}
            )
            client.get("/made-up/" + str(len(name)))
        client.request("MADE-UP", CHAT)

    say()
    before = labels()
    assert not [where for where in before if "made-up" in str(where)]
    hostile = [name + "2" for name in hostile]
    say()
    assert labels() == before


def test_who_may_not_is_counted_by_kind(client: httpx2.Client, anonymous: httpx2.Client, house: Gateway) -> None:
    def count(code: str) -> float:
        return metric(house.url, "pluggably_auth_failures_total", code=code)

    before = count("invalid_api_key"), count("insufficient_scope")
    anonymous.post(CHAT, json=chat("up/answer"))
    anonymous.post(CHAT, json=chat("up/answer"), headers={"authorization": "Bearer wrong"})
    anonymous.post(CHAT, json=chat("up/answer"), headers={"authorization": f"Bearer {READER_KEY}"})
    client.post(CHAT, json=chat("once-status:401"))
    assert (count("invalid_api_key"), count("insufficient_scope")) == (before[0] + 2, before[1] + 1)


@pytest.fixture
def operated(upstream: Provider, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with one place at its backend, a limit, and a breaker that opens at once."""
    tree = config(upstream.url)
    tree["backends"]["up"] |= {"concurrent": 1}
    tree["models"] = {"flaky": {"routes": ["up/status:500"], "retries": 0}, "fine": {"routes": ["up/answer", "fake/*"]}}
    tree["breaker"] = {"failures": 1, "cooldown_s": 600, "cooldown_max_s": 600}
    tree["limits"] = {"default": {"requests_per_minute": 4}}
    with gateway(tmp_path, tree, prelude="import gateway.app; gateway.app.RELOAD_S = 0.05") as running:
        yield running


def test_what_an_operator_needs_is_there(operated: Gateway) -> None:
    with speaking(operated) as http:
        url = operated.url
        assert metric(url, "pluggably_build_info") == 1
        assert metric(url, "pluggably_places", backend="up") == 1
        assert metric(url, "pluggably_route_state", model="fine", route="up/answer", state="closed") == 1
        http.post(CHAT, json=chat("flaky"))
        assert metric(url, "pluggably_breakers_open", backend="up") == 1
        assert metric(url, "pluggably_route_state", model="flaky", route="up/status:500", state="open") == 1
        with http.stream("POST", CHAT, json=chat("up/events:40:0.1", stream=True)) as slow:
            assert slow.status_code == 200, slow.read()
            pieces = slow.iter_bytes()
            assert next(pieces)
            assert metric(url, "pluggably_backend_in_flight", backend="up") == 1
            assert metric(url, "pluggably_in_flight") == 2
            with pytest.raises(httpx2.TimeoutException):
                httpx2.post(url + CHAT, json=chat("up/answer"), timeout=0.5, verify=False)
        until(lambda: metric(url, "pluggably_backend_in_flight", backend="up") == 0)
        assert http.post(CHAT, json=chat("up/answer")).status_code == 200
        assert metric(url, "pluggably_queue_seconds_count", backend="up") >= 1
        assert metric(url, "pluggably_limit_refusals_total") == 0
        assert http.post(CHAT, json=chat("up/answer")).status_code == 429
        assert metric(url, "pluggably_limit_refusals_total", code="rate_limit_exceeded") == 1
        until(lambda: metric(url, "pluggably_usage_rows_queued") == 0)
        assert metric(url, "pluggably_usage_rows_dropped_total") == 0
        assert metric(url, "process_resident_memory_bytes") > 1e7

        path = operated.folder / "config.yaml"
        tree = msgspec.yaml.decode(path.read_bytes())
        del tree["models"]["flaky"], tree["backends"]["dead"]
        for text, outcome in (("nonsense: 1", "refused"), (msgspec.yaml.encode(tree).decode(), "accepted")):
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").replace(path)
            until(lambda outcome=outcome: metric(url, "pluggably_config_reloads_total", outcome=outcome) == 1)  # type: ignore[misc]
        text = http.get("/metrics").text
        assert 'model="flaky"' not in text, "what the configuration has dropped is gone"
        assert 'pluggably_breakers_open{backend="dead"}' not in text


def _expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_bytes())["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    groups = msgspec.yaml.decode(ALERTS.read_bytes())["groups"]
    return shown + [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("expression", _expressions())
def test_dashboards_and_alerts_ask_for_what_there_is(expression: str, client: httpx2.Client) -> None:
    for pair in ("()", "{}", "[]"):
        assert expression.count(pair[0]) == expression.count(pair[1])
    there = _there(client)
    names = set(NAMES.findall(expression))
    assert names or expression.startswith("up{")
    assert names <= set(there)
    if any(not there[name] and name in WITHOUT_SAMPLES for name in names):
        return
    labels = {label for name in names for label in there[name]} | {"instance", "job", "le"}
    for _, matchers in MATCHERS.findall(expression):
        assert {m.partition("=")[0].strip(" ~!") for m in matchers.split(",") if m} <= labels
    for grouping in GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels


def _there(client: httpx2.Client) -> dict[str, frozenset[str]]:
    """The names that /metrics has, whether they have samples yet or not, and their labels, as far as these are seen."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
    declared = {
        metric._name: metric._labelnames for metric in vars(Metrics()).values() if hasattr(metric, "_labelnames")
    }
    there = {}
    for family in families(client).values():
        labels = frozenset(label for sample in family.samples for label in sample.labels)
        for suffix in suffixes.get(family.type, ("",)):
            there[family.name + suffix] = labels | frozenset(declared.get(family.name, ()))
    return there


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_bytes())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert [v["type"] for v in board["templating"]["list"]] == ["datasource", "query"]
    for panel in board["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
    places = [(p["gridPos"]["y"], p["gridPos"]["x"]) for p in board["panels"]]
    assert places == sorted(set(places))


def test_the_app_key_is_not_needed_on_loopback(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/metrics")
    assert answer.status_code == 200
    assert APP_KEY not in answer.text


@pytest.mark.parametrize("header", ["x-forwarded-for", "X-Real-IP", "forwarded", "via"])
@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics//", "/metrics%2f"])
def test_through_a_proxy_it_takes_an_administrator_on_loopback_as_well(
    anonymous: httpx2.Client, header: str, path: str
) -> None:
    carried = {header: "203.0.113.7"}
    assert anonymous.get(path, headers=carried).status_code == 401
    assert anonymous.get(path, headers=carried | {"x-api-key": APP_KEY}).status_code == 403
    assert anonymous.get(path, headers=carried | {"x-api-key": ADMIN_KEY}).status_code == 200


def test_in_local_mode_nobody_needs_a_key_for_it(open_client: httpx2.Client) -> None:
    assert open_client.get("/metrics", headers={"x-forwarded-for": "203.0.113.7"}).status_code == 200
