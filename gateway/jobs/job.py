"""A job: long work that outlives the request that asked for it, and the process that does it."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from msgspec import Struct

JobStatus = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
UNFINISHED: frozenset[JobStatus] = frozenset({"queued", "running", "paused"})
STOPPED: frozenset[JobStatus] = frozenset({"paused", "cancelled"})
"""By somebody."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a job is."""

    phase: str = ""
    """What it does now: `downloading`, `verifying`, …"""
    bytes_done: int = 0
    bytes_total: int | None = None
    file: str | None = None
    """What it works on."""
    files_done: int = 0
    files_total: int | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None


class JobFailure(Struct, frozen=True, kw_only=True):
    """Why a job failed, in words for clients."""

    code: str
    message: str


class Job(Struct, frozen=True, kw_only=True):
    """Times are in seconds since 1970, UTC."""

    id: str
    """`job_…`, sortable."""
    kind: str
    tenant: str
    owner: str
    status: JobStatus
    priority: int = 0
    """The higher is done first."""
    target: str | None = None
    """What it is about: a model's id."""
    flight: str | None = None
    """Of two unfinished jobs of one tenant with the same, there is only one."""
    spec: dict[str, Any] = {}
    """All that is needed to do it, also after a restart; never a secret."""
    progress: Progress = Progress()
    error: JobFailure | None = None
    result: dict[str, Any] | None = None
    attempts: int = 0
    """How often it was begun; whoever does it may write to its row only while this is its own count."""
    fruitless: int = 0
    """Attempts that ended with their process since it last got any further."""
    created_at: float
    updated_at: float
    started_at: float | None = None
    ended_at: float | None = None


Report = Callable[[Progress], None]
"""Tells how far a job is; cheap, to be called as often as anything has changed."""


class Work(Protocol):
    """Does the jobs of one kind."""

    def __call__(self, job: Job, report: Report) -> Awaitable[dict[str, Any]]:
        """The job's result.  Called again with the same job after a restart: it goes on from what it finds.

        Raises GatewayError, by which the job fails.  Cancelled when the job is paused or cancelled, or the gateway
        stops; it then leaves everything as it can be gone on with, within a second.
        """
        ...


Settled = Callable[[Job], Awaitable[None]]
"""Told of a job that has been paused or cancelled, once its work has stopped: what it leaves behind is cleared away
before whoever asked for it hears of it.  Told again, by the next process, when this one died before it had returned, or
when it raised; a job that had failed may be cancelled, too."""


class Queue(Protocol):
    """Hands out the jobs whose rows say `queued`, and those `running` whose process has died: each to one at a time."""

    async def open(self, run: Callable[[str], Awaitable[None]], *, at_once: int) -> None:
        """Begin to hand out: `run` is called with a job's id, its row `running`, and cancelled by `drop`.

        A job that its row still calls `running` when `run` returns or is cancelled is `queued` again.
        """
        ...

    def resize(self, at_once: int) -> None:
        """Have room for so many from now on; none that runs is ended for it."""
        ...

    async def put(self, id_: str) -> None:
        """A row says `queued` now: have it run, once there is room, by this process or another on the same database."""
        ...

    async def drop(self, id_: str) -> bool:
        """A row says neither `queued` nor `running` any more: end what runs of it, wherever it does.

        True when it has stopped, or is known to be dead; False when it goes on in spite of it for some seconds, or
        the queue is closed meanwhile.
        """
        ...

    async def aclose(self) -> None:
        """Stop what runs here and give it back, so that it is gone on with at once after the next start."""
        ...
