"""Meshes from solids that a language model describes: a real child process, and a provider that plays the model."""

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest
import trimesh

from backends import connect, settings_of
from backends.base import Call
from backends.openai import OpenAIBackend
from backends.ports import Ports
from backends.scene import AT_ONCE, SceneBackend
from compat.canonical.error import (
    AuthFailed,
    BackendError,
    ContentFiltered,
    InvalidRequest,
    ModelNotFound,
    TimedOut,
)
from compat.canonical.event import Event, Progress, Started, fold
from compat.canonical.message import Media
from compat.canonical.request import MeshRequest, TextRequest
from tests import wire
from tests.backends.contract import CHECKS, Check, Subject, call, mesh, request
from tests.backends.scenes import MUG, NOTHING_LEFT, SCENES, TABLE, describing, part, scene, solid
from tests.exchange import Exchange
from tests.provider import Provider

KEY = "upstream-key-canary-3381"
FAILING = ("status:401", "status:429", "status:500", "quota", "html", "error_in_200", "reset", "redirect", "cut")
SHOWN = os.path.isdir("/proc/self")
PNG = b"\x89PNG\r\n\x1a\n picture"


class House:
    """Asks the provider for whatever it is asked; it stands for the house's routes."""

    def __init__(self, upstream: Provider) -> None:
        settings = settings_of("openai", {"base_url": upstream.url, "api_key": KEY})
        self.backend = cast(OpenAIBackend, connect("up", "openai", settings, Ports()))
        self.upstream = upstream
        self.turns: list[str] = []
        """Who is asked instead, one after the other."""

    async def ask(self, request: TextRequest, call: Call) -> AsyncGenerator[Event, None]:
        if self.turns:
            request = TextRequest(model=self.turns.pop(0), messages=request.messages)
        async with aclosing(self.backend.run(request, call)) as events:
            async for event in events:
                yield event

    def scene(self, model: str = "artist", **settings: Any) -> SceneBackend:
        given = settings_of("scene", {"model": model} | settings)
        return cast(SceneBackend, connect("scene", "scene", given, Ports(ask=self.ask)))


@pytest.fixture
async def house(upstream: Provider) -> AsyncIterator[House]:
    house = House(upstream)
    upstream.scripts["artist"] = describing(TABLE)
    yield house
    await house.backend.aclose()


def loaded(glb: bytes) -> Any:
    return trimesh.load_scene(io.BytesIO(glb), file_type="glb")


async def made(backend: SceneBackend, model: str = "artist") -> Any:
    result = await fold(backend.run(mesh(model), call()))
    [produced] = result.produced
    assert produced.media.mime == "model/gltf-binary"
    return loaded(produced.media.data or b"")


@pytest.mark.parametrize("name", SCENES)
async def test_a_scene_is_built_watertight_by_its_names_and_in_its_colours(house: House, name: str) -> None:
    house.upstream.scripts["artist"] = describing(SCENES[name])
    built = await made(house.scene())
    described = SCENES[name]["parts"]
    assert list(built.geometry) == [one["name"] for one in described]
    for one in described:
        body = built.geometry[one["name"]]
        assert body.is_volume, one["name"]
        assert body.visual.material.main_color[3] == 255
    assert built.to_mesh().is_watertight


async def test_it_stands_upright_in_metres_and_is_cut_exactly(house: House) -> None:
    top, bottom = (await made(house.scene())).bounds[::-1]
    assert top.tolist() == pytest.approx([0.6, 0.74, 0.35])
    assert bottom.tolist() == pytest.approx([-0.6, 0.0, -0.35])
    house.upstream.scripts["artist"] = describing(MUG)
    mug = (await made(house.scene())).geometry["mug"]
    assert mug.euler_number == 0, "a mug has a handle: one hole"
    assert 0 < mug.volume < 0.04**2 * 3.1416 * 0.1 / 2, "and is hollow"


async def test_the_model_is_asked_for_a_scene_by_its_schema(house: House) -> None:
    asked = MeshRequest(model="artist", prompt="a table", image=Media(mime="image/png", data=PNG), seed=7)
    calling = call()
    async with aclosing(house.scene(max_tokens=900).run(asked, calling)) as events:
        got = [event async for event in events]
    assert [type(event) for event in got[:3]] == [Started, Progress, Progress]
    assert [event.stage for event in got if isinstance(event, Progress)] == ["describing", "building"]
    assert (calling.wait.step, calling.wait.steps) == (2, 2)
    sent = house.upstream.asked().json
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert (sent["seed"], sent["max_tokens"]) == (7, 900)
    system, user = sent["messages"]
    assert "metres" in system["content"]
    assert [part["type"] for part in user["content"]] == ["text", "text", "image_url"]


async def test_a_provider_that_takes_no_schema_is_told_it_in_words(house: House) -> None:
    await made(house.scene(json_schema=False))
    sent = house.upstream.asked().json
    assert "response_format" not in sent
    assert '"additionalProperties":false' in sent["messages"][0]["content"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("I cannot draw.", "form"),
        (NOTHING_LEFT, "Nothing is left of part 'gone' after its solid 2 (difference)"),
        (scene(part("a", "#ffffff", solid("union", "box", (0, 1, 1)))), "size.x must be between"),
        (
            scene(part("a", "#ffffff", solid("union", "prism", (1, 1, 1), points=[(0, 0), (1, 1), (2, 2)]))),
            "has no volume",
        ),
    ],
)
async def test_what_cannot_be_built_is_told_to_the_model_once(house: House, wrong: Any, told: str) -> None:
    house.upstream.scripts["artist"] = describing(wrong, TABLE)
    assert "top" in (await made(house.scene())).geometry
    *_, answer, complaint = house.upstream.asked(count=2).json["messages"]
    assert answer == {"role": "assistant", "content": wrong if isinstance(wrong, str) else json.dumps(wrong)}
    assert told in complaint["content"]


async def test_what_cannot_be_built_twice_is_given_up(house: House) -> None:
    house.upstream.scripts["artist"] = describing("I cannot draw.")
    with pytest.raises(BackendError, match="described no scene that can be built") as given_up:
        await made(house.scene())
    assert len(house.upstream.seen) == 2
    assert (given_up.value.status, given_up.value.code, given_up.value.retryable) == (
        502,
        "upstream_bad_response",
        False,
    )


async def test_a_description_without_end_is_cut_off(house: House) -> None:
    async def endless(x: Exchange) -> None:
        x.begin()
        for _ in range(10_000):
            x.send(wire.word("9" * 8000, None))
            await x.drained()

    async def long(x: Exchange) -> None:
        x.begin()
        for frame in wire.stream(["{"], include_usage=True, reason="length"):
            x.send(frame)
        x.end()

    for script, told in ((endless, "did not end"), (long, "was cut off")):
        house.upstream.forget()
        house.upstream.scripts["artist"] = script
        with pytest.raises(BackendError, match=told):
            await made(house.scene())
        assert len(house.upstream.seen) == 2


async def test_many_solids_stay_within_bounds(house: House) -> None:
    balls = [solid("union", "sphere", (1, 1, 1), (n * 0.3, 0, (n % 7) * 0.3)) for n in range(128)]
    house.upstream.scripts["artist"] = describing(scene(part("pile", "#808080", *balls)))
    assert (await made(house.scene())).geometry["pile"].is_volume


def children() -> list[str]:
    """What builds scenes for this process, as Linux shows it; elsewhere nothing is seen."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc") if SHOWN else ()):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
                if stat.read().rpartition(")")[2].split()[1] == str(os.getpid()) and "solids" in (said := line.read()):
                    found.append(said)
        except OSError:
            continue
    return found


@pytest.mark.skipif(not SHOWN, reason="looks at processes as Linux shows them")
async def test_two_scenes_are_built_at_once_and_others_wait(house: House) -> None:
    scene = house.scene()
    waiting = [asyncio.create_task(fold(scene.run(mesh("artist"), call()))) for _ in range(4)]
    most = 0
    while not all(one.done() for one in waiting):
        most = max(most, len(children()))
        await asyncio.sleep(0.005)
    assert most == AT_ONCE
    assert all(one.result().produced for one in waiting)


@pytest.mark.skipif(not SHOWN, reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("phase", ["describing", "building"])
async def test_whoever_leaves_ends_the_work_at_once(house: House, phase: str) -> None:
    if phase == "describing":

        async def slow(x: Exchange) -> None:
            x.begin()
            x.send(wire.word("{", None))
            await asyncio.sleep(30)

        house.upstream.scripts["artist"] = slow
    else:
        balls = [solid("union", "sphere", (1, 1, 1), (n * 0.1, (n % 5) * 0.1, (n % 7) * 0.1)) for n in range(128)]
        house.upstream.scripts["artist"] = describing(scene(part("pile", "#808080", *balls)))
    waiting = asyncio.create_task(fold(house.scene().run(mesh("artist"), call())))
    async with asyncio.timeout(20):
        while not (house.upstream.seen if phase == "describing" else children()):
            await asyncio.sleep(0.002)
    began = time.monotonic()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not children()
    for exchange in house.upstream.seen:
        assert exchange.over.wait(1.0)
    assert time.monotonic() - began < 1.0


async def test_there_is_a_last_moment(house: House) -> None:
    with pytest.raises(TimedOut):
        await fold(house.scene().run(mesh("artist"), call(0.15)))
    assert not children()


async def test_it_does_nothing_else_and_says_what_it_is(house: House) -> None:
    backend = house.scene("smart")
    [model] = await backend.models()
    assert (model.id, model.modality) == ("scene/smart", "3d")
    assert model.source == "constructed from solids by a language model"
    with pytest.raises(InvalidRequest, match="does not do text"):
        await fold(backend.run(request("smart"), call()))
    with pytest.raises(ModelNotFound):
        await fold(backend.run(mesh("other"), call()))
    with pytest.raises(ValueError, match="kind"):
        connect("scene", "scene", settings_of("scene", {"model": "smart"}), Ports())


async def test_what_the_model_s_provider_says_reaches_whoever_asked(house: House) -> None:
    house.turns = ["status:401"]
    with pytest.raises(AuthFailed):
        await made(house.scene())

    async def filtered(x: Exchange) -> None:
        x.answer(wire.error("No.", code="content_filter"), "400 Bad Request")

    house.upstream.scripts["artist"] = filtered
    with pytest.raises(ContentFiltered):
        await made(house.scene())
    assert len(house.upstream.seen) == 2, "nobody is asked twice for that"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, house: House) -> None:
    house.upstream.scripts["artist"] = describing(TABLE)
    slow = check.__name__.startswith(("closing", "cancelling"))
    subject = Subject(
        backend=house.scene("events:1000:0.02" if slow and "never" not in check.__name__ else "artist"),
        model="artist",
        asks=mesh,
        endless="events:1000:0.02",
        failing=["artist"] * len(FAILING),
        secrets=(KEY, house.upstream.url, "127.0.0.1"),
        idle=lambda: all(exchange.over.is_set() for exchange in house.upstream.seen),
    )
    if check.__name__.startswith("trouble"):
        house.turns = [name for name in FAILING for _ in range(2)]
    await check(subject)
