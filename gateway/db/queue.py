"""The queue of jobs, on litestar-queues (decision 0015): whose turn it is, kept in tables of the library's own."""

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncEngine


class DurableQueue:
    """A `gateway.jobs.job.Queue`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open(self, run: Callable[[str], Awaitable[None]], *, at_once: int) -> None: ...

    async def put(self, id_: str, *, priority: int = 0) -> None: ...

    async def drop(self, id_: str) -> None: ...

    async def aclose(self) -> None: ...
