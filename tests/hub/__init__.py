"""A model hub on loopback that speaks Hugging Face's HTTP, as `huggingface_hub` asks for it, and misbehaves on demand.

`metadata` answers /api/…; `files` answers /{repo}/resolve/…, and hands large files out from a second host, as the
real one does.  Source: https://huggingface.co/docs/hub/api and the requests that `huggingface_hub` makes.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from msgspec import Struct, field, json

from tests.hub.content import Content, HubFile, Made
from tests.hub.repository import Commit, HubRepo

__all__ = ["Asked", "Commit", "Content", "Fault", "Handler", "HubFile", "HubRepo", "HubServer", "Made", "hub"]

_SECOND_HOST = "localhost"
"""Another name and port of loopback: another host to whoever must not send its token there."""


class Asked(Struct, frozen=True):
    """A request as it came."""

    method: str
    host: str
    """With port, as the client wrote it."""
    path: str
    """With the query."""
    headers: dict[str, str]
    """Names in lower case."""
    cdn: bool
    """It came to the second host."""
    at: float = field(default_factory=time.monotonic)

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


class Fault(Struct):
    """Something to do in place of, or before, an answer."""

    prefix: str
    """Of the paths it is for."""
    act: "Callable[[Handler], bool]"
    """True: that was the answer; False: go on as usual."""
    times: int = 1
    cdn: bool = False
    """It is for requests to the second host, not to the first."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar["HubServer"]
    cdn: ClassVar[bool] = False
    timeout = 30
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        # No module of this package is imported before the package is whole.
        from tests.hub.files import serve as serve_file
        from tests.hub.metadata import serve as serve_metadata

        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        lower = {name.lower(): text for name, text in self.headers.items()}
        self.asked = Asked(self.command, lower.get("host", ""), self.path, lower, self.cdn)
        self.hub.requests.append(self.asked)
        try:
            if self.hub.misbehaves(self):
                return
            if not self.cdn and self.path.startswith("/api/"):
                serve_metadata(self.hub, self)
            elif not serve_file(self.hub, self):
                self.error(404, "EntryNotFound", "Entry not found")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a JSON body."""
        self.send_body(
            json.encode(content), status=status, headers={"content-type": "application/json"} | dict(headers or {})
        )

    def send_body(self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        """An error as the real hub writes it: its code and words in headers, and the words in the body."""
        told = {"x-error-message": message} | ({"x-error-code": code} if code else {}) | dict(headers or {})
        self.answer({"error": message}, status=status, headers=told)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the parent's name
        pass


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class HubServer:
    """A hub with its repositories; `hub()` starts one."""

    def __init__(self) -> None:
        self.repos: dict[str, HubRepo] = {}
        self.tokens: dict[str, str] = {}
        """Token → the user it belongs to; another one is refused."""
        self.requests: list[Asked] = []
        """All that came, to either host."""
        self.faults: list[Fault] = []
        self.page_max = 1000
        """Rows a page at most, of lists."""
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._front = _Listener(("127.0.0.1", 0), type("Front", (Handler,), {"hub": self}))
        self._cdn = _Listener(("127.0.0.1", 0), type("Cdn", (Handler,), {"hub": self, "cdn": True}))
        self._threads = [
            threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            for one in (self._front, self._cdn)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT, or `hub.endpoint`."""
        return f"http://127.0.0.1:{self._front.server_port}"

    @property
    def cdn_url(self) -> str:
        return f"http://{_SECOND_HOST}:{self._cdn.server_port}"

    def add(self, repo: HubRepo) -> HubRepo:
        self.repos[repo.id] = repo
        return repo

    def fault(self, prefix: str, act: Callable[[Handler], bool], *, times: int = 1, cdn: bool = False) -> Fault:
        one = Fault(prefix, act, times, cdn)
        self.faults.append(one)
        return one

    def refuse(self, prefix: str, status: int, *, times: int = 1, code: str | None = None, **headers: str) -> Fault:
        """Answer with a status; `retry_after="7"` becomes a header."""

        def act(handler: Handler) -> bool:
            told = {name.replace("_", "-"): text for name, text in headers.items()}
            handler.error(status, code, f"Error {status}", told)
            return True

        return self.fault(prefix, act, times=times)

    def hang(self, prefix: str, seconds: float, *, times: int = 1) -> Fault:
        """Say nothing for so long, then hang up."""
        over = threading.Event()

        def act(handler: Handler) -> bool:
            over.wait(seconds)
            handler.close_connection = True
            return True

        return self.fault(prefix, act, times=times)

    def misbehaves(self, handler: Handler) -> bool:
        """Do what a test wants done to this request; tells whether that was the answer."""
        with self._lock:
            found = [
                one
                for one in self.faults
                if one.cdn == handler.cdn and one.times > 0 and handler.path.startswith(one.prefix)
            ]
            for one in found[:1]:
                one.times -= 1
        return bool(found) and found[0].act(handler)

    def asked(self, part: str = "", *, cdn: bool | None = None) -> list[Asked]:
        """The requests so far whose path has this in it."""
        return [one for one in list(self.requests) if part in one.path and cdn in (None, one.cdn)]

    def close(self) -> None:
        for one in (self._front, self._cdn):
            one.shutdown()
            one.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@contextmanager
def hub(*repos: HubRepo) -> Iterator[HubServer]:
    """A hub that has these repositories, until the end of the block."""
    server = HubServer()
    try:
        for repo in repos:
            server.add(repo)
        yield server
    finally:
        server.close()
