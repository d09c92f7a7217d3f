"""TLS that the gateway does itself: `server.tls`."""

import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest

from tests.deployment.certificates import LOOPBACK, Authority
from tests.deployment.conftest import APP_KEY, config
from tests.http import CHAT, chat, text_of
from tests.process import Gateway, gateway
from tests.provider import Provider


@pytest.fixture(scope="module")
def secured(
    running_provider: Provider, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    issued = authority.issue(*LOOPBACK)
    server = {"tls": {"cert": str(issued.cert), "key": str(issued.key)}, "body_limit_bytes": 1_000_000}
    with gateway(tmp_path_factory.mktemp("secured"), config(running_provider.url, server)) as running:
        yield running


@pytest.fixture
def http(secured: Gateway, authority: Authority, upstream: Provider) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    with httpx2.Client(base_url=secured.url, headers=headers, verify=authority.trusting(), timeout=30) as client:
        yield client


def test_openais_sdk_gets_whole_and_streamed_answers(secured: Gateway, http: httpx2.Client) -> None:
    assert secured.url.startswith("https://")
    client = openai.OpenAI(base_url=f"{secured.url}/v1", api_key=APP_KEY, max_retries=0, http_client=http)
    answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Say hello."}])
    assert answer.choices[0].message.content
    stream = client.chat.completions.create(
        model="up/events:1000", messages=[{"role": "user", "content": "Say hello."}], stream=True
    )
    words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(word or "" for word in words) == "".join(f"word{n} " for n in range(1000))
    assert "auto" in {model.id for model in client.models.list()}


def test_anthropics_sdk_does_too(secured: Gateway, http: httpx2.Client) -> None:
    client = anthropic.Anthropic(base_url=secured.url, api_key=APP_KEY, max_retries=0, http_client=http)
    with client.messages.stream(
        model="up/events:5", max_tokens=100, messages=[{"role": "user", "content": "Say hello."}]
    ) as stream:
        assert "".join(stream.text_stream) == "word0 word1 word2 word3 word4 "


def test_a_body_of_a_megabyte_arrives(http: httpx2.Client, upstream: Provider) -> None:
    text = "long " * 150_000
    assert http.post(CHAT, json=chat("up/answer", text)).status_code == 200
    assert upstream.asked(text[:100]).json["messages"][0]["content"] == text
    assert http.post(CHAT, json=chat("up/answer", text * 2)).status_code == 413


def test_who_hangs_up_ends_the_providers_work(http: httpx2.Client, upstream: Provider) -> None:
    with http.stream("POST", CHAT, json=chat("up/events:1000:0.05", "hang up", stream=True)) as answer:
        next(answer.iter_bytes())
        asked = upstream.asked("hang up")
        gone = time.monotonic()
    assert asked.left_within(1.0, gone)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(secured: Gateway, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with closing(_connected(secured, context)) as connection:
        assert connection.version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_tls_is_not(secured: Gateway, authority: Authority) -> None:
    context = authority.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        _connected(secured, context)


def test_a_client_that_does_not_know_the_authority_hangs_up(secured: Gateway, http: httpx2.Client) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _connected(secured, ssl.create_default_context())
    assert http.get("/health").status_code == 200


def test_plain_http_and_noise_are_hung_up_on_without_an_answer(secured: Gateway, http: httpx2.Client) -> None:
    before = len(secured.lines)
    for sent in (
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        bytes(range(256)) * 8,
        b"\x16\x03\x01\xff\xff" * 9,
    ):
        with closing(socket.create_connection(("127.0.0.1", secured.port), timeout=10)) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b"HTTP/" not in _rest(connection)
    assert http.get("/health").status_code == 200
    assert not [line for line in secured.lines[before:] if "Traceback" in line]


def test_stopping_waits_for_a_stream_over_tls(upstream: Provider, authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue(*LOOPBACK)
    server = {"tls": {"cert": str(issued.cert), "key": str(issued.key)}}
    with gateway(tmp_path, config(upstream.url, server)) as running:
        headers = {"authorization": f"Bearer {APP_KEY}"}
        with (
            httpx2.Client(base_url=running.url, headers=headers, verify=authority.trusting(), timeout=30) as client,
            client.stream("POST", CHAT, json=chat("up/events:20:0.05", stream=True)) as answer,
        ):
            pieces = answer.iter_bytes()
            body = next(pieces)
            os.kill(running.process.pid, signal.SIGTERM)
            body += b"".join(pieces)
        assert text_of(body).endswith("word19 ")
        assert running.process.wait(10) == 0


def test_sighup_takes_up_a_renewed_certificate(upstream: Provider, authority: Authority, tmp_path: Path) -> None:
    issued, renewed = authority.issue(*LOOPBACK), authority.issue(*LOOPBACK)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(issued.cert, cert)
    shutil.copy(issued.key, key)
    with gateway(tmp_path, config(upstream.url, {"tls": {"cert": str(cert), "key": str(key)}})) as running:
        with closing(_connected(running, authority.trusting())) as old:
            first = old.getpeercert()
            shutil.copy(renewed.cert, cert)
            shutil.copy(renewed.key, key)
            os.kill(running.process.pid, signal.SIGHUP)
            running.wait_for("certificate_reloaded")
            with closing(_connected(running, authority.trusting())) as new:
                second = new.getpeercert()
            old.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 200 " in old.recv(4096)  # who is connected stays so
        assert first is not None
        assert second is not None
        assert first["serialNumber"] != second["serialNumber"]
        key.write_text("no key")
        os.kill(running.process.pid, signal.SIGHUP)
        running.wait_for("certificate_refused")
        with closing(_connected(running, authority.trusting())) as still:
            assert still.getpeercert() == second


def test_a_certificate_that_is_not_there_is_told_at_the_start(tmp_path: Path, upstream: Provider) -> None:
    tls = {"cert": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}
    with pytest.raises(AssertionError) as failed, gateway(tmp_path, config(upstream.url, {"tls": tls})):
        pass
    assert "server.tls" in str(failed.value)
    assert "none.pem" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def _connected(running: Gateway, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def _rest(connection: socket.socket) -> bytes:
    """What still comes until the other side hangs up."""
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got
