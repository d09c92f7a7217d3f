"""Structured logs on standard error: one line a request, and events of the house.

The redactor runs last and over every line, third parties' included, so a secret that strays into a
message is replaced before it is written.
"""

import asyncio
import atexit
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_secretive = re.compile(r"(?i)^(authorization|x-api-key|api[_-]?key|.*secret.*|.*password.*|token|cookie)$")
_tokens = re.compile(
    r"\b(?:sk|pk|gsk|hf|xai|ghp|github_pat|nvapi|csk|fw)[-_][A-Za-z0-9_\-]{8,}|\bAIza[\w\-]{20,}"
    r"|\beyJ[\w\-]+\.[\w\-]+\.[\w\-]*|(?i:bearer)\s+[\w\-.~+/]{8,}=*"
)
_encode = msgspec.json.Encoder(enc_hook=str).encode
MASK = "[redacted]"


class Redactor:
    """Replaces what looks like a secret, and every secret it has been told of."""

    def __init__(self) -> None:
        self._known: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Take the configuration's secrets; shorter ones than 8 characters would match too much."""
        known = sorted({s for s in secrets if len(s) >= 8}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        text = _tokens.sub(MASK, text)
        return self._known.sub(MASK, text) if self._known else text

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG002
        for name, value in event.items():
            if _secretive.match(name):
                event[name] = MASK
            elif isinstance(value, str):
                event[name] = self.text(value)
            elif not isinstance(value, (int, float, bool, type(None))):
                event[name] = self.text(str(value))
        return event


def _json_line(logger: WrappedLogger, method: str, event: EventDict) -> str:  # noqa: ARG001
    # What a reader looks for first stands first.
    head = {name: event.pop(name, None) for name in ("timestamp", "level", "event")}
    return _encode({**head, **event}).decode()


class _Factory:
    def __init__(self, target: "_Buffered") -> None:
        self._target = target

    def __call__(self, *_: Any) -> "_Buffered":
        return self._target


class _Buffered:
    """Collects lines for a moment and writes them at once: a write per line is a tenth of a request's CPU.

    Warnings and worse, and lines written outside an event loop, go out immediately, with all before them.
    """

    FLUSH_S = 0.05

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: list[str] = []
        atexit.register(self.flush)

    def msg(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_later(self.FLUSH_S, self.flush)
            except RuntimeError:
                self.flush()

    log = debug = info = msg

    def urgent(self, line: str) -> None:
        self._lines.append(line)
        self.flush()

    warning = warn = error = critical = exception = fatal = urgent

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            # Whoever reads our log may have gone; that must not end a request.
            with suppress(OSError, ValueError):
                self._out.write("\n".join(lines) + "\n")
                self._out.flush()


def configure(level: str, format_: str, redactor: Redactor, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records through one chain to `stream` (stderr)."""
    out = stream or sys.stderr
    threshold = _LEVELS[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redactor,
    ]
    renderer: Processor = (
        _json_line if format_ == "json" else structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_Factory(_Buffered(out)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared[1:-1]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redactor, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in (
        "httpx2",
        "httpx",
        "httpcore",
        "httpcore2",
        "openai",
        "anthropic",
        "aiosqlite",
        "uvicorn",
        "alembic",
        "watchfiles",
    ):
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def logger() -> Any:
    """The house's logger; events are `noun_verbed` with key=value."""
    return structlog.get_logger()
