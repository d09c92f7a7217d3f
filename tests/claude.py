"""A provider on loopback that speaks Anthropic's Messages dialect, byte for byte from `tests/fixtures/anthropic`.

The requested model's name says what it does, as in `tests.provider`: a fixture's name plays that
fixture, and `claude-opus-4-6:text` does too, for models whose generation matters.
"""

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

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


def whole(stream: Iterable[bytes]) -> bytes:
    """The body that says at once what these events say one by one; inputs keep their spelling."""
    body: dict[str, Any] = {}
    block: dict[str, Any] = {}
    spelled = ""
    told: list[tuple[str, Any]] = list(events(b"".join(stream)))
    for name, event in told:
        match event:
            case {"message": message}:
                body = message
            case {"content_block": begun}:
                body["content"].append(block := begun)
                spelled = ""
            case {"delta": {"type": "citations_delta", "citation": citation}}:
                block["citations"] = [*(block["citations"] or ()), citation]
            case {"delta": {"type": "signature_delta", "signature": signature}}:
                block["signature"] = signature
            case {"delta": {"type": "input_json_delta", "partial_json": piece}}:
                spelled += piece
            case {"delta": {"type": ("text_delta" | "thinking_delta") as kind} as delta}:
                block[kind.removesuffix("_delta")] += delta[kind.removesuffix("_delta")]
            case {"delta": stop, "usage": usage}:
                body |= stop
                body["usage"] |= usage
        if name == "content_block_stop" and spelled:
            block["input"] = msgspec.Raw(spelled.encode())
    return msgspec.json.encode(body)


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
        elif path == "/v1/messages/count_tokens" and script != "status":
            exchange.answer(self.count)
        elif custom := self.scripts.get(exchange.model):
            await custom(exchange)
        elif script == "status":
            name = "error_429.json" if argument == "429" else "error_400.json"
            body = fixture(name).replace(b"Invalid", BODY_CANARY.encode() + b" Invalid")
            exchange.answer(body, f"{argument} Refused", **_HEADERS)
        elif script == "cut":
            # A whole answer breaks off in its middle.
            await _send(exchange, frames("text.sse")[:-1] if exchange.streams else [fixture("text.json")[:200]])
            exchange.end()
        elif script == "stall":
            await _send(exchange, frames("text.sse")[:4] if exchange.streams else [])
            await asyncio.Event().wait()
        elif exchange.streams:
            await tell(exchange, frames(f"{script or 'text'}.sse"))
        elif script == "overloaded":
            exchange.answer(fixture("overloaded.sse").rpartition(b"data: ")[2].strip(), "529 Overloaded", **_HEADERS)
        elif (FIXTURES / f"{script or 'text'}.json").exists():
            exchange.answer(fixture(f"{script or 'text'}.json"), **_HEADERS)
        else:
            await tell(exchange, frames(f"{script}.sse"))


async def tell(exchange: Exchange, events: list[bytes]) -> None:
    """Answer as asked: event by event, or with the body that they stand for."""
    if not exchange.streams:
        exchange.answer(whole(events), **_HEADERS)
        return
    await _send(exchange, events)
    exchange.end()


async def _send(exchange: Exchange, pieces: list[bytes]) -> None:
    head = "".join(f"\r\n{name}: {value}" for name, value in _HEADERS.items())
    exchange.begin(("text/event-stream; charset=utf-8" if exchange.streams else "application/json") + head)
    for piece in pieces:
        exchange.send(piece)
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
