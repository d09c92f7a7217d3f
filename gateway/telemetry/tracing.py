"""Traces and metrics to an OpenTelemetry collector, by OTLP over HTTP.  Imported only where one is configured.

A request's spans are put together from its visit when that has been over for a moment, so nothing of the SDK is
on the way of a request.  Sending is the SDK's, in threads of its own with a bounded queue: a collector that is
away, slow or mad costs what it would have been told, and a warning a minute.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from threading import Thread
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode
from yarl import URL

from backends.presets import PRESETS
from gateway.settings import BackendEntry, Config
from gateway.telemetry import conventions as names
from gateway.telemetry.context import Trace, Try, received
from gateway.telemetry.logging import logger
from gateway.visit import Visit

CLOSE_S = 1.5
"""How long what is left may take to be sent when the gateway stops."""
COMPLAIN_S = 60.0
"""How often trouble with the collector is told."""
MODELS_MAX = 500
"""Models that metrics tell apart.  A client may name any; only those that have answered count."""
TEXT_MAX = 300
"""Characters of a client's or provider's word."""

_FAILED, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)
_HOMES = {"anthropic": "https://api.anthropic.com"}
"""Where kinds are that have no presets."""

Attributes = dict[str, Any]


class Tracer:
    """Tells a collector of visits that are over."""

    def __init__(self, endpoint: str, config: Config, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._complaints = _Complaints(URL(endpoint))
        root = endpoint.rstrip("/")
        resource = _resource()
        # Not the process's global ones: two gateways may live in one process.
        traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sampler = None if traces.sampler is DEFAULT_ON else traces.sampler
        self._resource = resource
        self._scope = InstrumentationScope("pluggably", version("pluggably"))
        self._spans = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{root}/v1/traces"))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{root}/v1/metrics"))
        self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._meters.get_meter("pluggably", version("pluggably"))

        def histogram(name: str, unit: str) -> Callable[[float, Attributes], None]:
            bounds = names.BUCKETS[name]
            return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=bounds).record

        self._request_duration = histogram(names.REQUEST_DURATION, "s")
        self._operation_duration = histogram(names.OPERATION_DURATION, "s")
        self._first_chunk = histogram(names.TIME_TO_FIRST_CHUNK, "s")
        self._tokens = histogram(names.TOKEN_USAGE, "{token}")
        self._models: set[tuple[str, str]] = set()
        self._places: dict[str, Attributes] = {}
        self._scheme = "http"
        self.adopt(config)

    def adopt(self, config: Config) -> None:
        """From now on with the backends of this configuration; those that have gone are still under way."""
        self._places |= {name: _place(entry) for name, entry in config.backends.items()}
        self._scheme = "https" if config.server.tls.cert else "http"

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> Trace:
        """The trace of a request that has come in.  Where no caller decided, OTEL_TRACES_SAMPLER does."""
        trace = received(headers)
        if self._sampler is not None and trace.parent_id is None:
            sample = self._sampler.should_sample(None, trace.trace_id, "", SpanKind.SERVER)
            trace.sampled = sample.decision is Decision.RECORD_AND_SAMPLE
        return trace

    def account(self, visit: Visit) -> None:
        """Tell of a visit that is over."""
        status = _failed_as(visit)
        asked: Attributes = {
            names.METHOD: visit.method if visit.method in names.METHODS else names.OTHER,
            names.SCHEME: self._scheme,
        }
        if visit.route:
            asked[names.ROUTE] = visit.route
        if visit.status:
            asked[names.STATUS] = visit.status
        if status is not None:
            asked[names.ERROR] = status
        self._request_duration(visit.ended - visit.began, asked)
        trace = visit.trace
        if trace is None:
            return
        tries = [(attempt, self._attributes(visit, attempt)) for attempt in trace.tries]
        if not trace.sampled:
            return
        own = SpanContext(trace.trace_id, trace.span_id, False, TraceFlags(TraceFlags.SAMPLED), self._state(trace))
        parent = None
        if trace.parent_id is not None:
            parent = SpanContext(trace.trace_id, trace.parent_id, True, own.trace_flags)
        offset = visit.at - visit.ended
        self._span(
            f"{asked[names.METHOD]} {visit.route}".rstrip(),
            own,
            parent,
            SpanKind.SERVER,
            asked | self._who(visit),
            (visit.began + offset, visit.ended + offset),
            failed=visit.status >= 500 or (visit.code is not None and visit.status < 400),
        )
        for attempt, attributes in tries:
            self._span(
                f"{attributes[names.OPERATION]} {attributes[names.REQUEST_MODEL]}",
                SpanContext(trace.trace_id, attempt.span_id, False, own.trace_flags, own.trace_state),
                own,
                SpanKind.CLIENT,
                attributes,
                (attempt.began + offset, (attempt.ended or visit.ended) + offset),
                failed=names.ERROR in attributes,
            )

    async def aclose(self) -> None:
        """Send what is left, if that can be done in a moment."""
        # Threads that end with the process: the SDK waits for half a minute, an executor's thread for ever.
        ending = [Thread(target=end, daemon=True) for end in (self._spans.shutdown, self._meters.shutdown)]
        for thread in ending:
            thread.start()
        end = time.monotonic() + CLOSE_S
        while any(thread.is_alive() for thread in ending) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._complaints.end()

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        times: tuple[float, float],
        *,
        failed: bool,
    ) -> None:
        span = ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=_FAILED if failed else _UNSET,
            start_time=int(times[0] * 1e9),
            end_time=int(times[1] * 1e9),
            instrumentation_scope=self._scope,
        )
        self._spans.on_end(span)

    def _who(self, visit: Visit) -> Attributes:
        told: Attributes = {names.REQUEST_ID: self._word(visit.request_id)}
        if visit.principal is not None:
            told[names.USER] = self._word(visit.principal.id)
            told[names.TENANT] = self._word(visit.principal.tenant)
        if visit.requested is not None:
            told[names.REQUESTED] = self._word(visit.requested)
            told[names.ATTEMPTS] = visit.attempts
        return told

    def _attributes(self, visit: Visit, attempt: Try) -> Attributes:
        """A span's, of an attempt, which is measured by the way."""
        operation, output = names.OPERATIONS.get(visit.route, names.OPERATION_OTHERWISE)
        answered = attempt.outcome == "ok"
        bounded: Attributes = {names.OPERATION: operation, **self._places.get(attempt.backend, {})}
        if not answered:
            bounded[names.ERROR] = attempt.outcome or visit.code or "cancelled"
        measured = bounded | {names.REQUEST_MODEL: self._bounded(attempt, answered)}
        self._operation_duration((attempt.ended or visit.ended) - attempt.began, measured)
        told = bounded | {names.REQUEST_MODEL: self._word(attempt.model), names.BACKEND: attempt.backend}
        if output is not None:
            told[names.OUTPUT_TYPE] = output
        if visit.streamed:
            told[names.REQUEST_STREAM] = True
            if attempt.first is not None:
                told[names.FIRST_CHUNK] = attempt.first - attempt.began
                self._first_chunk(attempt.first - attempt.began, measured)
        if attempt.first is None or visit.trace is None or attempt is not visit.trace.tries[-1]:
            return told
        if visit.answered_by is not None:
            told[names.RESPONSE_MODEL] = self._word(visit.answered_by)
        if visit.finish is not None:
            told[names.FINISH_REASONS] = (self._word(visit.finish),)
        if (usage := visit.usage) is not None:
            for field, name in names.USAGE.items():
                if (count := getattr(usage, field)) is not None:
                    told[name] = count
            for type_, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    self._tokens(count, measured | {names.TOKEN_TYPE: type_})
        return told

    def _bounded(self, attempt: Try, answered: bool) -> str:
        known = attempt.backend, attempt.model
        if known not in self._models:
            if not answered or len(self._models) >= MODELS_MAX:
                return names.OTHER
            self._models.add(known)
        return self._word(attempt.model)

    def _state(self, trace: Trace) -> TraceState | None:
        if not trace.state or self._redact(trace.state) != trace.state:
            return None
        return TraceState.from_header([trace.state])

    def _word(self, text: str) -> str:
        """What a client or a provider said."""
        return self._redact(text)[:TEXT_MAX].encode("utf-8", "replace").decode()


class _Complaints(logging.Handler):
    """What the SDK has to say of the collector, in our own log and seldom."""

    def __init__(self, collector: URL) -> None:
        super().__init__(logging.WARNING)
        self._collector = f"{collector.host}:{collector.port}"
        self._next = 0.0
        self._kept_back = 0
        self._source = logging.getLogger("opentelemetry")
        self._source.addHandler(self)
        self._source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._next:
            self._kept_back += 1
            return
        self._next, kept_back, self._kept_back = now + COMPLAIN_S, self._kept_back, 0
        logger().warning(
            "telemetry_not_sent", collector=self._collector, reason=_plain(record)[:500], kept_back=kept_back
        )

    def end(self) -> None:
        self._source.removeHandler(self)


def _plain(record: logging.LogRecord) -> str:
    """What the SDK says, without what its HTTP client makes of a connection that failed."""
    given = record.args if isinstance(record.args, tuple) else ()
    failure = next((type(one).__name__ for one in given if isinstance(one, OSError)), None)
    if failure is None:
        return record.getMessage()
    if "Timeout" in failure:
        return "It did not answer in time."
    return "TLS with it failed." if "SSL" in failure else "The connection to it was lost or refused."


def _failed_as(visit: Visit) -> str | None:
    return visit.code or (str(visit.status) if visit.status >= 400 else None)


def _place(entry: BackendEntry) -> Attributes:
    """Who a backend's provider is, and where."""
    preset = getattr(entry.settings, "preset", None)
    base = getattr(entry.settings, "base_url", None) or _HOMES.get(entry.kind)
    if base is None and entry.kind == "openai":
        base = PRESETS[preset or "openai"].base_url
    name = preset or entry.kind
    place: Attributes = {names.PROVIDER: names.PROVIDERS.get(name, name)}
    if base is not None:
        url = URL(base)
        place |= {names.SERVER: url.host or "", names.PORT: url.port or 0}
    return place


def _resource() -> Resource:
    """Ourselves, under the name that OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give us, if they do."""
    found = Resource.create({names.SERVICE_VERSION: version("pluggably")})
    if str(found.attributes.get(names.SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({names.SERVICE_NAME: "pluggably"}))
    return found
