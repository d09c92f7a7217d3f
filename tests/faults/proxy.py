"""A proxy that spoils connections to a healthy provider: `python -m tests.faults.proxy --to PORT FAULT…`.

Every fault gets a port of its own; a line of JSON says which.  Bytes are those of the answer, its head
included, on one connection.

latency:SECONDS   each direction is late
rate:BYTES        so many bytes a second
reset:BYTES       a reset after so many bytes; 0: as soon as the request comes
cut:BYTES         the connection is closed after so many bytes
half:BYTES        it is closed in one direction after so many bytes
stall:BYTES       silence after so many bytes
blackhole         the connection is taken and nothing comes of it
refuse            nobody listens
"""

import argparse
import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.faults.exchange import SETTLE_S, abort, forever
from tests.faults.program import running

PIECE_BYTES = 65_536


class Proxy:
    """One fault's port."""

    def __init__(self, fault: str, port: int) -> None:
        self._fault, _, amount = fault.partition(":")
        self._amount = float(amount or 0)
        self._port = port

    async def serve(self, client: asyncio.StreamReader, answering: asyncio.StreamWriter) -> None:
        if self._fault == "blackhole":
            await _gone(client)
            answering.close()
            return
        provider, asking = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.ensure_future(self._up(client, asking))
        down = asyncio.ensure_future(self._down(provider, answering))
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
        for writer in (asking, answering):
            writer.close()

    async def _up(self, client: asyncio.StreamReader, asking: asyncio.StreamWriter) -> None:
        while data := await client.read(PIECE_BYTES):
            if self._fault == "latency":
                await asyncio.sleep(self._amount)
            asking.write(data)
            await asking.drain()

    async def _down(self, provider: asyncio.StreamReader, answering: asyncio.StreamWriter) -> None:
        breaks = self._fault in ("reset", "cut", "half", "stall")
        left = int(self._amount) if breaks else None
        while True:
            size = PIECE_BYTES if left is None else left + 1
            data = await provider.read(min(size, 64 if self._fault == "rate" else PIECE_BYTES))
            if not data:
                return
            if self._fault == "latency":
                await asyncio.sleep(self._amount)
            elif self._fault == "rate":
                await asyncio.sleep(len(data) / self._amount)
            answering.write(data if left is None else data[:left])
            await answering.drain()
            if left is not None and len(data) > left:
                await self._break(answering)
                return
            left = None if left is None else left - len(data)

    async def _break(self, answering: asyncio.StreamWriter) -> None:
        # What was passed on is to be read first: a reset overtakes it.
        await asyncio.sleep(SETTLE_S)
        if self._fault == "reset":
            abort(answering)
        elif self._fault == "half":
            answering.write_eof()
            await forever()
        elif self._fault == "stall":
            await forever()


async def _gone(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(PIECE_BYTES):
            pass


async def serve(to: int, faults: Sequence[str]) -> None:
    ports, bound = {}, []
    for fault in faults:
        if fault == "refuse":
            # Bound, so that nobody else takes the port, and never listening.
            closed = socket.socket()
            closed.bind(("127.0.0.1", 0))
            bound.append(closed)
            ports[fault] = closed.getsockname()[1]
            continue
        server = await asyncio.start_server(Proxy(fault, to).serve, "127.0.0.1", 0, backlog=512)
        ports[fault] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await forever()


@contextmanager
def proxy(to: int, faults: Sequence[str]) -> Iterator[dict[str, int]]:
    """Run one in a process of its own; gives each fault's port."""
    with running("tests.faults.proxy", "--to", str(to), *faults) as ports:
        yield ports


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--to", type=int, required=True, help="the provider's port")
    arguments.add_argument("faults", nargs="+")
    given = arguments.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(given.to, given.faults))
