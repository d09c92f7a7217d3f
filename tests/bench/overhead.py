"""What governing costs: CPU that a key, limits and usage add to a relayed request, measured inside one process.

The same application several times, each with one thing more switched on, before a backend that answers at once.  They
take turns, in many short rounds, so that a busy machine meets all of them; the figure is the median of the rounds' own
differences.  CPU is the process's, threads that write to the database included.
"""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

from litestar.types import HTTPScope, Message, Receive, Scope, Send
from msgspec import Struct

from backends.base import Call, Relayed
from compat.canonical.request import Envelope
from compat.taps import tap
from gateway.app import Application
from gateway.archive import Archive
from gateway.config import load
from gateway.db.engine import connect, upgrade
from gateway.secrets import own_secrets
from gateway.visit import Visit
from tests.bench import chat
from tests.bench.contestants import KEY
from tests.bench.report import Table
from tests.bench.workload import OPENAI

TARGET_US = 60.0
REQUESTS = 500
"""In one turn: as many rows as are written to the database at once under load."""
_HIGH = {"requests_per_minute": 1_000_000_000, "tokens_per_minute": 1_000_000_000, "concurrent": 1_000_000}
_AUTH = {"mode": "api_key", "keys": [{"name": "bench", "key": KEY, "tenant": "acme", "models": None}]}
_LIMITS = {"default": _HIGH, "users": {"*": _HIGH}, "tenants": {"acme": _HIGH}, "models": {OPENAI: _HIGH}}
_HEADERS = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"authorization", f"Bearer {KEY}".encode()),
    (b"user-agent", b"OpenAI/Python 3.54.0"),
]


_ANSWER = chat.answer()


class Variant(Struct, frozen=True):
    name: str
    auth: bool = False
    limits: bool = False
    usage: bool = False


ALONE = Variant("the relay alone")
ALL = Variant("all of it", auth=True, limits=True, usage=True)
VARIANTS = (
    ALONE,
    Variant("a key", auth=True),
    Variant("limits of key, user, tenant and model", limits=True),
    Variant("usage, with its cost and its row", usage=True),
    ALL,
)


class _Here:
    """A client's connection, which stays."""

    late = False

    def answering(self) -> None:
        return

    def watch(self, on_leaving: Callable[[], None]) -> None:
        return

    def unwatch(self, on_leaving: Callable[[], None]) -> None:
        return


class Governed:
    """An application with some of it switched on."""

    def __init__(self, variant: Variant, folder: Path) -> None:
        folder.mkdir(parents=True)
        tree = {
            "data_dir": str(folder),
            "auth": _AUTH if variant.auth else {},
            "limits": _LIMITS if variant.limits else {},
            "backends": {"up": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k"}},
            "models": {OPENAI: {"routes": ["up/gpt-4o-mini"]}},
            "prices": {"up/*": {"input": 0.15, "output": 0.6}},
            "telemetry": {"log_level": "error"},
        }
        file = folder / "config.yaml"
        file.write_text(json.dumps(tree))
        self._config = config = load(file, {})
        self._app = Application(config)
        self._house = self._app.house
        self._house.estate.backends["up"].relay = _answered  # type: ignore[attr-defined]
        self._engine = connect(config.database_url)
        self._usage = variant.usage
        self._writing: asyncio.Task[None] | None = None
        if not variant.usage:
            # Metrics and the log stay: they are there for whoever asks.
            self._house.ledger.settle = partial(_unpaid, self._house.ledger.settle)  # type: ignore[method-assign]
        self._body = chat.asked(OPENAI, stream=False)

    async def open(self) -> None:
        await upgrade(self._engine)
        archive = Archive(self._engine, self._house, own_secrets(self._config), self._app.redactor)
        await archive.accounts.look()
        self._house.archive = archive
        if self._usage:
            self._writing = asyncio.create_task(self._house.ledger.write_to(archive.usage))

    async def turn(self, count: int) -> float:
        """CPU seconds of so many requests, all that is done for them included."""
        gc.collect()
        before = time.process_time()
        for _ in range(count):
            await self._ask()
        self._house.ledger.account()
        if self._writing is not None:
            await self._house.ledger.caught_up(5.0)
        return time.process_time() - before

    async def aclose(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        await self._engine.dispose()

    async def _ask(self) -> None:
        scope: Mapping[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": _HEADERS,
            "presence": _Here(),
        }
        status = 0

        async def receive() -> Message:
            return cast(Message, {"type": "http.request", "body": self._body, "more_body": False})

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        await self._app.asgi(cast(Scope, cast(HTTPScope, scope)), cast(Receive, receive), cast(Send, send))
        assert status == 200, status


async def _answered(envelope: Envelope, model: str, call: Call) -> Relayed:
    watch = tap(envelope)
    return Relayed(headers=(), tally=watch, body=watch.whole(_ANSWER))


def _unpaid(settle: Callable[[Visit], None], visit: Visit) -> None:
    visit.principal = visit.prices = None
    settle(visit)


async def _measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    governed = {variant.name: Governed(variant, folder / str(n)) for n, variant in enumerate(VARIANTS)}
    for one in governed.values():
        await one.open()
        await one.turn(REQUESTS)
    collecting = gc.get_threshold()
    # As the server does when it has started.
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 20)
    seen: dict[str, list[float]] = {name: [] for name in governed}
    for n in range(rounds):
        order = list(governed.items())
        # Each comes after every other one in turn: what one leaves behind is not always the same one's burden.
        for name, one in order[n % len(order) :] + order[: n % len(order)]:
            seen[name].append(1e6 * await one.turn(REQUESTS) / REQUESTS)
    gc.unfreeze()
    gc.set_threshold(*collecting)
    for one in governed.values():
        await one.aclose()
    return seen


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Median CPU µs a request: of the relay alone, and what each thing adds to it."""
    seen = asyncio.run(_measure(folder, rounds))
    alone = seen[ALONE.name]
    added = {
        name: median(us - base for us, base in zip(turns, alone, strict=True))
        for name, turns in seen.items()
        if name != ALONE.name
    }
    return {ALONE.name: median(alone)} | added


def table(figures: Mapping[str, float]) -> Table:
    rows: list[tuple[str, ...]] = [(ALONE.name, f"{figures[ALONE.name]:.0f}", "", "")]
    for name, us in figures.items():
        if name == ALL.name:
            rows.append((name, f"+{us:.1f}", f"< {TARGET_US:g}", "met" if us < TARGET_US else "MISSED"))
        elif name != ALONE.name:
            rows.append((name, f"{us:+.1f}", "", ""))
    return Table("What keys, limits and usage add to a relayed request", ("", "CPU µs/req", "target", ""), rows)
