"""Structured logs on standard error: one line a request, and events of the house.

Every line, third parties' included, goes through one `Sink`, which redacts it last: a secret that
strays into a message is replaced before it is written.  A line of JSON stays one, whatever is a secret.
"""

import asyncio
import atexit
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[redacted]"
LEAST = 8
"""Characters of a secret that is looked for; shorter ones would match too much."""
FLUSH_S = 0.05
"""How long a line of level info may wait for others, to be written with them."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_secretive = re.compile(r"(?i)authorization|x-api-key|api[_-]?key|.*secret.*|.*password.*|token|cookie").fullmatch
_tokens = re.compile(
    r"(?:\b|(?<=\\[nrt]))(?:(?:sk|pk|gsk|csk|hf)[-_]|xai-|ghp_|github_pat_|nvapi-|fw_)[A-Za-z0-9_\-]{8,}"
    r"|(?:\b|(?<=\\[nrt]))AIza[\w\-]{20,}|(?:\b|(?<=\\[nrt]))eyJ[\w\-]+\.[\w\-]+\.[\w\-]*|[Bb]earer\s+[\w\-.~+/]{16,}=*"
)
_MARKS = (
    "sk-",
    "sk_",
    "pk-",
    "pk_",
    "hf_",
    "hf-",
    "xai-",
    "ghp_",
    "github_pat_",
    "nvapi-",
    "fw_",
    "AIza",
    "eyJ",
    "rer ",
)
"""What any match of `_tokens` contains: looking for these first costs a hundredth of the pattern."""
_encode = msgspec.json.Encoder(enc_hook=str).encode
_uncommon = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9])(?!/)[A-Za-z0-9._~+/=-]{20,}|-----BEGIN [^\0]{1000,}").fullmatch
"""What no ordinary word is: a key, a token, or a private key's file."""
_OURS = frozenset({"timestamp", "level", "method", "route", "principal", "backend", "trace_id"})
"""Fields whose values are the house's own: what users call their secrets does not change them."""
_OUR_LOGGERS = ("backends.", "compat.")
_extra = structlog.stdlib.ExtraAdder()
DEPTH_MAX = 16


def masked(value: Any, mask: Callable[[str], str], depth: int = DEPTH_MAX) -> Any:
    """The same with all texts in it masked, names too; what lies deeper is left out."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, (dict, list)) and not depth:
        return MASK
    if isinstance(value, dict):
        return {mask(name): masked(part, mask, depth - 1) for name, part in value.items()}
    if isinstance(value, list):
        return [masked(part, mask, depth - 1) for part in value]
    return value


def resembles_secret(text: str) -> bool:
    """Whether it looks like one, whoever's: nothing of what is known decides."""
    return _tokens.search(text) is not None


class Redactor:
    """Replaces what looks like a secret, and every secret it has been told of.

    What users call their secrets is theirs to choose, so it must not change what is said to others: in answers each
    user's own are replaced and nobody else's, and in the log only what could not be an ordinary word.
    """

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}
        self._users: set[str] = set()
        self._own: list[str] = []
        """The house's."""
        self._known: list[str] = []
        """The house's and its users'."""

    def learn(self, secrets: Iterable[str], source: str = "configuration") -> None:
        """Take the secrets of a source, in place of those it had."""
        self._told[source] = _forms(secret for secret in secrets if len(secret) >= LEAST)
        self._own = _longest_first(set().union(*self._told.values()))
        self._known = _longest_first(self._users.union(self._own))

    def learn_users(self, secrets: Iterable[str]) -> None:
        """Take users' secrets, in place of those they had."""
        self._users = _forms(filter(_uncommon, secrets))
        self._known = _longest_first(self._users.union(self._own))

    def __call__(self, text: str) -> str:
        """For what the house keeps to itself."""
        return _replaced(text, self._known)

    def answer(self, text: str, own: Iterable[str]) -> str:
        """For what a user is told, who has secrets of their own."""
        return _replaced(text, [*_longest_first(_forms(word for word in own if len(word) >= LEAST)), *self._own])

    def line(self, line: str) -> str:
        """A line of the log; where it is JSON, it stays so."""
        found = self(line)
        if found == line or not line.startswith("{"):
            return found
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return found
        for name, value in fields.items():
            fields[name] = masked(value, partial(_replaced, secrets=self._own) if name in _OURS else self)
        return _encode(fields).decode()


def _replaced(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    for mark in _MARKS:
        if mark in text:
            return _tokens.sub(MASK, text)
    return text


def _forms(secrets: Iterable[str]) -> set[str]:
    """Them, and as they look inside JSON."""
    return {
        form
        for secret in secrets
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    }


def _longest_first(secrets: Iterable[str]) -> list[str]:
    return sorted(secrets, key=len, reverse=True)


class Sink:
    """Where lines end up: redacted, collected for a moment, and written at once.

    A write per line would be a tenth of a request's CPU.  Warnings and worse, and lines from outside
    an event loop, go out immediately, with all before them.
    """

    def __init__(self, out: TextIO, redactor: Redactor) -> None:
        self._out = out
        self._redact = redactor.line
        self._lines: list[str] = []
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> "Sink":
        """As structlog's logger factory: one sink for all loggers."""
        return self

    def msg(self, line: str) -> None:
        self._lines.append(self._redact(line))
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
            except RuntimeError:
                self.flush()

    debug = info = msg

    def urgent(self, line: str) -> None:
        self._lines.append(self._redact(line))
        self.flush()

    warning = error = critical = urgent

    def write(self, text: str) -> None:
        """As the standard library's stream."""
        if text := text.rstrip("\n"):
            self.urgent(text)

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
    sink, threshold = Sink(out, redactor), _LEVELS[level]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_names,
    ]
    renderer: Processor = (
        _json_line
        if format_ == "json" or (format_ == "auto" and not out.isatty())
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=sink,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _lift, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Third parties tell of statements, headers and bodies below this.
    root.setLevel(max(threshold, logging.WARNING))


def logger() -> Any:
    """The house's logger; events are `noun_verbed` with key=value."""
    return structlog.get_logger()


def line_logger(event: str) -> Callable[..., None]:
    """A logger for one event that is written at every request: called with the line's fields.

    All their names and values are ours, so the chain's steps are taken in one.
    """
    config = structlog.get_config()
    sink, renderer = config["logger_factory"], config["processors"][-1]
    if not isinstance(sink, Sink) or renderer is not _json_line:
        return partial(logger().bind().info, event)
    if not logger().bind().is_enabled_for(logging.INFO):
        return lambda **_: None

    def write(**fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        sink.msg(_encode({"timestamp": at, "level": "info", "event": event, **fields}).decode())

    return write


def _json_line(logger: WrappedLogger, method: str, event: EventDict) -> str:  # noqa: ARG001
    # What a reader looks for first stands first.
    head = {name: event.pop(name, None) for name in ("timestamp", "level", "event")}
    return _encode({**head, **event}).decode()


def _lift(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The fields that our own packages, which know nothing of this chain, gave a record as `extra`.

    Third parties' extras are meant for handlers of their own.
    """
    record = event.get("_record")
    if isinstance(record, logging.LogRecord) and record.name.startswith(_OUR_LOGGERS):
        return _extra(logger, method, event)
    return event


def _mask_names(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    for name in event:
        if _is_secretive(name):
            event[name] = MASK
    return event


@lru_cache(maxsize=1024)
def _is_secretive(name: str) -> bool:
    return _secretive(name) is not None
