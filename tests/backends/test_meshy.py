"""Meshy's tasks, held to its documented wire format: what is asked, what is waited out, what is paid for only once."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from backends import connect, settings_of
from backends.meshy import LOST_MAX, MeshyBackend
from backends.ports import Ports
from compat.canonical.error import (
    AuthFailed,
    BackendError,
    BadResponse,
    ContentFiltered,
    GatewayError,
    InvalidRequest,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Rejected,
    TimedOut,
    UpstreamFailed,
)
from compat.canonical.event import Finished, Produced, Progress, Started, fold
from compat.canonical.message import Media
from compat.canonical.request import MeshRequest
from tests.backends.contract import CHECKS, Check, Subject, call, mesh, request
from tests.backends.tasks import GLB, ID, IMAGE, KEY, TEXT, Tasks, failed, said, task, until
from tests.exchange import Exchange
from tests.provider import Provider, provider

PNG = b"\x89PNG\r\n\x1a\n picture"
QUICK = {"poll_s": 0.01, "poll_max_s": 0.02, "api_key": KEY}


@pytest.fixture
def tasks(upstream: Provider) -> Tasks:
    return Tasks(upstream)


@pytest.fixture
async def meshy(tasks: Tasks) -> AsyncIterator[MeshyBackend]:
    backend = connected(tasks)
    yield backend
    await backend.aclose()


@pytest.fixture
def other() -> Iterator[Provider]:
    """Another server on this machine."""
    with provider() as running:
        yield running


def connected(tasks: Tasks, **settings: Any) -> MeshyBackend:
    given = settings_of("meshy", QUICK | {"base_url": tasks.root} | settings)
    return cast(MeshyBackend, connect("meshy", "meshy", given, Ports()))


async def reset(x: Exchange) -> None:
    x.reset()


async def html(x: Exchange) -> None:
    x.answer(b"<html>", content_type="text/html")


async def busy(x: Exchange) -> None:
    x.answer(said("Internal Server Error"), "503 Service Unavailable")


async def limited(x: Exchange) -> None:
    x.answer(said("RateLimitExceeded"), "429 Too Many Requests", retry_after="0")


async def test_words_become_a_mesh(meshy: MeshyBackend, tasks: Tasks) -> None:
    calling = call()
    asked = MeshRequest(model="meshy-6", prompt="a monster mask", seed=3, extra={"target_polycount": 900, "steps": 5})
    async with aclosing(meshy.run(asked, calling)) as events:
        got = [event async for event in events]
    assert [type(e) for e in got] == [Started, *[Progress] * (len(got) - 3), Produced, Finished]
    stages = [(e.step, e.of, e.stage) for e in got if isinstance(e, Progress)]
    assert stages[0] == (0, 100, "queued")
    assert (50, 100, "generating") in stages
    assert stages[-1] == (100, 100, "downloading")
    assert (calling.wait.step, calling.wait.steps) == (100, 100)
    [made] = [e.media for e in got if isinstance(e, Produced)]
    assert made == Media(mime="model/gltf-binary", data=GLB)
    assert tasks.created == [
        {
            "mode": "preview",
            "prompt": "a monster mask",
            "ai_model": "meshy-6",
            "target_formats": ["glb"],
            "auto_size": True,
            "target_polycount": 900,
        }
    ]
    assert calling.dropped == ["steps", "seed"]
    assert tasks.deleted == [], "what was made stays there"


async def test_a_mesh_is_coloured_by_a_second_task(meshy: MeshyBackend, tasks: Tasks) -> None:
    done = task("SUCCEEDED", 100, model_urls={"glb": tasks.address})
    tasks.stages = [task("IN_PROGRESS", 30), done, task("IN_PROGRESS", 60), done]
    asked = MeshRequest(model="latest", prompt="a mask", extra={"texture": True, "enable_pbr": True})
    async with aclosing(meshy.run(asked, call())) as events:
        got = [event async for event in events]
    stages = [(e.step, e.of, e.stage) for e in got if isinstance(e, Progress)]
    assert stages == [
        (30, 200, "generating"),
        (100, 200, "generating"),
        (160, 200, "texturing"),
        (200, 200, "texturing"),
        (200, 200, "downloading"),
    ]
    preview, refinement = tasks.created
    assert preview["mode"] == "preview"
    assert "enable_pbr" not in preview
    assert refinement == {
        "mode": "refine",
        "preview_task_id": ID,
        "ai_model": "latest",
        "target_formats": ["glb"],
        "auto_size": True,
        "enable_pbr": True,
    }


@pytest.mark.parametrize("textured", [True, False])
async def test_a_picture_becomes_a_mesh(tasks: Tasks, textured: bool) -> None:
    backend = connected(tasks, texture=textured)
    calling = call()
    asked = MeshRequest(model="latest", prompt="of gold", image=Media(mime="image/png", data=PNG))
    result = await fold(backend.run(asked, calling))
    assert result.produced[0].media.data == GLB
    [sent] = tasks.created
    assert sent["image_url"] == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert sent["should_texture"] is textured
    assert sent.get("texture_prompt") == ("of gold" if textured else None)
    assert calling.dropped == ([] if textured else ["prompt"])
    assert tasks.asked("GET", f"{IMAGE}/{ID}")
    await backend.aclose()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x" * 601}, "prompt"),
        ({"image": Media(mime="image/webp", data=b"RIFF1234WEBP")}, "image"),
        ({"prompt": "x", "extra": {"texture": "yes"}}, "texture"),
    ],
)
async def test_what_it_does_not_take_is_refused_before_it_costs(
    meshy: MeshyBackend, tasks: Tasks, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fold(meshy.run(MeshRequest(model="latest", **fields), call()))
    assert refused.value.param == param
    with pytest.raises(InvalidRequest, match="does not do text"):
        await fold(meshy.run(request("latest"), call()))
    assert not tasks.upstream.seen


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        ("401 Unauthorized", said("Invalid API key"), AuthFailed, "rejected the gateway's credentials"),
        ("402 Payment Required", said("Insufficient credits"), QuotaExhausted, "no quota left"),
        ("429 Too Many Requests", said("NoMoreConcurrentTasks"), RateLimited, "limiting its rate"),
        ("400 Bad Request", said("Invalid values: prompt is required"), Rejected, "prompt is required"),
        ("500 Internal Server Error", said("boom at /srv/x.go"), UpstreamFailed, "status 500"),
        ("503 Service Unavailable", b"", Overloaded, "overloaded"),
        ("200 OK", b"<html>", BackendError, "may have begun"),
        ("200 OK", b'{"result":"../../v1/balance"}', BackendError, "may have begun"),
        ("307 Moved", b"", BadResponse, "redirect"),
    ],
)
async def test_a_refusal_is_ours(
    meshy: MeshyBackend, tasks: Tasks, status: str, body: bytes, error: type[GatewayError], words: str
) -> None:
    tasks.answer("POST", TEXT, body, status, retry_after="7")
    with pytest.raises(error, match=words) as refused:
        await fold(meshy.run(mesh("latest"), call()))
    assert len(tasks.upstream.seen) == 1, "nothing is asked twice"
    assert "/srv" not in refused.value.message
    if isinstance(refused.value, RateLimited):
        assert refused.value.retry_after_s == 7
    if "may have begun" in words:
        assert not refused.value.retryable, "or it would be paid for twice"


async def test_a_lost_answer_to_a_creation_is_not_tried_again(meshy: MeshyBackend, tasks: Tasks) -> None:
    tasks.scripts["POST", TEXT] = reset
    with pytest.raises(BackendError) as unsure:
        await fold(meshy.run(mesh("latest"), call()))
    assert not unsure.value.retryable


@pytest.mark.parametrize(
    ("stage", "error", "words"),
    [
        (
            failed("invalid_input", "The image is too complex", "image_too_complex"),
            Rejected,
            "The image is too complex.",
        ),
        (failed("invalid_input", "see https://x.y/z"), Rejected, "could make no mesh of this.$"),
        (failed("invalid_input", "Unsafe", "moderation_blocked"), ContentFiltered, "content policy"),
        (failed("timeout", "Timed out"), TimedOut, "too long"),
        (failed("service_unavailable", "Busy"), Overloaded, "overloaded"),
        (failed("server_error", "panic in /srv/worker.go"), UpstreamFailed, "failed to make the mesh.$"),
        (task("FAILED", 10, task_error=None), UpstreamFailed, "failed to make the mesh.$"),
        (task("CANCELED", 10), BackendError, "was cancelled there"),
        (task("EXPIRED", 10), BackendError, "no longer kept"),
    ],
)
async def test_a_task_that_fails_says_why(
    meshy: MeshyBackend, tasks: Tasks, stage: bytes, error: type[GatewayError], words: str
) -> None:
    tasks.stages = [task("IN_PROGRESS", 5), stage]
    with pytest.raises(error, match=words):
        await fold(meshy.run(mesh("latest"), call()))
    assert tasks.deleted == []


async def test_trouble_in_asking_is_waited_out(meshy: MeshyBackend, tasks: Tasks) -> None:
    tasks.stages = [reset, html, busy, limited, task("IN_PROGRESS", 5), reset, b""]
    result = await fold(meshy.run(mesh("latest"), call()))
    assert result.produced[0].media.data == GLB
    assert len(tasks.created) == 1


@pytest.mark.parametrize(("stage", "polls"), [(reset, LOST_MAX), (html, LOST_MAX)])
async def test_a_task_that_cannot_be_asked_about_is_given_up_and_not_begun_again(
    tasks: Tasks, stage: Any, polls: int
) -> None:
    tasks.stages = [stage]
    backend = connected(tasks)
    with pytest.raises(BackendError, match="could not be asked how it stands") as lost:
        await fold(backend.run(mesh("latest"), call()))
    assert (lost.value.retryable, lost.value.worked) == (False, True)
    await until(lambda: tasks.deleted)
    assert (len(tasks.created), tasks.polls) == (1, polls)
    await backend.aclose()


async def test_a_key_that_is_refused_while_polling_ends_it(meshy: MeshyBackend, tasks: Tasks) -> None:
    async def refused(x: Exchange) -> None:
        x.answer(said("Unauthorized"), "401 Unauthorized")

    tasks.stages = [refused]
    with pytest.raises(AuthFailed):
        await fold(meshy.run(mesh("latest"), call()))
    assert tasks.polls == 1


async def test_a_slow_task_is_polled_less_and_less_and_ends_with_its_deadline(tasks: Tasks) -> None:
    tasks.stages = [task("IN_PROGRESS", 1)]
    backend = connected(tasks, poll_s=0.05, poll_max_s=0.4)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        await fold(backend.run(mesh("latest"), call(1.0)))
    assert 0.9 < time.monotonic() - began < 2.0
    assert 3 <= tasks.polls <= 6
    await until(lambda: tasks.deleted == [f"{TEXT}/{ID}"])
    await backend.aclose()


async def test_whoever_leaves_ends_the_task(meshy: MeshyBackend, tasks: Tasks) -> None:
    tasks.stages = [task("IN_PROGRESS", 1)]
    waiting = asyncio.create_task(fold(meshy.run(mesh("latest"), call())))
    await until(lambda: tasks.polls > 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: tasks.deleted == [f"{TEXT}/{ID}"], 1.0)
    await meshy.aclose()
    polls = tasks.polls
    events = meshy.run(mesh("latest"), call())
    await anext(events)
    await events.aclose()
    assert (tasks.polls, len(tasks.created)) == (polls, 1)


async def test_whoever_leaves_while_it_is_created_leaves_nothing_behind(meshy: MeshyBackend, tasks: Tasks) -> None:
    created = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def slowly(x: Exchange) -> None:
        loop.call_soon_threadsafe(created.set)
        await asyncio.sleep(0.2)
        x.answer(b'{"result":"%s"}' % ID.encode(), "202 Accepted")

    tasks.scripts["POST", TEXT] = slowly
    waiting = asyncio.create_task(fold(meshy.run(mesh("latest"), call())))
    await created.wait()
    began = time.monotonic()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 0.15, "nobody waits for that"
    await until(lambda: tasks.deleted == [f"{TEXT}/{ID}"])
    assert tasks.polls == 0


async def test_the_key_stays_with_meshy(meshy: MeshyBackend, tasks: Tasks) -> None:
    tasks.answer("GET", f"/tasks/{ID}/output/model.glb", b"", "302 Found", location="/tasks/elsewhere.glb")
    await fold(meshy.run(mesh("latest"), call()))
    fetched = tasks.asked("GET", "/tasks/")
    assert [x.path.partition("?")[0] for x in fetched] == [f"/tasks/{ID}/output/model.glb", "/tasks/elsewhere.glb"]
    assert not [x for x in fetched if KEY in x.head.decode()]


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/model.glb",
        "https://127.0.0.1:1/model.glb",
        "https://[::ffff:10.0.0.1]/model.glb",
        "https://localhost/model.glb",
        "http://example.com/model.glb",
        "file:///etc/passwd",
        "//x",
        "model.glb",
        "https://",
        "https://x\r\nauthorization: y/",
    ],
)
async def test_a_file_is_not_fetched_from_where_it_must_not_be(meshy: MeshyBackend, tasks: Tasks, address: str) -> None:
    for moved in (False, True):
        if moved:
            tasks.answer("GET", f"/tasks/{ID}/output/model.glb", b"", "302 Found", location=address.partition("\r")[0])
        else:
            tasks.stages = [task("SUCCEEDED", 100, model_urls={"glb": address})]
        if moved and address in ("//x", "model.glb"):
            continue
        with pytest.raises(GatewayError) as refused:
            await fold(meshy.run(mesh("latest"), call(10)))
        assert refused.value.status == 502
        assert "169.254" not in refused.value.message
        tasks.stages = [b""]


async def test_another_server_nearby_is_not_asked(meshy: MeshyBackend, tasks: Tasks, other: Provider) -> None:
    elsewhere = other.url.replace("/v1", "/model.glb")
    tasks.answer("GET", f"/tasks/{ID}/output/model.glb", b"", "302 Found", location=elsewhere)
    with pytest.raises(BackendError, match="not to be fetched"):
        await fold(meshy.run(mesh("latest"), call()))
    assert not other.seen


async def test_round_and_round_is_an_error(meshy: MeshyBackend, tasks: Tasks) -> None:
    tasks.answer("GET", f"/tasks/{ID}/output/model.glb", b"", "302 Found", location=tasks.address)
    with pytest.raises(BackendError, match="from one address to the next"):
        await fold(meshy.run(mesh("latest"), call()))


@pytest.mark.parametrize("counted", [True, False])
async def test_a_huge_file_is_refused(tasks: Tasks, counted: bool) -> None:
    async def huge(x: Exchange) -> None:
        if counted:
            x.answer(bytes(5000))
            return
        x.begin("application/octet-stream")
        for _ in range(1000):
            x.send(bytes(1000))
            await x.drained()
        x.end()

    tasks.scripts["GET", f"/tasks/{ID}/output/model.glb"] = huge
    backend = connected(tasks, mesh_max_bytes=4096)
    with pytest.raises(BackendError, match="too large"):
        await fold(backend.run(mesh("latest"), call()))
    await backend.aclose()


async def test_a_file_is_asked_for_again(meshy: MeshyBackend, tasks: Tasks) -> None:
    tries = [reset, busy]

    async def unsteady(x: Exchange) -> None:
        if tries:
            await tries.pop(0)(x)
        else:
            x.answer(GLB)

    tasks.scripts["GET", f"/tasks/{ID}/output/model.glb"] = unsteady
    await fold(meshy.run(mesh("latest"), call()))
    assert len(tasks.created) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"<html>", "200 OK", "not a GLB"),
        (b"<Error>AccessDenied</Error>", "403 Forbidden", "does not give out"),
        (b"", "503 Slow Down", "overloaded"),
    ],
)
async def test_what_is_no_mesh_is_an_error(
    meshy: MeshyBackend, tasks: Tasks, body: bytes, status: str, words: str
) -> None:
    tasks.answer("GET", f"/tasks/{ID}/output/model.glb", body, status)
    with pytest.raises(BackendError, match=words) as spent:
        await fold(meshy.run(mesh("latest"), call()))
    assert not spent.value.retryable, "it would be paid for twice"
    tasks.stages = [task("SUCCEEDED", 100)]
    with pytest.raises(BackendError, match="has made no GLB"):
        await fold(meshy.run(mesh("latest"), call()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"poll_s": 5, "poll_max_s": 1}, "poll_max_s"),
        ({}, "api_key: missing"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHY_API_KEY", raising=False)
    with pytest.raises(ValueError, match=words):
        connect("meshy", "meshy", settings_of("meshy", settings), Ports())


async def test_the_environment_s_key_is_for_meshy_itself(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHY_API_KEY", KEY)
    await connect("meshy", "meshy", settings_of("meshy", {}), Ports()).aclose()
    backend = connect("meshy", "meshy", settings_of("meshy", {"base_url": tasks.root}), Ports())
    tasks.answer("POST", TEXT, said("Unauthorized"), "401 Unauthorized")
    with pytest.raises(AuthFailed):
        await fold(backend.run(mesh("latest"), call()))
    assert KEY not in tasks.upstream.seen[0].head.decode()
    await backend.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, meshy: MeshyBackend, tasks: Tasks) -> None:
    async def stage(x: Exchange) -> None:
        endless = tasks.created[-1]["ai_model"] == "endless"
        x.answer(task("IN_PROGRESS", 1) if endless else task("SUCCEEDED", 100, model_urls={"glb": tasks.address}))

    tasks.stages = [stage]
    if check.__name__.startswith("trouble"):
        tasks.answer("POST", TEXT, said("Refused."), "500 Internal Server Error")
    await check(
        Subject(
            backend=meshy,
            model="latest",
            asks=mesh,
            endless="endless",
            failing=["latest"],
            secrets=(KEY, tasks.root, "127.0.0.1"),
            idle=lambda: len([one for one in tasks.created if one["ai_model"] == "endless"]) == len(tasks.deleted),
        )
    )
