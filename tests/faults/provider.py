"""A provider of OpenAI's and Anthropic's dialects that fails as it is told: `python -m tests.faults.provider`.

A request's model says how: `FAULT[:ARGUMENT…][@ANYTHING]`, see `tests.faults.scripts`; what follows the @
sets models of one fault apart.  `POST /control` {"model": …, "fault": …} gives a model (null: all)
another fault, null its own again; {"forget": true} forgets what was seen.  `GET /control?model=…` tells
the requests seen, oldest first: when each came, what it said, and when its client left, if it did.
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import httpx2

from tests.faults.dialects import Ask, models
from tests.faults.exchange import Exchange
from tests.faults.program import running
from tests.faults.scripts import fault_of, script_of

SEEN_MAX = 20_000
_LISTED = ("ok", "noprefill", "restart", "other")


class Provider:
    def __init__(self) -> None:
        self._seen: deque[Exchange] = deque(maxlen=SEEN_MAX)
        self._counts: dict[str, int] = defaultdict(int)
        self._first: dict[str, float] = {}
        self._faults: dict[str | None, str] = {}
        """What was set by a control call, by model; None is for all."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection can take another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        lines = (line.partition(":") for line in head.lower().split("\r\n")[1:])
        length = next((int(value) for name, _, value in lines if name == "content-length"), 0)
        body = await reader.readexactly(length)
        if urlsplit(target).path in ("/control", "/v1/models"):
            await Exchange(Ask(target, b""), 0, writer).answer(self._tell(method, target, body))
            return True
        ask = Ask(target, body)
        number = self._counts[ask.model]
        self._counts[ask.model] += 1
        x = Exchange(ask, number, writer)
        self._seen.append(x)
        playing = asyncio.ensure_future(self._play(x))
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        x.over = time.monotonic()
        if not playing.done():
            x.left = x.over
        for task in (playing, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
        return x.left is None and not x.broken

    async def _play(self, x: Exchange) -> None:
        spec = self._faults.get(x.ask.model) or self._faults.get(None) or x.ask.model.partition("@")[0]
        first = self._first.setdefault(x.ask.model, x.arrived)
        found = script_of(fault_of(spec, x.number, x.arrived - first))
        if found is None or not x.ask.path.endswith(("/chat/completions", "/messages")):
            await x.answer(x.dialect.error("400"), "404 Not Found")
            return
        script, arguments = found
        await script(x, *arguments)

    def _tell(self, method: str, target: str, body: bytes) -> bytes:
        url = urlsplit(target)
        if url.path == "/v1/models":
            return models(_LISTED)
        if method == "POST":
            self._told(json.loads(body))
            return b"{}"
        wanted = parse_qs(url.query).get("model", [None])[0]
        requests = [x.record() for x in self._seen if wanted in (None, x.ask.model)]
        return json.dumps({"requests": requests}).encode()

    def _told(self, order: dict[str, Any]) -> None:
        if order.get("forget"):
            self._seen.clear()
            self._counts.clear()
            self._first.clear()
            self._faults.clear()
        elif (fault := order.get("fault")) is not None:
            self._faults[order.get("model")] = fault
        else:
            self._faults.pop(order.get("model"), None)


class Faults:
    """A provider that runs elsewhere, as tests see it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def seen(self, model: str | None = None) -> list[dict[str, Any]]:
        """The requests it has had, of a model or all: see `Exchange.record`."""
        query = "" if model is None else f"?model={quote(model, safe='')}"
        answer = httpx2.get(f"{self.url}/control{query}", timeout=30)
        return cast(list[dict[str, Any]], answer.json()["requests"])

    def set(self, fault: str | None, model: str | None = None) -> None:
        """Give a model, or all, another fault; None takes it back."""
        httpx2.post(f"{self.url}/control", json={"model": model, "fault": fault}, timeout=10)

    def forget(self) -> None:
        httpx2.post(f"{self.url}/control", json={"forget": True}, timeout=10)


@contextmanager
def faults() -> Iterator[Faults]:
    """Run one in a process of its own, on a free port."""
    with running("tests.faults.provider") as said:
        yield Faults(int(said["port"]))


async def serve(port: int) -> None:
    server = await asyncio.start_server(Provider().serve, "127.0.0.1", port, backlog=2048, limit=64 * 1024 * 1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0, help="0 takes a free one; a line of JSON says which")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.parse_args().port))
