"""A provider on loopback that speaks Anthropic's Messages dialect, byte for byte from `tests/fixtures/anthropic`.

The requested model's name says what it does, as in `tests.provider`: a fixture's name plays that
fixture, and `claude-opus-4-6:text` does too, for models whose generation matters.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.exchange import Exchange
from tests.provider import Provider, _Connection

FIXTURES = Path(__file__).parent / "fixtures" / "anthropic"
BODY_CANARY = "claude-body-canary-2291"
_HEADERS = {"request-id": "req_011CZTSUs5qZwEwHKSvppcnq", "anthropic-ratelimit-requests-remaining": "41"}


def fixture(name: str) -> bytes:
    """A golden file of Anthropic's dialect."""
    return (FIXTURES / name).read_bytes()


def frames(name: str) -> list[bytes]:
    """The events of a golden stream, separators included."""
    return [event + b"\n\n" for event in fixture(name).split(b"\n\n") if event]


class Claude(Provider):
    count = b'{"input_tokens":2095}'
    """What it answers to a request to count tokens."""

    def forget(self) -> None:
        super().forget()
        self.count = Claude.count

    async def play(self, exchange: Exchange) -> None:
        with self._news:
            self.seen.append(exchange)
            self._news.notify_all()
        path = exchange.path.partition("?")[0]
        script, _, argument = exchange.model.removeprefix("claude-opus-4-6:").partition(":")
        if path == "/v1/models":
            exchange.answer(fixture("models.json"))
        elif path == "/v1/messages/count_tokens":
            exchange.answer(self.count)
        elif custom := self.scripts.get(exchange.model):
            await custom(exchange)
        elif script == "status":
            name = "error_429.json" if argument == "429" else "error_400.json"
            body = fixture(name).replace(b"Invalid", BODY_CANARY.encode() + b" Invalid")
            exchange.answer(body, f"{argument} Refused", **_HEADERS)
        elif script == "cut":
            await send(exchange, [e for e in frames("text.sse") if b"message_stop" not in e])
            exchange.end()
        elif script == "stall":
            await send(exchange, frames("text.sse")[:4])
            await asyncio.Event().wait()
        elif not exchange.streams:
            exchange.answer(fixture(f"{script or 'text'}.json"), **_HEADERS)
        else:
            await send(exchange, frames(f"{script or 'text'}.sse"))
            exchange.end()


async def send(exchange: Exchange, events: list[bytes]) -> None:
    head = "".join(f"\r\n{name}: {value}" for name, value in _HEADERS.items())
    exchange.begin("text/event-stream; charset=utf-8" + head)
    for event in events:
        exchange.send(event)
        await asyncio.sleep(0)


@contextmanager
def claude() -> Iterator[Claude]:
    """Run one on a free port, in a thread with a loop of its own; `url` is without /v1."""
    running = Claude()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(running), "127.0.0.1", 0, backlog=512))
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    try:
        yield running
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def events(body: bytes) -> list[tuple[str, dict[str, object]]]:
    """A Messages stream as pairs of name and data, pings left out."""
    found = []
    for event in body.split(b"\n\n"):
        if event and not event.startswith(b"event: ping"):
            name, _, data = event.partition(b"\n")
            found.append((name.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))))
    return found
