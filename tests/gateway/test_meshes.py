"""Finishing meshes: what is told of them, what they become, and what strangers cannot do with them."""

import asyncio
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import trimesh
from PIL import Image

from backends.fake import tetrahedron
from compat.canonical.error import BadResponse, TimedOut
from gateway import gltf, meshes
from gateway.meshes import Mesh, Meshes
from gateway.poster import draw
from tests.gateway.solids import Json, box, changed, glb


@pytest.fixture(scope="module")
def finished() -> Mesh:
    """A box in every format."""
    return asyncio.run(Meshes().finish(box(colours=True), ("glb", "obj", "ply", "stl")))


def test_the_facts_are_those_of_the_mesh(finished: Mesh) -> None:
    facts = finished.facts
    assert (facts.vertices, facts.faces) == (36, 12)
    assert facts.bounds == ((-0.5, -1.0, -1.5), (0.5, 1.0, 1.5))
    # Every corner is there three times over, and yet there is no hole.
    assert facts.watertight


@pytest.mark.parametrize("format_", ["glb", "obj", "ply", "stl"])
def test_each_format_is_the_same_mesh(finished: Mesh, format_: Any) -> None:
    mesh = trimesh.load_mesh(io.BytesIO(finished.files[format_]), file_type=format_)
    assert len(mesh.faces) == 12
    assert mesh.volume == pytest.approx(6.0)
    assert mesh.bounds.tolist() == [[-0.5, -1, -1.5], [0.5, 1, 1.5]]


def test_colours_are_linear_in_glb_and_as_seen_elsewhere(finished: Mesh) -> None:
    ply: Any = trimesh.load_mesh(io.BytesIO(finished.files["ply"]), file_type="ply")
    assert finished.files["glb"] == box(colours=True)
    assert ply.visual.vertex_colors[0].tolist() == [128, 128, 128, 255]


def test_the_poster_shows_it(finished: Mesh) -> None:
    assert finished.poster is not None
    picture = np.asarray(Image.open(io.BytesIO(finished.poster)))
    assert picture.shape == (384, 384, 3)
    grey = picture[192, 192].tolist()
    assert max(grey) - min(grey) < 3
    assert picture[2, 2].min() > 235
    covered = (picture.max(-1) < 200).mean()
    assert 0.2 < covered < 0.7


def test_a_hole_is_told() -> None:
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    mesh = asyncio.run(Meshes().finish(sheet.export(file_type="glb"), ("glb",), poster=False))  # type: ignore[arg-type]
    assert not mesh.facts.watertight
    assert mesh.poster is None


def loops(tree: Json) -> None:
    tree["nodes"] = [{"children": [1]}, {"children": [0], "mesh": 0}]


def doubles(tree: Json) -> None:
    """Thirty levels with two ways each: a thousand million tetrahedra."""
    tree["nodes"] = [{"children": [n + 1, n + 1]} for n in range(30)] + [{"mesh": 0}]


def claims(tree: Json) -> None:
    tree["accessors"][1] = {"componentType": 5126, "count": 4_000_000_000, "type": "VEC3"}


def repeats(tree: Json) -> None:
    tree["nodes"] = [{"mesh": 0} for _ in range(9000)]
    tree["accessors"][1] |= {"count": 1000}


def beyond(tree: Json) -> None:
    tree["bufferViews"][1]["byteLength"] = 10**9


def refers(tree: Json) -> None:
    tree["buffers"][0]["uri"] = "file:///etc/hostname"


def pictures(tree: Json) -> None:
    tree["images"] = [{"uri": "http://127.0.0.1:9/secret.png"}]


def compressed(tree: Json) -> None:
    tree["extensionsRequired"] = ["EXT_meshopt_compression"]


def draco(tree: Json) -> None:
    tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}


def empty(tree: Json) -> None:
    tree["meshes"], tree["nodes"] = [], []


HOSTILE: dict[Callable[[Json], object], str] = {
    loops: "valid",
    doubles: "no tree",
    claims: "numbers",
    repeats: "vertices",
    beyond: "valid",
    refers: "outside itself",
    pictures: "outside itself",
    compressed: "EXT_meshopt_compression",
    draco: "Draco",
    empty: "no mesh",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_what_would_blow_up_or_reach_out_is_refused_in_words(change: Callable[[Json], object]) -> None:
    data = changed(change)
    if change in (loops, beyond):  # seen only when it is read
        with pytest.raises(BadResponse, match=HOSTILE[change]):
            asyncio.run(Meshes().finish(data, ("glb",)))
    else:
        with pytest.raises(gltf.Unreadable, match=HOSTILE[change]):
            gltf.check(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"glTF",
        b"not a mesh at all, by any means",
        tetrahedron("x")[:60],
        glb({}),
        glb({"nodes": 7}),
        glb({"nodes": [{"mesh": 3}], "meshes": []}),
        glb({"meshes": [{"primitives": [{"attributes": {"POSITION": "x"}}]}], "nodes": [{"mesh": 0}], "accessors": []}),
        tetrahedron("x").replace(b'"2.0"', b"[[[[["),
        b"glTF\x01" + tetrahedron("x")[5:],
    ],
    ids=range(10),
)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(gltf.Unreadable):
        gltf.check(data)


def test_triangles_without_corners_are_refused() -> None:
    whole = tetrahedron("x")
    with pytest.raises(BadResponse, match="cannot be used"):
        asyncio.run(Meshes().finish(whole[:-72] + b"\xff\x7f" * 12 + whole[-48:], ("glb",)))


def test_what_is_too_large_never_reaches_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "GLB_MAX_BYTES", 100)
    with pytest.raises(BadResponse, match="larger than 100 bytes"):
        asyncio.run(Meshes().finish(tetrahedron("x"), ("glb",)))


def finishers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "gateway.finisher" in child.cmdline()
    ]


async def test_cancelled_it_is_gone_within_a_second_and_its_place_is_free() -> None:
    place = Meshes()
    tasks = [asyncio.create_task(place.finish(tetrahedron("x"), ("glb",))) for _ in range(meshes.AT_ONCE + 1)]
    async with asyncio.timeout(10):
        while len(finishers()) < meshes.AT_ONCE:
            await asyncio.sleep(0.01)
    began = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - began < 1.0
    assert all(task.cancelled() for task in tasks)
    assert finishers() == []
    assert (await place.finish(tetrahedron("x"), ("glb",))).facts.watertight


async def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "WITHIN_S", 0.05)
    with pytest.raises(BadResponse, match=r"not finished in 0\.05 s"):
        await Meshes().finish(tetrahedron("x"), ("glb",))
    assert finishers() == []


async def test_it_is_held_to_the_deadline_of_its_request() -> None:
    with pytest.raises(TimedOut):
        await Meshes().finish(tetrahedron("x"), ("glb",), deadline=asyncio.get_running_loop().time() + 0.05)
    assert finishers() == []


def test_what_lies_behind_is_not_seen() -> None:
    """Two squares facing us, the red one nearer."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    vertices = np.concatenate([square, square * 0.5 + [0, 0, 1]]).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    colours = np.array([[0, 0, 1]] * 4 + [[1, 0, 0]] * 4, np.float32)
    for order in (faces, faces[::-1]):
        picture = np.asarray(Image.open(io.BytesIO(draw(vertices, order, colours, 64)))).astype(int)
        red = picture[..., 0] - picture[..., 2] > 60
        blue = picture[..., 2] - picture[..., 0] > 60
        assert red.sum() > 200
        assert blue.sum() > red.sum()
        assert not (picture[red][:, 2] > 60).all()
