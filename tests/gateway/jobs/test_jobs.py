"""Jobs: put, done, paused, gone on with, cancelled and watched, with work that does as it is told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import gateway.jobs as module
from compat.canonical.error import Conflict, Corrupted, NotFound, Overloaded
from gateway.db import queue as queue_module
from gateway.db.audit import Act, AuditRows
from gateway.db.engine import connect, upgrade
from gateway.db.jobs import JobRows
from gateway.db.queue import DurableQueue
from gateway.jobs import Jobs
from gateway.jobs.job import Job, JobStatus, Progress, Report
from tests.gateway.jobs.waiting import eventually

ASKED: dict[str, Any] = {"tenant": "acme", "owner": "ann"}


class Fake:
    """A kind of work that goes on until it is let go."""

    def __init__(self) -> None:
        self.began: list[Job] = []
        self.settled: list[str] = []
        self.running: list[str] = []
        self.report: Report = lambda _: None
        self.go = asyncio.Event()
        self.clearing = self.stubborn = False
        self.outcome: Callable[[], dict[str, Any]] = lambda: {"model": "local/m"}

    async def __call__(self, job: Job, report: Report) -> dict[str, Any]:
        self.began.append(job)
        self.report = report
        self.running.append(job.id)
        try:
            report(Progress(phase="downloading", bytes_done=job.progress.bytes_done, bytes_total=100))
            await self.go.wait()
            return self.outcome()
        except asyncio.CancelledError:
            if self.stubborn:
                await self.go.wait()
            raise
        finally:
            self.running.remove(job.id)

    async def clear(self, job: Job) -> None:
        assert job.id not in self.running, "it has stopped by then"
        assert not self.clearing, "never by two at once"
        self.clearing = True
        await asyncio.sleep(0)
        self.clearing = False
        self.settled.append(job.status)


@asynccontextmanager
async def open_jobs(engine: AsyncEngine, fake: Fake, *, at_once: int = 2) -> AsyncIterator[Jobs]:
    jobs = Jobs(JobRows(engine), DurableQueue(engine), {"fake": fake}, {"fake": fake.clear})
    await jobs.open(at_once=at_once)
    try:
        yield jobs
    finally:
        await jobs.aclose()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    connected = connect(f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    await upgrade(connected)
    yield connected
    await connected.dispose()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def jobs(engine: AsyncEngine, fake: Fake) -> AsyncIterator[Jobs]:
    async with open_jobs(engine, fake) as opened:
        yield opened


async def begun(jobs: Jobs, fake: Fake) -> Job:
    job, _ = await jobs.put("fake", {"a": 1}, **ASKED)
    await eventually(lambda: len(fake.running) == 1)
    return job


async def ended(jobs: Jobs, id_: str) -> Job:
    async with asyncio.timeout(5), aclosing(jobs.watch("acme", id_)) as news:
        async for job in news:
            last = job
    return last


async def test_a_job_is_done_and_says_so(jobs: Jobs, fake: Fake) -> None:
    job, new = await jobs.put("fake", {"a": 1}, total_bytes=100, target="local/m", **ASKED)
    assert new
    assert (job.status, job.progress.bytes_total) == ("queued", 100)
    fake.go.set()
    done = await ended(jobs, job.id)
    assert (done.status, done.result, done.error, done.attempts) == ("done", {"model": "local/m"}, None, 1)
    assert fake.began[0].spec == {"a": 1}
    assert None not in (done.started_at, done.ended_at)


async def test_two_that_ask_for_the_same_have_one_job(jobs: Jobs, fake: Fake) -> None:
    flight = "org/name@1" * 50
    answers = await asyncio.gather(*(jobs.put("fake", {}, flight=flight, **ASKED) for _ in range(6)))
    assert len({job.id for job, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    fake.go.set()
    await ended(jobs, answers[0][0].id)
    assert len(fake.began) == 1


async def test_another_tenants_job_is_not_there(jobs: Jobs, fake: Fake) -> None:
    job = await begun(jobs, fake)
    said = set()
    for tenant, id_ in (("other", job.id), ("acme", job.id[:-1] + "g")):
        for verb in (jobs.get, jobs.pause, jobs.resume, jobs.cancel):
            with pytest.raises(NotFound) as caught:
                await verb(tenant, id_)
            said.add(caught.value.message.replace(id_, "ID"))
        with pytest.raises(NotFound):
            await anext(jobs.watch(tenant, id_))
    assert len(said) == 1
    assert await jobs.page("other", limit=5) == []
    assert fake.running


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Corrupted("The file is not what its hash says."), "checksum_mismatch", "The file is not what its hash says."),
        (RuntimeError("canary /secret/path"), "internal_error", "The gateway failed at this; its log says why."),
    ],
)
async def test_failures_are_told_in_words_for_clients(
    jobs: Jobs, fake: Fake, error: Exception, code: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> dict[str, Any]:
        raise error

    caplog.set_level(logging.CRITICAL)
    fake.outcome = fail
    fake.go.set()
    job, _ = await jobs.put("fake", {}, **ASKED)
    failed = await ended(jobs, job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (code, message)


async def test_results_that_cannot_be_kept_and_unknown_kinds_fail(jobs: Jobs, fake: Fake) -> None:
    fake.outcome = lambda: {"a": object()}
    fake.go.set()
    for kind, code in (("fake", "internal_error"), ("odd", "unknown_kind")):
        job, _ = await jobs.put(kind, {}, **ASKED)
        failed = await ended(jobs, job.id)
        assert failed.error is not None
        assert failed.error.code == code


# What becomes of a job that stands so when it is told that: its status then, or None for a conflict.
VERBS: list[tuple[JobStatus, str, JobStatus | None]] = [
    ("queued", "pause", "paused"),
    ("queued", "resume", "queued"),
    ("queued", "cancel", "cancelled"),
    ("running", "pause", "paused"),
    ("running", "resume", "running"),
    ("running", "cancel", "cancelled"),
    ("paused", "pause", "paused"),
    ("paused", "resume", "running"),
    ("paused", "cancel", "cancelled"),
    ("done", "pause", None),
    ("done", "resume", None),
    ("done", "cancel", None),
    ("failed", "pause", None),
    ("failed", "resume", "running"),
    ("failed", "cancel", "cancelled"),
    ("cancelled", "pause", None),
    ("cancelled", "resume", None),
    ("cancelled", "cancel", "cancelled"),
]


@pytest.mark.parametrize(("standing", "verb", "then"), VERBS)
async def test_what_becomes_of_a_job(
    engine: AsyncEngine, fake: Fake, standing: JobStatus, verb: str, then: JobStatus | None
) -> None:
    async with open_jobs(engine, fake, at_once=0 if standing == "queued" else 1) as jobs:
        job, _ = await jobs.put("fake", {}, **ASKED)
        if standing != "queued":
            await eventually(lambda: len(fake.running) == 1)
        if standing in ("done", "failed"):
            if standing == "failed":
                fake.outcome = lambda: {"a": object()}
            fake.go.set()
            assert (await ended(jobs, job.id)).status == standing
            fake.go.clear()
        elif standing in ("paused", "cancelled"):
            await (jobs.pause if standing == "paused" else jobs.cancel)("acme", job.id)
        act: Callable[..., Awaitable[Job]] = getattr(jobs, verb)
        if then is None:
            with pytest.raises(Conflict):
                await act("acme", job.id)
            assert (await jobs.get("acme", job.id)).status == standing
            return
        found = await act("acme", job.id)
        if then == "running":
            await eventually(lambda: len(fake.running) == 1)
            found = await jobs.get("acme", job.id)
        assert found.status == then
        assert bool(fake.running) == (then == "running")
        if then in ("paused", "cancelled"):
            assert fake.settled[-1] == then


async def test_what_has_not_stopped_is_not_cleared_away_yet(
    jobs: Jobs, fake: Fake, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "STOP_S", 0.1)
    monkeypatch.setattr(module, "TIDY_S", 0.1)
    fake.stubborn = True
    job = await begun(jobs, fake)
    for _ in range(2):
        with pytest.raises(Overloaded) as caught:
            await jobs.cancel("acme", job.id)
        assert caught.value.code == "still_stopping"
        assert ((await jobs.get("acme", job.id)).status, fake.settled) == ("cancelled", [])
    fake.go.set()
    await eventually(lambda: fake.settled == ["cancelled"])
    await jobs.cancel("acme", job.id)
    assert (fake.settled, await JobRows(engine).unsettled()) == (["cancelled"], [])


async def test_what_a_process_died_over_is_cleared_away_by_the_next(engine: AsyncEngine, fake: Fake) -> None:
    rows = JobRows(engine)
    async with open_jobs(engine, fake, at_once=0) as jobs:
        cancelled, paused, gone_on_with, done = [(await jobs.put("fake", {}, **ASKED))[0] for _ in range(4)]
        await jobs.cancel("acme", done.id)
    assert fake.settled == ["cancelled"]
    # As far as they got.
    for job, status in ((cancelled, "cancelled"), (paused, "paused"), (gone_on_with, "paused")):
        assert await rows.move("acme", job.id, status, ["queued"]) is not None  # type: ignore[arg-type]
    assert await rows.move("acme", gone_on_with.id, "queued", ["paused"]) is not None
    again = Fake()
    async with open_jobs(engine, again, at_once=0):
        await eventually(lambda: again.settled == ["cancelled", "paused"])
    assert await rows.unsettled() == []


async def test_what_could_not_be_cleared_away_is_tried_again(
    engine: AsyncEngine, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Job) -> None:
        raise OSError("the disk")

    async with open_jobs(engine, fake, at_once=0) as jobs:
        job, _ = await jobs.put("fake", {}, **ASKED)
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "_settled", {"fake": fail})
            with pytest.raises(OSError, match="the disk"):
                await jobs.cancel("acme", job.id)
        assert (await jobs.cancel("acme", job.id)).status == "cancelled"
        assert fake.settled == ["cancelled"]


async def test_pages_of_what_may_be_seen_are_whole(
    jobs: Jobs, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    jobs.resize(0)
    ids = [(await jobs.put("fake", {"n": n}, **ASKED))[0].id for n in range(11)]

    async def found(limit: int, after: str | None = None) -> list[int]:
        seen = await jobs.page("acme", limit=limit, after=after, seen=lambda job: job.spec["n"] % 4 == 0)
        return [job.spec["n"] for job in seen]

    newest_first = [8, 4, 0]
    assert sorted(ids) == ids
    assert await found(2) == newest_first[:2]
    assert await found(2, ids[4]) == newest_first[2:]
    assert await found(9) == newest_first


async def test_pausing_one_that_is_just_ending_does_one_or_the_other(jobs: Jobs, fake: Fake) -> None:
    for _ in range(10):
        fake.go.clear()
        job = await begun(jobs, fake)
        fake.go.set()
        try:
            found = await jobs.pause("acme", job.id)
        except Conflict:
            found = await jobs.get("acme", job.id)
            assert found.status == "done"
        else:
            assert found.status == "paused"
        assert not fake.running


async def test_pausing_and_resuming_at_once_leaves_one_at_work_or_none(jobs: Jobs, fake: Fake) -> None:
    job = await begun(jobs, fake)
    for _ in range(3):
        await asyncio.gather(*(verb("acme", job.id) for verb in (jobs.pause, jobs.resume, jobs.pause, jobs.resume)))
        assert len(fake.running) <= 1
    await jobs.resume("acme", job.id)
    await eventually(lambda: len(fake.running) == 1)
    fake.go.set()
    assert (await ended(jobs, job.id)).status == "done"


async def test_acts_are_written_down_once(jobs: Jobs, fake: Fake, engine: AsyncEngine) -> None:
    job = await begun(jobs, fake)
    for name in ("pause", "pause", "resume", "cancel"):
        act = Act(actor="root", action=f"job.{name}", target=job.id, tenant="?")
        await getattr(jobs, name)("acme", job.id, act)
    notes = [(note.action, note.tenant) for note in await AuditRows(engine).page(9)]
    assert notes == [("job.cancel", "acme"), ("job.resume", "acme"), ("job.pause", "acme")]


async def test_who_left_while_it_was_paused_has_paused_it(jobs: Jobs, fake: Fake) -> None:
    job = await begun(jobs, fake)
    leaving = asyncio.create_task(jobs.pause("acme", job.id))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await eventually(lambda: fake.settled == ["paused"])
    assert (await jobs.get("acme", job.id)).status == "paused"


async def test_progress_is_written_now_and_again_and_at_the_end(
    engine: AsyncEngine, jobs: Jobs, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.2)
    rows = JobRows(engine)
    written = 0
    advance = JobRows.advance

    async def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal written
        written += 1
        await advance(*args, **kwargs)

    monkeypatch.setattr(JobRows, "advance", counted)
    job = await begun(jobs, fake)
    for n in range(60):
        fake.report(Progress(phase="downloading", bytes_done=n, bytes_total=100))
        await asyncio.sleep(0.01)
    assert 1 <= written <= 6
    assert (await jobs.get("acme", job.id)).progress.bytes_done == 59, "what is not written yet is known here"
    fake.report(Progress(phase="downloading", bytes_done=77, bytes_total=100))
    await jobs.pause("acme", job.id)
    found = await rows.get(job.id)
    assert found is not None
    assert (found.progress.bytes_done, found.progress.bytes_per_s) == (77, None)


async def test_a_watcher_sees_progress_soon_but_not_too_often_and_the_end(jobs: Jobs, fake: Fake) -> None:
    job = await begun(jobs, fake)
    seen: list[Job] = []

    async def watch() -> None:
        async with aclosing(jobs.watch("acme", job.id)) as news:
            async for standing in news:
                seen.append(standing)

    watching = asyncio.create_task(watch())
    for n in range(60):
        fake.report(Progress(phase="downloading", bytes_done=n, bytes_total=100))
        await asyncio.sleep(0.01)
    assert 3 <= len(seen) <= 6
    fake.go.set()
    async with asyncio.timeout(2):
        await watching
    assert seen[-1].status == "done"
    assert jobs._watchers == {}


async def test_a_watcher_elsewhere_sees_it_too(engine: AsyncEngine, jobs: Jobs, fake: Fake) -> None:
    job = await begun(jobs, fake)
    async with open_jobs(engine, Fake(), at_once=0) as others:
        watching = asyncio.create_task(ended(others, job.id))
        await asyncio.sleep(0.1)
        fake.go.set()
        assert (await watching).status == "done"


async def test_a_job_is_gone_on_with_after_the_next_start(engine: AsyncEngine, fake: Fake) -> None:
    async with open_jobs(engine, fake, at_once=1) as jobs:
        job = await begun(jobs, fake)
        fake.report(Progress(phase="downloading", bytes_done=40, bytes_total=100))
        waiting, _ = await jobs.put("fake", {}, **ASKED)
        await jobs.pause("acme", waiting.id)
    assert not fake.running
    again = Fake()
    async with open_jobs(engine, again) as jobs:
        await eventually(lambda: len(again.running) == 1, 1)
        assert [one.id for one in again.began] == [job.id], "the paused one waits"
        assert (again.began[0].progress.bytes_done, again.began[0].attempts) == (40, 2)


async def test_one_that_kills_its_process_again_and_again_is_given_up(engine: AsyncEngine, fake: Fake) -> None:
    rows = JobRows(engine)
    job = Job(
        id="job_1", kind="fake", tenant="acme", owner="ann", status="running", created_at=1.0, updated_at=1.0,
        attempts=150, fruitless=module.ATTEMPTS_MAX,
    )  # fmt: skip
    await rows.put(job)
    async with open_jobs(engine, fake) as jobs:
        failed = await ended(jobs, job.id)
    assert failed.error is not None
    assert failed.error.code == "given_up"
    assert fake.began == []
