"""What is said to a worker behind a lease, and what it says back.

Invariant: what comes is noted as a sign of life, and what breaks off because the worker died says so.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace
from yarl import URL

from backends.base import Call, Held, Relayed
from backends.local.pool.seat import Lease
from backends.relay import Tap, Wire
from compat.canonical.error import BadResponse, GatewayError, Unreachable, WorkerCrashed


def headers(key: str) -> dict[str, str]:
    """What every request to a worker carries."""
    # Engines drop idle connections after seconds; one that is being dropped must not be reused.
    return {"authorization": f"Bearer {key}", "content-type": "application/json", "connection": "close"}


async def answer_of(wire: Wire, lease: Lease, path: str, body: bytes, tap: Tap, call: Call) -> bytes:
    """An answer that is not streamed: for what takes the engine a moment.  Raises GatewayError."""
    try:
        relayed = await wire.send(URL(lease.url + path), headers(lease.key), body, tap, call, stream=False)
    except (Unreachable, BadResponse) as e:
        raise await _explained(e, lease) from e
    lease.heard()
    return relayed.body or b""


async def stream_of(
    wire: Wire, lease: Lease, path: str, body: bytes, tap: Tap, call: Call, *, tells_progress: bool = False
) -> tuple[Relayed, AsyncGenerator[bytes, None]]:
    """An answer as it comes, and its frames, which are to be closed.  Raises GatewayError."""
    url = URL(lease.url + path)
    try:
        relayed = await wire.send(url, headers(lease.key), body, tap, call, stream=True, tells_progress=tells_progress)
    except (Unreachable, BadResponse) as e:
        raise await _explained(e, lease) from e
    assert relayed.frames is not None
    # Closed before its first step, the generator around the frames would never reach them.
    frames = Held(_explaining(relayed.frames, lease), relayed.frames.aclose)
    return replace(relayed, frames=frames), frames


async def _explained(error: GatewayError, lease: Lease) -> GatewayError:
    """The error as it is, or what is behind it: that the worker has died."""
    death = await lease.death()
    return WorkerCrashed(death.reason) if death else error


async def _explaining(frames: AsyncGenerator[bytes, None], lease: Lease) -> AsyncGenerator[bytes, None]:
    """The frames of an answer, each a sign of life; where they break off, with what is behind it."""
    try:
        async with aclosing(frames):
            async for events in frames:
                lease.heard()
                yield events
    except (Unreachable, BadResponse) as e:
        raise await _explained(e, lease) from e
