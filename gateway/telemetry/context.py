"""A request's place in a distributed trace (W3C Trace Context), and its attempts' times.

Made only while traces are sent somewhere, and without OpenTelemetry's SDK: these are a few random bits on the
way of a request, and what is told of them is put together when it is over (`gateway.telemetry.tracing`).
https://www.w3.org/TR/trace-context/
"""

import random
import re
from collections.abc import Iterable
from time import perf_counter

from msgspec import Struct, field

STATE_MAX = 512
"""Characters of a `tracestate` that are kept; of a longer one nothing is."""

_parent = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
).fullmatch
_SAMPLED = 1


class Try(Struct):
    """One attempt at a backend; times are on the performance counter."""

    backend: str
    model: str
    span_id: int
    began: float
    first: float | None = None
    """When content came."""
    ended: float | None = None
    outcome: str | None = None
    """`ok`, or our word for what went wrong; None for one that was given up."""


class Trace(Struct, kw_only=True):
    """Where a request stands in a trace."""

    trace_id: int
    span_id: int
    parent_id: int | None = None
    """The caller's span."""
    sampled: bool = True
    """Whether it is recorded: as the caller decided, or we."""
    state: str = ""
    """The caller's `tracestate`."""
    tries: list[Try] = field(default_factory=list)

    @property
    def hex(self) -> str:
        return f"{self.trace_id:032x}"

    def attempt(self, backend: str, model: str) -> str:
        """Take note of an attempt that begins; returns the `traceparent` its backend gets."""
        span_id = _bits(64)
        self.tries.append(Try(backend, model, span_id, perf_counter()))
        return f"00-{self.trace_id:032x}-{span_id:016x}-{self.sampled:02d}"


def received(headers: Iterable[tuple[bytes, bytes]]) -> Trace:
    """The trace that a request's headers put it in, or a new one."""
    parents = []
    states = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    found = _parent(parents[0].strip()) if len(parents) == 1 else None
    if found is None or (found[1] == b"00" and found[5] is not None):
        return Trace(trace_id=_bits(128), span_id=_bits(64))
    state = b",".join(states).decode("latin-1").strip()
    return Trace(
        trace_id=int(found[2], 16),
        span_id=_bits(64),
        parent_id=int(found[3], 16),
        sampled=bool(int(found[4], 16) & _SAMPLED),
        state=state if len(state) <= STATE_MAX and state.isascii() and state.isprintable() else "",
    )


def _bits(count: int) -> int:
    return random.getrandbits(count) or 1
