"""The places of a pool: a model's seat, a caller's ticket, and the lease that joins them.

Invariant: passive.  The pool's owner task alone changes seats and tickets; a lease changes nothing.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from backends.base import Call, Local
from backends.local.scheduler import Standing
from backends.local.worker import Failed, Worker
from compat.canonical.error import BadResponse, GatewayError, Unreachable, WorkerCrashed

DEATH_NOTICE_S = 1.0
"""How long after its connection broke a worker's death may become known."""


class Lease:
    """A slot of a worker, for as long as its context is open."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.url = worker.url
        self.key = worker.key
        self.engine = worker.engine

    async def death(self) -> Failed | None:
        """How the worker died; None when it lives.  For after the connection broke: waits a moment."""
        try:
            async with asyncio.timeout(DEATH_NOTICE_S):
                return await self._worker.gone()
        except TimeoutError:
            return None


class Ticket:
    """A caller's place: in the queue first, then among a worker's leases."""

    def __init__(self, local: Local, call: Call) -> None:
        self.local = local
        self.call = call
        self.since = now()
        self.granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def refuse(self, error: GatewayError) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)


class Seat:
    """A model's place in the pool: its worker, if any, and how it has fared.

    A seat without a keeper is empty; one with a keeper and no worker is loading.
    """

    def __init__(self, local: Local) -> None:
        self.local = local
        self.keeper: asyncio.Task[Failed | None] | None = None
        self.worker: Worker | None = None
        self.going = False
        self.leases: set[Ticket] = set()
        self.began_at = self.ready_at = self.used_at = self.idle_since = 0.0
        self.served = False
        """The worker has answered somebody."""
        self.failures = 0
        """In a row, without serving in between."""
        self.failure: Failed | None = None
        self.retry_at = 0.0

    def standing(self) -> Standing:
        if self.keeper is None:
            return Standing(state="out")
        # A worker may have died a moment before its keeper's word of it is read; the dead stay dead.
        going = self.going or (self.worker is not None and not self.worker.alive)
        return Standing(
            state="going" if going else "in" if self.worker else "coming",
            slots=self.worker.spec.slots if self.worker else 1,
            leased=len(self.leases),
            used_at=self.used_at,
            idle_since=self.idle_since,
        )


def now() -> float:
    """Seconds on the event loop's clock."""
    return asyncio.get_running_loop().time()


def headers(key: str) -> dict[str, str]:
    """What every request to a worker carries."""
    # Engines drop idle connections after seconds; one that is being dropped must not be reused.
    return {"authorization": f"Bearer {key}", "content-type": "application/json", "connection": "close"}


async def explained(error: GatewayError, lease: Lease) -> GatewayError:
    """The error as it is, or what is behind it: that the worker has died."""
    death = await lease.death()
    return WorkerCrashed(death.reason) if death else error


async def explaining(frames: AsyncGenerator[bytes, None], lease: Lease) -> AsyncGenerator[bytes, None]:
    """The frames of an answer; where they break off, with what is behind it."""
    try:
        async with aclosing(frames):
            async for events in frames:
                yield events
    except (Unreachable, BadResponse) as e:
        raise await explained(e, lease) from e
