"""Who generates in a session: one at a time, in the order in which they came.

Within a process they stand in a line; across processes a lease on the session's row keeps the others out.  Whoever
waits shows as queued, and leaves the line when its client leaves.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from backends.base import Wait
from compat.canonical.error import NotFound
from gateway.db.engine import FAILURES
from gateway.sessions.session import Session
from gateway.telemetry.logging import logger
from gateway.visit import new_id

if TYPE_CHECKING:
    from gateway.db.sessions import SessionRows

RENEW_S = 2.0
"""How often the leases are renewed: a third of what they last."""
ASK_S, ASK_MAX_S = 0.05, 0.4
"""How long after it was found held by another process a session is asked for again: at first, and at most."""
ID_MAX = 64


class Held:
    """A session, while one generates in it."""

    def __init__(self, session: Session, worker: str, leave: Callable[[], None]) -> None:
        self.session = session
        self.worker = worker
        self._leave: Callable[[], None] | None = leave
        self.over = False
        """Its lease has ended with the turn that was written."""
        self.writing: asyncio.Task[Any] | None = None
        """What is still being written of it, whoever has left."""

    def leave(self) -> None:
        """Let the next one have it, once everything is written; again does nothing."""
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()


class _Line:
    """Those who want one session: one has it, the others wait."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[asyncio.Future[None], Wait]] = deque()

    def number(self) -> None:
        for n, (_, wait) in enumerate(self.waiting):
            wait.queue_position = n


class Holding:
    """The sessions that are generated in, here."""

    def __init__(self, rows: "SessionRows") -> None:
        self._rows = rows
        self._lines: dict[tuple[str, str], _Line] = {}
        self._held: dict[str, set[str]] = {}
        """Ids of sessions by worker: each holding has a name of its own."""
        self._renewing: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(self, tenant: str, id_: str, wait: Wait) -> AsyncGenerator[Held, None]:
        """Have a session to oneself, once it is one's turn.  Raises NotFound."""
        key = tenant, id_
        await self._enter(key, wait)
        try:
            held = await self._take(tenant, id_, wait)
        except BaseException:
            self._leave(key)
            raise
        try:
            yield held
        finally:
            # Not by whoever may be cancelled meanwhile: the next one waits for what is still written.
            await asyncio.shield(self._follow(self._let_go(held)))

    def waiting(self, tenant: str, id_: str) -> int:
        """How many wait for a session in this process."""
        line = self._lines.get((tenant, id_))
        return 0 if line is None else len(line.waiting)

    async def settle(self) -> None:
        """Return when everything that was begun is written, and stop to renew."""
        await asyncio.gather(*self._settling, return_exceptions=True)
        if self._renewing is not None:
            self._renewing.cancel()

    async def _enter(self, key: tuple[str, str], wait: Wait) -> None:
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line()
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        one = place, wait
        line.waiting.append(one)
        line.number()
        began = _queued(wait)
        try:
            await place
        except asyncio.CancelledError:
            if one in line.waiting:
                line.waiting.remove(one)
                line.number()
            elif not place.cancelled():  # it was its turn already
                self._leave(key)
            raise
        finally:
            _served(wait, began)

    def _leave(self, key: tuple[str, str]) -> None:
        line = self._lines[key]
        while line.waiting:
            place, _ = line.waiting.popleft()
            line.number()
            if not place.done():
                place.set_result(None)
                return
        del self._lines[key]

    async def _take(self, tenant: str, id_: str, wait: Wait) -> Held:
        if len(id_) > ID_MAX or not id_.isprintable():
            raise absent(id_)
        worker, pause_s, began = new_id("w")[:40], ASK_S, None
        try:
            while True:
                taken = await self._finished(self._rows.take(tenant, id_, worker), worker, id_)
                if taken.session is None:
                    raise absent(id_)
                if taken.mine:
                    self._held.setdefault(worker, set()).add(id_)
                    if self._renewing is None or self._renewing.done():
                        self._renewing = asyncio.create_task(self._renew())
                    return Held(taken.session, worker, lambda: self._leave((tenant, id_)))
                if began is None:
                    began, wait.queue_position = _queued(wait), None
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, ASK_MAX_S)
        finally:
            if began is not None:
                _served(wait, began)

    async def _finished(self, taking: Coroutine[Any, Any, Any], worker: str, id_: str) -> Any:
        """What came of taking it; if whoever asked has left meanwhile, it is let go of again."""
        task = asyncio.ensure_future(taking)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:

            async def undo() -> None:
                await asyncio.gather(task, return_exceptions=True)
                await self._release(worker, id_)

            self._follow(undo())
            raise

    async def _let_go(self, held: Held) -> None:
        try:
            if held.writing is not None:
                await asyncio.gather(held.writing, return_exceptions=True)
            self._held.pop(held.worker, None)
            if not held.over:
                await self._release(held.worker, held.session.id)
        finally:
            held.leave()

    async def _release(self, worker: str, id_: str) -> None:
        try:
            await self._rows.release(worker, [id_])
        except FAILURES as e:  # the lease ends by itself
            logger().warning("session_not_released", error=type(e).__name__)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if not self._held:
                self._renewing = None
                return
            for worker, ids in list(self._held.items()):
                try:
                    await self._rows.renew(worker, ids)
                except FAILURES as e:
                    logger().warning("session_not_renewed", error=type(e).__name__)

    def _follow(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


def absent(id_: str) -> NotFound:
    """The refusal of a session that there is none of, or that is somebody else's."""
    return NotFound(f"Session with id '{id_[:200]}' not found.")


def _queued(wait: Wait) -> float:
    wait.held = True
    if wait.first_position is None:
        wait.first_position = wait.queue_position or 0
    return perf_counter()


def _served(wait: Wait, began: float) -> None:
    wait.held, wait.queue_position = False, None
    wait.queue_s += perf_counter() - began
