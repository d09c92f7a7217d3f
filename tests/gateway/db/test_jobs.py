"""Rows of jobs, on every database the gateway runs on."""

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.audit import Act, AuditRows
from gateway.db.engine import connect, upgrade
from gateway.db.jobs import JobRows, Taken
from gateway.jobs.job import UNFINISHED, Job, JobFailure, JobStatus, Progress

ACT = Act(actor="root", action="job.pause", target="job_0", tenant="?")


def job(n: int = 0, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": f"job_{n:032x}",
        "kind": "download",
        "tenant": "acme",
        "owner": "ann",
        "status": "queued",
        "priority": 3,
        "target": "local/é\U0001f642",
        "spec": {"repo": "org/name", "nul": "\x00", "nested": [{"a": 1}]},
        "progress": Progress(bytes_total=2**40),
        "created_at": 1763769600.0 + n,
        "updated_at": 1763769600.0 + n,
    }
    return Job(**(fields | changes))


@pytest.fixture
async def rows(engine: AsyncEngine) -> JobRows:
    await upgrade(engine)
    return JobRows(engine)


async def test_a_job_is_kept_whole_and_is_its_tenants(rows: JobRows) -> None:
    failed = JobFailure(code="corrupted", message="é")
    ended = job(1, status="failed", error=failed, result={"a": [None]}, started_at=2.0, ended_at=3.0, attempts=4)
    for one in (job(), ended):
        assert await rows.put(one) == (one, True)
        assert await rows.get(one.id) == one
    assert await rows.get(job().id, "acme") == job()
    assert await rows.get(job().id, "other") is None
    assert await rows.get("job_unknown") is None


async def test_of_many_that_ask_for_the_same_at_once_one_gets_a_new_job(url: str) -> None:
    engines = [connect(url) for _ in range(4)]
    await upgrade(engines[0])
    asked = [JobRows(engines[n % 4]).put(job(n, flight="org/name@1")) for n in range(8)]
    answers = await asyncio.gather(*asked)
    assert sorted(new for _, new in answers) == [False] * 7 + [True]
    [first] = [found for found, new in answers if new]
    assert all(found == first for found, _ in answers)
    rows = JobRows(engines[0])
    assert (await rows.put(job(8, flight="org/name@1", tenant="other")))[1], "another tenant has its own"
    assert await rows.move("acme", first.id, "cancelled", UNFINISHED) is not None
    assert (await rows.put(job(9, flight="org/name@1")))[1], "one that is over is in nobody's way"
    for engine in engines:
        await engine.dispose()


async def test_a_failed_job_is_not_gone_on_with_beside_another_of_its_flight(rows: JobRows) -> None:
    await rows.put(job(0, flight="f"))
    await rows.move("acme", job(0).id, "failed", ["queued"])
    await rows.put(job(1, flight="f"))
    with pytest.raises(Taken):
        await rows.move("acme", job(0).id, "queued", ["failed"])
    assert (await rows.get(job(0).id) or job()).status == "failed"


@pytest.mark.parametrize(("of", "moved"), [(("queued", "running"), True), (("paused",), False)])
async def test_a_status_changes_only_from_those_named_and_with_its_note(
    rows: JobRows, engine: AsyncEngine, of: tuple[JobStatus, ...], moved: bool
) -> None:
    await rows.put(job())
    assert await rows.move("other", job().id, "paused", of, ACT) is None
    found = await rows.move("acme", job().id, "paused", of, ACT)
    assert (found is not None) is moved
    assert (await rows.get(job().id) or job()).status == ("paused" if moved else "queued")
    assert [act.tenant for act in await AuditRows(engine).page(9)] == ["acme"] * moved


async def test_going_on_forgets_how_it_failed(rows: JobRows) -> None:
    await rows.put(job(status="failed", error=JobFailure(code="x", message="y"), ended_at=5.0, fruitless=7))
    found = await rows.move("acme", job().id, "queued", ["failed"])
    assert found is not None
    assert (found.error, found.ended_at, found.fruitless) == (None, None, 0)


async def test_what_was_stopped_is_unsettled_until_it_is_said_to_be_settled(rows: JobRows) -> None:
    for n in range(3):
        await rows.put(job(n, status="running"))
    await rows.move("other", job(0).id, "cancelled", UNFINISHED)
    assert await rows.unsettled() == []
    paused = await rows.move("acme", job(0).id, "paused", UNFINISHED)
    cancelled = await rows.move("acme", job(1).id, "cancelled", UNFINISHED)
    assert paused is not None
    assert cancelled is not None
    assert [one.id for one in await rows.unsettled()] == [job(0).id, job(1).id]
    assert [one.id for one in await rows.unsettled(job(1).id)] == [job(1).id]
    await rows.settle(cancelled)
    await rows.settle(msgspec.structs.replace(paused, attempts=7))
    assert [one.id for one in await rows.unsettled()] == [job(0).id], "it was begun again since"
    await rows.move("acme", job(0).id, "queued", ["paused"])
    assert await rows.unsettled() == []


async def test_only_the_last_attempt_may_write(rows: JobRows) -> None:
    mine = job(status="running", attempts=2, fruitless=2)
    stale = msgspec.structs.replace(mine, attempts=1)
    await rows.put(mine)
    far = Progress(bytes_done=5)
    await rows.advance(stale, far, further=True)
    assert not await rows.end(stale, {}, far)
    assert await rows.get(mine.id) == mine
    await rows.advance(mine, far, further=False)
    assert ((await rows.get(mine.id)) or mine).fruitless == 2
    await rows.advance(mine, far, further=True)
    found = await rows.get(mine.id)
    assert found is not None
    assert (found.fruitless, found.progress) == (0, far)
    assert await rows.end(mine, {"model": "m"}, far)
    assert not await rows.end(mine, JobFailure(code="x", message="y"), far), "it is over"
    found = await rows.get(mine.id)
    assert found is not None
    assert (found.status, found.result, found.error) == ("done", {"model": "m"}, None)
    assert found.ended_at is not None


async def test_jobs_are_listed_newest_first_and_filtered(rows: JobRows) -> None:
    for n in range(6):
        status = "done" if n == 4 else "paused" if n == 2 else "queued"
        await rows.put(job(n, tenant="other" if n == 3 else "acme", kind="x" if n == 1 else "download", status=status))

    async def listed(*args: Any, **filters: Any) -> list[int]:
        return [int(one.id[4:], 16) for one in await rows.page("acme", *args, **filters)]

    assert await listed(9) == [5, 4, 2, 1, 0]
    assert await listed(2, job(4).id) == [2, 1]
    assert await listed(9, status="done") == [4]
    assert await listed(9, kind="x") == [1]
    assert [int(one.id[4:], 16) for one in await rows.unfinished()] == [0, 1, 2, 3, 5]


async def test_old_jobs_are_forgotten_but_never_unfinished_ones(rows: JobRows) -> None:
    for n in range(6):
        await rows.put(job(n, status="queued" if n == 0 else "done", ended_at=None if n == 0 else float(n)))
    assert await rows.forget(2.5, 100) == 2
    assert [one.created_at - 1763769600 for one in await rows.page("acme", 9)] == [5, 4, 3, 0]
    assert await rows.forget(0.0, 1) == 2
    assert [one.created_at - 1763769600 for one in await rows.page("acme", 9)] == [5, 0]
