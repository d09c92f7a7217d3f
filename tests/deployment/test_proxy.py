"""The gateway behind the proxies of `deploy/`, as its clients meet it there."""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import anthropic
import httpx2
import openai
import psutil
import pytest

from tests.deployment.certificates import LOOPBACK, Authority
from tests.deployment.conftest import APP_KEY, config
from tests.deployment.proxies import binary, free_port, proxy
from tests.http import CHAT, chat, error_of, shaped, text_of
from tests.process import Gateway, gateway
from tests.provider import Provider

BODY_MAX = 33_554_432
METRICS = ("/metrics", "/metrics/", "/metrics//", "//metrics", "/metrics%2f", "/%6detrics", "/ready/../metrics")
"""Spellings that some reader of paths takes for the same."""


@pytest.fixture(scope="module")
def proxied(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url, {"allowed_hosts": ["localhost"]})
    with gateway(tmp_path_factory.mktemp("proxied"), tree) as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.skipif(not binary(name), reason=f"{name} is not installed"))
        for name in ("nginx", "caddy")
    ],
)
def url(
    request: pytest.FixtureRequest, proxied: Gateway, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with proxy(request.param, folder, proxied.port, authority.issue(*LOOPBACK)) as running:
        yield running


@pytest.fixture
def http(url: str, authority: Authority, upstream: Provider) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    with httpx2.Client(base_url=url, headers=headers, verify=authority.trusting(), timeout=60) as client:
        yield client


def test_the_sdks_work(url: str, http: httpx2.Client) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=APP_KEY, max_retries=0, http_client=http)
    asked = [{"role": "user", "content": "Say hello."}]
    assert client.chat.completions.create(model="auto", messages=asked).choices[0].message.content  # type: ignore[arg-type]
    assert "auto" in {model.id for model in client.models.list()}
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    claude = anthropic.Anthropic(base_url=url, api_key=APP_KEY, max_retries=0, http_client=http)
    with claude.messages.stream(model="up/events:3", max_tokens=9, messages=asked) as stream:  # type: ignore[arg-type]
        assert "".join(stream.text_stream) == "word0 word1 word2 "


def test_a_stream_comes_event_by_event(http: httpx2.Client) -> None:
    times = []
    with http.stream("POST", CHAT, json=chat("up/events:10:0.1", stream=True)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if b'"content":"word' in line.encode():
                times.append(time.monotonic())
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == 9
    assert times[-1] - times[0] > 0.6
    assert sum(gap > 0.03 for gap in gaps) >= 6  # and not in two or three heaps


def test_a_thousand_events_come_whole(http: httpx2.Client) -> None:
    answer = http.post(CHAT, json=chat("up/events:1000", stream=True))
    assert text_of(answer.content) == "".join(f"word{n} " for n in range(1000))
    assert answer.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_ends_the_providers_work_within_a_second(
    url: str, authority: Authority, upstream: Provider, stream: bool
) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    client = httpx2.Client(base_url=url, headers=headers, verify=authority.trusting(), timeout=60)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.post, CHAT, json=chat("up/events:600:0.05", "hang up", stream=stream))
        exchange = upstream.asked("hang up")
        time.sleep(0.2)
        assert not asking.done()
        gone = time.monotonic()
        _hang_up(url)
        client.close()
        assert exchange.left_within(1.0, gone)
        assert asking.exception(10) is not None


def test_a_body_of_32_mib_arrives_and_more_is_refused(http: httpx2.Client) -> None:
    text = "x" * (BODY_MAX - 1000)
    assert http.post(CHAT, json=chat("fake/fake", text)).status_code == 200
    refused = http.post(CHAT, json=chat("fake/fake", text + "x" * 1001))
    assert refused.status_code == 413
    if refused.content:  # Caddy has nothing to say
        assert shaped(refused.json())["code"] == "request_too_large"


def test_connections_to_the_gateway_are_used_again(
    url: str, http: httpx2.Client, authority: Authority, proxied: Gateway
) -> None:
    for n in range(100):
        assert http.post(CHAT, json=chat("up/events:3", stream=bool(n % 2))).status_code == 200
    held = [c for c in psutil.Process(proxied.process.pid).net_connections() if c.laddr.port == proxied.port]
    assert 1 <= sum(c.status == psutil.CONN_ESTABLISHED for c in held) <= 16
    assert sum(c.status == psutil.CONN_TIME_WAIT for c in held) == 0


def test_names_and_origins_are_those_the_client_used(url: str, http: httpx2.Client) -> None:
    assert http.post(CHAT, json=chat("auto"), headers={"origin": url}).status_code == 200
    foreign = http.post(CHAT, json=chat("auto"), headers={"origin": "https://evil.example"})
    assert error_of(foreign)["code"] == "origin_not_allowed"
    # What a client claims of itself counts for nothing.
    claimed = {"origin": "https://evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    assert error_of(http.post(CHAT, json=chat("auto"), headers=claimed))["code"] == "origin_not_allowed"


def test_a_foreign_name_gets_no_answer_from_the_gateway(http: httpx2.Client) -> None:
    other = http.post(CHAT, json=chat("auto"), headers={"host": "evil.example"})
    assert other.status_code == 403 or not other.content  # Caddy has no site of that name


def test_metrics_are_not_for_the_world(http: httpx2.Client, proxied: Gateway) -> None:
    assert httpx2.get(f"{proxied.url}/metrics", headers={"host": "localhost"}).status_code == 200
    for path in METRICS:
        assert http.get(path).status_code == 404, path
    assert http.get("/ready").status_code == 200


def test_what_slips_past_a_proxy_takes_an_administrators_key_at_the_gateway(
    running_provider: Provider, authority: Authority, tmp_path: Path
) -> None:
    with gateway(tmp_path, config(running_provider.url, {"allowed_hosts": ["localhost"]})) as running:
        for name, rule in (("nginx", "location ~* ^/metrics"), ("caddy", "respond @metrics")):
            if not binary(name):
                continue
            other = rule.replace("^/metrics", "^/elsewhere").replace("@metrics", "/elsewhere")
            issued = authority.issue(*LOOPBACK)
            with proxy(name, tmp_path / name, running.port, issued, {rule: other}) as url:
                for path in METRICS:
                    answer = httpx2.get(f"{url}{path}", verify=authority.trusting(), headers={"via": ""})
                    assert answer.status_code in (401, 404), path
                    assert "pluggably_" not in answer.text


@pytest.mark.skipif(not binary("nginx"), reason="nginx is not installed")
def test_an_idle_connection_is_closed_by_nginx_before_the_gateway_does(
    running_provider: Provider, authority: Authority, tmp_path: Path
) -> None:
    # The same proportion as in the files, seventy times as fast: requests come when connections are about to close.
    with gateway(tmp_path, config(running_provider.url, {"keep_alive_s": 2})) as running:
        changes = {"keepalive_timeout 60s": "keepalive_timeout 1s"}
        issued = authority.issue(*LOOPBACK)
        with (
            proxy("nginx", tmp_path / "nginx", running.port, issued, changes) as url,
            httpx2.Client(verify=authority.trusting(), timeout=30) as client,
            ThreadPoolExecutor(8) as pool,
        ):

            def ask(pause_s: float) -> list[int]:
                said = []
                for _ in range(2):
                    said.append(client.get(f"{url}/health").status_code)
                    time.sleep(pause_s)
                return said

            pauses = (0.9, 0.98, 1.0, 1.02, 1.5, 1.95, 2.0, 2.05)
            assert [status for said in pool.map(ask, pauses) for status in said] == [200] * 16


@pytest.mark.skipif(not binary("nginx"), reason="nginx is not installed")
def test_a_gateway_that_is_away_is_told_in_a_shape_that_sdks_read(authority: Authority, tmp_path: Path) -> None:
    with (
        proxy("nginx", tmp_path, free_port(), authority.issue(*LOOPBACK)) as url,
        httpx2.Client(verify=authority.trusting(), timeout=30) as http,
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=APP_KEY, max_retries=0, http_client=http)
        with pytest.raises(openai.InternalServerError) as failed:
            client.models.list()
    assert failed.value.status_code == 503
    assert failed.value.code == "server_is_overloaded"
    assert failed.value.response.headers["retry-after"] == "1"


def _hang_up(url: str) -> None:
    """Close this process's connections to the proxy, whoever waits on them."""
    port = int(url.rpartition(":")[2])
    for held in psutil.Process().net_connections("tcp4"):
        if held.raddr and held.raddr.port == port and held.fd >= 0:
            with socket.socket(fileno=os.dup(held.fd)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
