"""The small model that makes meshes from words: what it understands, what comes out, and how soon it stops."""

import asyncio
import io
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import trimesh
from numpy.typing import NDArray

import backends.local
from backends.local import LocalBackend, Settings, connect
from backends.local.studio import Refused
from backends.local.studio.field import Vocabulary
from backends.local.studio.implicit import Network
from backends.local.studio.surface import Surface
from backends.ports import Local, Ports
from compat.canonical.error import GatewayError, InvalidRequest
from compat.canonical.event import Finished, Produced, Progress, Started, fold
from compat.canonical.message import Media
from compat.canonical.model import Model
from compat.canonical.request import MeshRequest
from tests.backends.local.bench import call

FOLDER = Path(backends.local.__file__).parent / "models" / "tiny-3d"
CONFIG = json.loads((FOLDER / "config.json").read_text())
WORDS = Vocabulary(CONFIG)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(FOLDER / "model.safetensors", CONFIG)


def meshed(network: Network, prompt: str, resolution: int = 48, seed: int = 0) -> trimesh.Trimesh:
    wanted = WORDS.read(prompt)
    field = network.field(list(WORDS.encoded(wanted)), seed)
    surface = Surface(field, resolution)
    for _ in surface.sampled():
        pass
    vertices, faces = surface.mesh()
    return trimesh.Trimesh(vertices, faces, process=False)


@pytest.mark.parametrize("thing", WORDS.things)
def test_each_thing_is_one_closed_solid(network: Network, thing: str) -> None:
    mesh = meshed(network, f"a {thing}", seed=5)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    # A handle and a hole make the ring and the mug what they are.
    assert mesh.euler_number == (0 if thing in ("torus", "mug") else 2)


def test_a_seed_decides_the_shape(network: Network) -> None:
    first, again, other = (meshed(network, "a red mug", 32, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.vertices, again.vertices)
    assert not np.array_equal(first.extents, other.extents)


@pytest.mark.parametrize(
    ("prompt", "thing", "colour"),
    [
        ("a red chair", "chair", "red"),
        ("CHAIRS, please", "chair", "brown"),
        ("Two golden doughnuts", "torus", "yellow"),
        ("grey boxes", "cube", "gray"),
        ("a white snowman with an orange nose", "snowman", "white"),
        ("une chaise? no: a spaceship!", "rocket", "blue"),
    ],
)
def test_prompts_are_read_by_their_words(prompt: str, thing: str, colour: str) -> None:
    assert WORDS.read(prompt)[:2] == (thing, colour)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a dragon", "It makes: sphere, cube"),
        ("a red", "It makes: sphere"),
        ("ein Stuhl", "It makes: sphere"),
        ("a chiar", "closest that it knows is 'chair'"),
        ("a snow man", "closest that it knows is 'snowman'"),
        ("a chair and a table", "one thing at a time"),
    ],
)
def test_what_it_was_not_taught_is_refused_with_what_it_was(prompt: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        WORDS.read(prompt)
    assert refused.value.error["param"] == "prompt"


class Noise:
    """A field that touches itself in points and lines, all over."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def distances(self, places: NDArray[Any]) -> NDArray[Any]:
        return self._random.normal(size=len(places)).astype(np.float32) * 0.1


@pytest.mark.parametrize("seed", range(3))
def test_any_field_gives_a_closed_surface(seed: int) -> None:
    surface = Surface(Noise(seed), 24)
    assert list(surface.sampled())
    vertices, faces = surface.mesh()
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent


class Ball:
    def distances(self, places: NDArray[Any]) -> NDArray[Any]:
        self.asked = getattr(self, "asked", 0) + len(places)
        far: NDArray[Any] = np.linalg.norm(places, axis=1) - 0.5
        return far


def test_only_where_the_surface_may_be_it_is_looked_for() -> None:
    ball = Ball()
    surface = Surface(ball, 96)
    list(surface.sampled())
    vertices, faces = surface.mesh()
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.5).max() < 0.002
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.01)
    assert ball.asked < 0.35 * 97**3


def test_a_field_without_a_surface_is_an_error() -> None:
    class Nothing:
        def distances(self, places: NDArray[Any]) -> NDArray[Any]:
            return np.ones(len(places), np.float32)

    surface = Surface(Nothing(), 24)
    list(surface.sampled())
    with pytest.raises(ValueError, match="no surface"):
        surface.mesh()


def local() -> Local:
    model = Model(name="tiny-3d", backend="local", modality="3d", size_bytes=200_000)
    return Local(name="tiny-3d", path=str(FOLDER), format="field", model=model)


shared = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def maker() -> AsyncIterator[LocalBackend]:
    backend = connect("local", Settings(threads=1), Ports(catalogue=lambda: {"tiny-3d": local()}))
    yield backend
    await backend.aclose()


def wish(prompt: str = "a red chair", **fields: Any) -> MeshRequest:
    extra = {"resolution": 32, **fields.pop("extra", {})}
    return MeshRequest(model="tiny-3d", prompt=prompt, seed=1, extra=extra, **fields)


@shared
async def test_a_mesh_comes_from_a_worker_with_its_progress(maker: LocalBackend) -> None:
    of = call()
    async with aclosing(maker.run(wish(extra={"steps": 9}), of)) as events:
        got = [event async for event in events]
    assert isinstance(got[0], Started)
    assert isinstance(got[-1], Finished)
    stages = [event.stage for event in got if isinstance(event, Progress)]
    assert list(dict.fromkeys(stages)) == ["sketching", "generating", "meshing"]
    assert of.dropped == ["steps"]
    [made] = [event for event in got if isinstance(event, Produced)]
    assert made.media.mime == "model/gltf-binary"
    assert made.media.data is not None
    mesh: Any = trimesh.load_mesh(io.BytesIO(made.media.data), file_type="glb")
    assert mesh.is_watertight
    low, high = mesh.bounds
    assert (low[1], high[1]) == pytest.approx((0, 0.9), abs=1e-5)
    assert low[0] == pytest.approx(-high[0], abs=1e-5)
    assert "NORMAL" in str(made.media.data[:1500])
    # Red, and linear: sRGB's 0.84 is 0.67.
    red, green, _, _ = np.median(mesh.visual.vertex_colors, 0)
    assert 150 < red < 190
    assert green < 20


@shared
async def test_size_words_change_the_size_and_nothing_else(maker: LocalBackend) -> None:
    async def size(words: str) -> Any:
        made = (await fold(maker.run(wish(f"a red {words} cube", extra={"resolution": 24}), call()))).produced[0].media
        return trimesh.load_mesh(io.BytesIO(made.data or b""), file_type="glb").extents

    plain = await size("")
    assert plain[1] == pytest.approx(0.3)
    for words, stretched in {
        "tall": (1, 1.3, 1),
        "low": (1, 0.77, 1),
        "wide": (1.3, 1, 1.3),
        "narrow, tall": (0.77, 1.3, 0.77),
    }.items():
        assert await size(words) == pytest.approx(plain * stretched)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (wish("a dragon"), "prompt"),
        (wish(extra={"resolution": 300}), "resolution"),
        (wish(extra={"resolution": 10}), "resolution"),
        (MeshRequest(model="tiny-3d", image=Media(mime="image/png", data=b"\x89PNG")), "image"),
        (MeshRequest(model="tiny-3d", image=Media(mime="image/png", url="https://x.test/a.png")), "image"),
    ],
)
@shared
async def test_what_it_cannot_do_is_refused_by_name(maker: LocalBackend, asked: MeshRequest, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fold(maker.run(asked, call()))
    assert refused.value.param == param


@shared
async def test_whoever_leaves_while_it_works_or_waits_frees_it_within_a_second(maker: LocalBackend) -> None:
    await fold(maker.run(wish(), call()))
    long = wish(extra={"resolution": 160})
    events = maker.run(long, call())
    async for event in events:
        if isinstance(event, Progress) and event.stage == "generating":
            break
    waiting = asyncio.create_task(fold(maker.run(long, call())))
    async with asyncio.timeout(5):
        while not maker.standing("tiny-3d")["waiting"]:
            await asyncio.sleep(0.01)
    began = time.monotonic()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert maker.standing("tiny-3d")["waiting"] == 0
    await events.aclose()
    assert time.monotonic() - began < 1.0
    pid = maker.standing("tiny-3d")["pid"]
    assert (await fold(maker.run(wish(), call()))).produced
    assert maker.standing("tiny-3d")["pid"] == pid


async def killed(maker: LocalBackend) -> None:
    async with aclosing(maker.run(wish(extra={"resolution": 160}), call())) as events:
        async for event in events:
            if isinstance(event, Progress):
                os.kill(maker.standing("tiny-3d")["pid"], signal.SIGKILL)


@shared
async def test_a_worker_that_is_killed_fails_its_request_and_the_next_is_served(maker: LocalBackend) -> None:
    await fold(maker.run(wish(), call()))
    with pytest.raises(GatewayError) as died:
        await killed(maker)
    assert died.value.status == 502
    assert (await fold(maker.run(wish(), call(60.0)))).produced
