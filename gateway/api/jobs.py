"""/v1/jobs: long work, as it stands, as a feed of events, paused, gone on with and ended.

A caller sees the jobs of its tenant that are about models it may use; others' are not there.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, Literal, get_args

import msgspec
from litestar import get, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import Struct
from sse_starlette import ServerSentEvent

from gateway.api.feed import event, feed
from gateway.api.resource import PAGE, PAGE_MAX, Asked, by_of, cursor_of, grant_of, number, page, word
from gateway.auth.keycard import moment
from gateway.auth.principal import Grant
from gateway.db.audit import Act
from gateway.house import House
from gateway.jobs import Jobs, absent
from gateway.jobs.job import Job, JobFailure, JobStatus, Progress

LOOK_S = 0.5
"""How often a feed looks whether the gateway is stopping."""


class JobCard(Struct, frozen=True, kw_only=True):
    """How a job stands; null is not known, or not yet."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    """`download`"""
    status: JobStatus
    target: str | None
    """What it is about: a model's id."""
    progress: Progress
    error: JobFailure | None
    """Why it failed."""
    result: dict[str, Any] | None
    priority: int
    """The higher is done first."""
    attempts: int
    """How often it was begun."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class JobList(Struct, frozen=True):
    """A page of jobs."""

    object: Literal["list"]
    data: list[JobCard]
    next_cursor: str | None
    """For the page after this one; null on the last."""


def card(job: Job) -> JobCard:
    """A job as its tenant sees it."""
    return JobCard(
        id=job.id,
        kind=job.kind,
        status=job.status,
        target=job.target,
        progress=job.progress,
        error=job.error,
        result=job.result,
        priority=job.priority,
        attempts=job.attempts,
        created_at=moment(job.created_at),
        updated_at=moment(job.updated_at),
        started_at=None if job.started_at is None else moment(job.started_at),
        ended_at=None if job.ended_at is None else moment(job.ended_at),
    )


def routes(house: House) -> list[Any]:
    def jobs() -> Jobs:
        return house.depot.jobs

    def tenant(request: Asked) -> str:
        return grant_of(request).principal.tenant

    async def held(request: Asked, id_: str) -> Job:
        """The job, if the caller may see it.  Raises NotFound."""
        job = await jobs().get(tenant(request), id_)
        if not _allows(grant_of(request), job):
            raise absent(id_)
        return job

    async def changed(
        request: Asked, id_: str, verb: str, change: Callable[[str, str, Act], Awaitable[Job]]
    ) -> JobCard:
        await held(request, id_)
        mine = tenant(request)
        return card(await change(mine, id_, by_of(request).act(f"job.{verb}", id_, mine)))

    @get(
        "/v1/jobs",
        opt={
            "scope": "models:read",
            "query": {
                "status": f"Only those that stand so: {', '.join(get_args(JobStatus))}.",
                "kind": "Only those of this kind, like `download`.",
                "limit": f"Jobs a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="List jobs",
        description="The tenant's jobs, the newest first; to a key that may not use every model only those about the "
        "models it may use.  Those that are over are kept for 30 days.",
    )
    async def list_jobs(request: Asked) -> JobList:
        limit, place = number(request, "limit", PAGE, PAGE_MAX, least=1), cursor_of(request)
        grant = grant_of(request)
        found = await jobs().page(
            tenant(request),
            status=word(request, "status", get_args(JobStatus)),
            kind=word(request, "kind"),
            limit=limit + 1,
            after=place,
            seen=partial(_allows, grant) if grant.restricted else None,
        )
        following = found[limit - 1].id if len(found) > limit else None
        return JobList(**page([card(job) for job in found], limit, following))

    @get(
        "/v1/jobs/{job_id:str}",
        opt={"scope": "models:read"},
        summary="Get a job",
        description="How a job stands, how far it is, and how it ended.",
    )
    async def get_job(request: Asked, job_id: FromPath[str]) -> JobCard:
        return card(await held(request, job_id))

    @get(
        "/v1/jobs/{job_id:str}/events",
        opt={"scope": "models:read", "events": "JobCard"},
        summary="Watch a job",
        description="Server-sent events, each with the whole standing: `queued`, `progress` while it is done, "
        "`paused`, and in the end `done`, `failed` or `cancelled`.  The first comes at once, then up to four a second; "
        "the stream ends with the job.",
    )
    async def watch_job(request: Asked, job_id: FromPath[str]) -> ASGIApp:
        await held(request, job_id)
        return feed(request, house, _events(house, tenant(request), job_id))

    @post(
        "/v1/jobs/{job_id:str}/cancel",
        opt={"scope": "models:write"},
        status_code=200,
        summary="Cancel a job",
        description="End a job for good; answers when its work has stopped.  What it has not finished is cleared away, "
        "of one that has failed as well.  One that is done is a conflict.",
    )
    async def cancel_job(request: Asked, job_id: FromPath[str]) -> JobCard:
        return await changed(request, job_id, "cancel", jobs().cancel)

    @post(
        "/v1/jobs/{job_id:str}/pause",
        opt={"scope": "models:write"},
        status_code=200,
        summary="Pause a job",
        description="Stop a job so that it can be gone on with; answers when its work has stopped.  One that is over "
        "is a conflict.",
    )
    async def pause_job(request: Asked, job_id: FromPath[str]) -> JobCard:
        return await changed(request, job_id, "pause", jobs().pause)

    @post(
        "/v1/jobs/{job_id:str}/resume",
        opt={"scope": "models:write"},
        status_code=200,
        summary="Resume a job",
        description="Go on with a job that is paused or has failed, from where it was.  One that is done or cancelled "
        "is a conflict.",
    )
    async def resume_job(request: Asked, job_id: FromPath[str]) -> JobCard:
        return await changed(request, job_id, "resume", jobs().resume)

    return [list_jobs, get_job, watch_job, cancel_job, pause_job, resume_job]


def _allows(grant: Grant, job: Job) -> bool:
    """Whether a job is about a model that the caller may use, or about none."""
    return job.target is None or grant.covers(job.target)


async def _events(house: House, tenant: str, id_: str) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(house.depot.jobs.watch(tenant, id_)) as news:
        coming = asyncio.ensure_future(anext(news, None))
        try:
            # A job may take hours, and is gone on with after the next start: who watches does not hold up the end.
            while not house.draining:
                if not (await asyncio.wait({coming}, timeout=LOOK_S))[0]:
                    continue
                if (job := coming.result()) is None:
                    return
                yield event("progress" if job.status == "running" else job.status, msgspec.json.encode(card(job)))
                coming = asyncio.ensure_future(anext(news, None))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
