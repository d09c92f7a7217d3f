"""The server inside a child process that makes pictures or meshes: one job at a time, on loopback.

    POST /v1/make   JSON → server-sent events: {"step", "of", "stage"}, {"preview", "mime", "index", "n"},
                    {"made", "mime", "index"}, {"error": {"message", "code", "param"}}, and [DONE] last of all
    GET  /health    200

An engine is a function that is given a `Job` and works on the main thread, where some libraries want to be;
its requests are read on threads of their own.  Invariant: whoever closes the connection of its job stops it
at the engine's next step.  Standard library only, since every engine pays for what is imported here.
"""

import base64
import hmac
import json
import queue
import select
import socket
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

Report = Callable[[dict[str, Any]], None]

HOST = "127.0.0.1"
BODY_MAX_BYTES = 96 * 1024 * 1024
"""A request with its pictures in base64."""
SIDE_MAX, PIXELS_MAX = 4096, 2048 * 2048
"""Of one picture that is made."""
OUT_OF_MEMORY, FAILED = "out_of_memory", "engine_failed"
"""The codes of errors that are not the client's."""


class Cancelled(Exception):
    """Whoever asked has gone."""


class Refused(Exception):
    """The client asked for what this engine cannot do; the message is for its eyes."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.error = {"message": message, "code": code, "param": param}


class Job:
    """One request to make something.  What it reports goes to whoever asked, at once."""

    def __init__(self, body: dict[str, Any], connection: socket.socket) -> None:
        self.body = body
        self.over = threading.Event()
        self._connection = connection

    def step(self, step: int, of: int, stage: str = "generating") -> None:
        """Raises Cancelled when whoever asked has gone."""
        self._send({"step": step, "of": of, "stage": stage})

    def preview(self, data: bytes, mime: str, index: int, n: int) -> None:
        """How it looks by now; `n` counts the previews of one thing.  Raises Cancelled."""
        self._send({"preview": base64.b64encode(data).decode(), "mime": mime, "index": index, "n": n})

    def made(self, data: bytes, mime: str, index: int = 0) -> None:
        """Raises Cancelled."""
        self._send({"made": base64.b64encode(data).decode(), "mime": mime, "index": index})

    def check(self) -> None:
        """Raises Cancelled when whoever asked has gone."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        # All of the request has been read: what can be read now is the end.
        if poll.poll(0):
            raise Cancelled

    def work(self, make: "Make") -> None:
        """Have it made, and say how that ended."""
        try:
            self.check()
            self._write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            if (error := self._outcome(make)) is not None:
                self._send({"error": error})
            self._write(b"data: [DONE]\n\n")
        except Cancelled:
            pass
        finally:
            self.over.set()

    def _outcome(self, make: "Make") -> dict[str, Any] | None:
        """The error that it ended with, if it did.  Raises Cancelled."""
        try:
            make(self)
        except Cancelled:
            raise
        except Refused as e:
            return e.error
        except Exception as e:
            traceback.print_exc()
            if is_out_of_memory(e):
                return {"message": "There was not enough memory for this.", "code": OUT_OF_MEMORY, "param": None}
            return {"message": "The engine failed at this.", "code": FAILED, "param": None}
        return None

    def _send(self, what: dict[str, Any]) -> None:
        self.check()
        self._write(b"data: " + json.dumps(what).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as e:
            raise Cancelled from e


Make = Callable[[Job], None]
"""An engine: makes what a job's body asks for.  Raises Refused; lets Cancelled pass."""


def serve(spec: dict[str, Any], report: Report, make: Make) -> NoReturn:
    """Do jobs until the process ends.  To be called on the main thread once the model is in memory."""
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    server = ThreadingHTTPServer((HOST, 0), _handler(spec["key"], jobs))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report({"ready": True, "url": f"http://{HOST}:{server.server_address[1]}"})
    while True:
        jobs.get().work(make)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine says so, each in its own way: Python, torch on a GPU, torch on a CPU, onnxruntime."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ArrayMemoryError"):
        return True
    said = str(error).lower()
    return "out of memory" in said or "can't allocate memory" in said or "failed to allocate memory" in said


def _handler(key: str, jobs: "queue.SimpleQueue[Job]") -> type[BaseHTTPRequestHandler]:
    wanted = f"Bearer {key}".encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # in seconds, for the request to arrive

        def do_GET(self) -> None:
            if self._admitted("/health"):
                self._answer(200)

        def do_POST(self) -> None:
            if not self._admitted("/v1/make"):
                return
            size = self.headers.get("content-length", "")
            if not size.isdigit() or int(size) > BODY_MAX_BYTES:
                self._answer(413)
                return
            try:
                body = json.loads(self.rfile.read(int(size)))
            except ValueError:
                self._answer(400)
                return
            self.connection.settimeout(None)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            job = Job(body, self.connection)
            jobs.put(job)
            job.over.wait()

        def _admitted(self, path: str) -> bool:
            given = self.headers.get("authorization", "").encode("latin-1", "replace")
            status = 401 if not hmac.compare_digest(given, wanted) else 200 if self.path == path else 404
            if status != 200:
                self._answer(status)
            return status == 200

        def _answer(self, status: int) -> None:
            self.send_response_only(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Says nothing: a line for each probe would crowd out what the engine says."""

    return Handler
