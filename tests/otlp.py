"""An OpenTelemetry collector on loopback: takes OTLP over HTTP and keeps it, decoded by the protocol's own classes."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span:
    """One span, in plain values."""

    def __init__(self, wire: Any, resource: dict[str, Any]) -> None:
        self.name: str = wire.name
        self.kind: int = wire.kind
        self.trace_id: str = wire.trace_id.hex()
        self.span_id: str = wire.span_id.hex()
        self.parent_id: str = wire.parent_span_id.hex()
        self.state: str = wire.trace_state
        self.failed: bool = wire.status.code == 2
        self.began_s: float = wire.start_time_unix_nano / 1e9
        self.ended_s: float = wire.end_time_unix_nano / 1e9
        self.attributes = attributes_of(wire)
        self.resource = resource


SERVER, CLIENT = 2, 3
"""Kinds of spans."""


class Collector:
    def __init__(self) -> None:
        self.url = ""
        self.raw: list[bytes] = []
        """Every body, uncompressed."""
        self.headers: list[dict[str, str]] = []
        self.spans: list[Span] = []
        self.points: dict[str, list[Any]] = {}
        """The histograms' points of the newest metrics, by the metric's name."""
        self.answer: Callable[[BaseHTTPRequestHandler], None] = _accept
        self.news = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        with self.news:
            self.raw.append(body)
            self.headers.append(headers)
            if path == "/v1/traces":
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = attributes_of(group.resource)
                    self.spans += [Span(span, resource) for scope in group.scope_spans for span in scope.spans]
            elif path == "/v1/metrics":
                for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    metrics = [metric for scope in group.scope_metrics for metric in scope.metrics]
                    self.points = {metric.name: list(metric.histogram.data_points) for metric in metrics}
            self.news.notify_all()

    def until(self, there: Callable[[], bool], timeout_s: float = 10.0) -> None:
        with self.news:
            assert self.news.wait_for(there, timeout_s), "the collector was not told in time"

    def more_than(self, deliveries: int) -> None:
        self.until(lambda: len(self.raw) > deliveries, 20)

    def request(self, request_id: str, timeout_s: float = 10.0) -> tuple[Span, list[Span]]:
        """The spans of a request, waited for: its own, and its attempts' in their order."""

        def own() -> Span | None:
            found = (s for s in self.spans if s.attributes.get("pluggably.request_id") == request_id)
            return next(found, None)

        # They may come in two deliveries.
        def whole() -> bool:
            span = own()
            return span is not None and len(attempts(span)) >= span.attributes.get("pluggably.attempts", 0)

        def attempts(span: Span) -> list[Span]:
            children = [s for s in self.spans if s.parent_id == span.span_id]
            return sorted(children, key=lambda s: s.began_s)

        self.until(whole, timeout_s)
        span = own()
        assert span is not None
        return span, attempts(span)


def attributes_of(wire: Any) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in wire.attributes}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, kind)


def _accept(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "0")
    handler.end_headers()


def garbled(handler: BaseHTTPRequestHandler) -> None:
    """Answer with what is no HTTP."""
    handler.wfile.write(b"\x00\xff" * 64)
    handler.close_connection = True


def overloaded(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(503)
    handler.send_header("content-length", "0")
    handler.end_headers()


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Take it and say nothing for a while."""
    time.sleep(8)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    running = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            running.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            running.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
