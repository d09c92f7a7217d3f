"""TLS is checked and never left for plain HTTP; proxies are gone through where the environment names them."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from compat.canonical.error import BadResponse, Unreachable
from gateway.downloads.piece import Piece
from tests.deployment.certificates import LOOPBACK, Authority
from tests.gateway.downloads.fetching import LARGE, REPO, TOKEN, contents, fetched, piece_of, repository
from tests.hub import HubServer, hub


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub(repository(100_000)) as running:
        yield running


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port."""
    server = _Quiet(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _handing_out(body: bytes, location: str | None = None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        seen: list[str | None] = []

        def do_GET(self) -> None:
            self.seen.append(self.headers["authorization"])
            self.send_response(200 if location is None else 302)
            if location is not None:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _over_tls(piece: Piece, port: int, host: str = "127.0.0.1") -> Piece:
    return replace(piece, url=f"https://{host}:{port}/{REPO}/resolve/main/{LARGE}")


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
    return made


async def test_a_hub_over_tls_is_read(server: HubServer, tmp_path: Path, authority: Authority) -> None:
    piece, handler = piece_of(server, tmp_path), _handing_out(contents(server))
    with _running(handler, authority.issue(*LOOPBACK).context()) as port:
        await fetched(_over_tls(piece, port), token=TOKEN)
    assert piece.path.read_bytes() == contents(server)


@pytest.mark.parametrize("why", ["stranger", "expired", "another host"])
async def test_a_certificate_that_does_not_hold_is_refused(
    server: HubServer, tmp_path: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory, why: str
) -> None:
    match why:
        case "stranger":
            issued = Authority(tmp_path_factory.mktemp("stranger")).issue(*LOOPBACK)
        case "expired":
            issued = authority.issue(*LOOPBACK, expired=True)
        case _:
            issued = authority.issue("hub.example")
    handler = _handing_out(contents(server))
    with _running(handler, issued.context()) as port, pytest.raises(Unreachable, match="TLS"):
        await fetched(_over_tls(piece_of(server, tmp_path), port), token=TOKEN, retries=0)
    assert not handler.seen  # type: ignore[attr-defined]


async def test_a_hub_over_tls_may_not_send_on_without(server: HubServer, tmp_path: Path, authority: Authority) -> None:
    piece = piece_of(server, tmp_path)
    with (
        _running(_handing_out(b"", piece.url), authority.issue(*LOOPBACK).context()) as port,
        pytest.raises(BadResponse, match="TLS"),
    ):
        await fetched(_over_tls(piece, port), token=TOKEN, retries=0)
    assert not server.requests


class _Proxy(BaseHTTPRequestHandler):
    """Takes whole addresses, and tunnels; hands everything to one hub."""

    to: str
    seen: list[tuple[str, str, str | None]]

    def do_GET(self) -> None:
        import urllib.request

        self.seen.append((self.command, self.path, self.headers["proxy-authorization"]))
        kept = {name: text for name, text in self.headers.items() if name.lower() in ("range", "authorization")}
        request = urllib.request.Request(self.to + LARGE, headers=kept)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.seen.append((self.command, self.path, self.headers["proxy-authorization"]))
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


async def test_a_proxy_is_gone_through(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    piece = piece_of(server, tmp_path)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Proxy", (_Proxy,), {"to": piece.url.removesuffix(LARGE), "seen": []})
    url = f"http://hub.example/{REPO}/resolve/main/{LARGE}"
    with _running(handler) as port:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:pa%20ss@127.0.0.1:{port}")
        await fetched(replace(piece, url=url))
        with pytest.raises(Unreachable, match="proxy"):
            await fetched(
                replace(piece, url=url.replace("http:", "https:"), path=tmp_path / "other"), token=TOKEN, retries=0
            )
        monkeypatch.setenv("no_proxy", "hub.example,127.0.0.1,localhost")
        await fetched(replace(piece, path=tmp_path / "direct"))
    assert piece.path.read_bytes() == contents(server)
    named = "Basic dXNlcjpwYSBzcw=="
    assert handler.seen == [("GET", url, named), ("CONNECT", "hub.example:443", named)]  # type: ignore[attr-defined]


class _Tunnel(BaseHTTPRequestHandler):
    """Connects to one port, whatever host is named."""

    port: int
    seen: list[str]

    def do_CONNECT(self) -> None:
        self.seen.append(self.path)
        self.send_response(200, "Connection established")
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.port)) as there:
            back = threading.Thread(target=_pumped, args=(there, self.connection), daemon=True)
            back.start()
            _pumped(self.connection, there)
            back.join(5)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def _pumped(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


async def test_a_hub_over_tls_is_read_through_a_proxy(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    piece, handler = piece_of(server, tmp_path), _handing_out(contents(server))
    with _running(handler, authority.issue("hub.example").context()) as port:
        tunnel = type("Tunnel", (_Tunnel,), {"port": port, "seen": []})
        with _running(tunnel) as proxy:
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy}")
            await fetched(replace(piece, url=f"https://hub.example/{REPO}/resolve/main/{LARGE}"), token=TOKEN)
    assert piece.path.read_bytes() == contents(server)
    assert tunnel.seen == ["hub.example:443"]  # type: ignore[attr-defined]
    assert handler.seen == [f"Bearer {TOKEN}"]  # type: ignore[attr-defined]
