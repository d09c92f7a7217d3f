"""Jobs: asked for by a request, done by a queue, watched and ended by their tenant."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from gateway.db.jobs import JobRows
from gateway.jobs.job import Job, Queue, Work


class Jobs:
    """Open while the application runs.  A job's row is the truth; the queue only says whose turn it is."""

    def __init__(self, rows: JobRows, queue: Queue, kinds: Mapping[str, Work]) -> None:
        self._rows = rows
        self._queue = queue
        self._kinds = kinds

    async def open(self, *, at_once: int) -> None:
        """Begin to do what is to be done, and go on with what was begun before."""

    async def put(
        self,
        kind: str,
        spec: Mapping[str, Any],
        *,
        tenant: str,
        owner: str,
        target: str | None = None,
        flight: str | None = None,
        priority: int = 0,
        total_bytes: int | None = None,
    ) -> tuple[Job, bool]:
        """Have a job done; the unfinished one of the same tenant and flight, if there is one, and whether it is new."""
        raise NotImplementedError

    async def get(self, tenant: str, id_: str) -> Job:
        """Raises NotFound."""
        raise NotImplementedError

    async def page(
        self, tenant: str, *, status: str | None = None, kind: str | None = None, limit: int, after: str | None = None
    ) -> list[Job]:
        """The newest first; `after` is the id of the last one of the page before."""
        raise NotImplementedError

    async def unfinished(self) -> list[Job]:
        """Everybody's."""
        raise NotImplementedError

    async def pause(self, tenant: str, id_: str) -> Job:
        """Stop it so that it can be gone on with.  Raises NotFound, or Conflict when it is over."""
        raise NotImplementedError

    async def resume(self, tenant: str, id_: str) -> Job:
        """Go on with a paused or a failed one.  Raises NotFound, or Conflict."""
        raise NotImplementedError

    async def cancel(self, tenant: str, id_: str) -> Job:
        """End it for good; returns when its work has stopped.  Raises NotFound, or Conflict when it is over."""
        raise NotImplementedError

    def watch(self, tenant: str, id_: str) -> AsyncGenerator[Job, None]:
        """The job as it stands, at once and whenever that has changed, until it is over.  Raises NotFound."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop what runs here, to be gone on with after the next start."""
