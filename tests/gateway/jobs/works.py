"""A gateway that does jobs of a kind of their own, put by another process, as a replica would."""

import asyncio
from pathlib import Path
from typing import Any

from gateway.db.engine import connect
from gateway.db.jobs import JobRows
from gateway.jobs.job import Job, Progress
from gateway.visit import new_id

PRELUDE = """
import asyncio
import gateway.db.queue
import gateway.depot
from compat.canonical.error import Corrupted
from gateway.jobs.job import Progress

async def work(job, report):
    done, total = job.progress.bytes_done, job.spec["bytes"]
    while done < total:
        await asyncio.sleep(0.02)
        done += job.spec["step"]
        report(Progress(phase="downloading", bytes_done=min(done, total), bytes_total=total, file="a.gguf"))
    if job.spec.get("fails"):
        raise Corrupted("The file is not what its hash says.")
    return {"model": job.target}

begin = gateway.depot.Depot.open

async def open_with_work(self):
    self.jobs._kinds = {**self.jobs._kinds, "fake": work}
    await begin(self)

gateway.depot.Depot.open = open_with_work
gateway.db.queue.POLL_S = gateway.db.queue.IDLE_S = 0.1
"""


def put(
    folder: Path,
    *,
    tenant: str = "acme",
    bytes_: int = 2**30,
    step: int = 2**20,
    target: str = "local/new-model",
    **spec: Any,
) -> str:
    """Put a job into the database of the gateway of this folder; its id."""
    job = Job(
        id=new_id("job"),
        kind="fake",
        tenant=tenant,
        owner="ann",
        status="queued",
        target=target,
        spec={"bytes": bytes_, "step": step, **spec},
        progress=Progress(bytes_total=bytes_),
        created_at=1763769600.0,
        updated_at=1763769600.0,
    )

    async def write() -> None:
        engine = connect(f"sqlite+aiosqlite:///{folder}/data/gateway.db")
        await JobRows(engine).put(job)
        await engine.dispose()

    asyncio.run(write())
    return job.id
