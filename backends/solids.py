"""The program of a child process that builds one scene of solids and ends: exact, in memory, within bounds.

It is asked for a scene that was checked (`compat.scene`), as JSON, and answers with one byte and a body: `G` and the
GLB, or `E` and why it cannot be built, in words fit for whoever described it.
"""

import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, cast

import manifold3d
import numpy as np
import trimesh
from manifold3d import CrossSection, FillRule, Manifold, OpType

from backends.bounds import serve
from backends.srgb import to_linear

ROUND = 64
"""Sides of what is round."""
TUBE = 32
"""The same of a ring's tube."""
TRIANGLES_MAX = 1_000_000
"""As many as the gateway passes on (`gateway.gltf`)."""
MEMORY_MAX_BYTES = 4 << 30
CPU_MAX_S = 60

Solid = dict[str, Any]


class Unbuildable(Exception):
    """Says why."""


def answered(asked: bytes) -> Iterator[bytes]:
    """A scene built, as the parent reads it."""
    try:
        yield b"G" + build(json.loads(asked))
    except Unbuildable as e:
        yield b"E" + str(e).encode()


def build(scene: dict[str, Any]) -> bytes:
    """The GLB of a scene: a node for each part, watertight, by its name and in its colour.  Raises Unbuildable."""
    built = trimesh.Scene()
    triangles = 0
    for part in scene["parts"]:
        body = combined(part)
        triangles += body.num_tri()
        if triangles > TRIANGLES_MAX:
            raise Unbuildable("The scene has too much detail.")
        mesh = body.to_mesh()
        geometry = trimesh.Trimesh(
            vertices=np.asarray(mesh.vert_properties)[:, :3],
            faces=np.asarray(mesh.tri_verts),
            process=False,
            visual=trimesh.visual.TextureVisuals(  # type: ignore[no-untyped-call]
                material=material(part["colour"])
            ),
        )
        # A name that comes twice gets a number.
        built.add_geometry(geometry, node_name=part["name"], geom_name=part["name"])
    return cast(bytes, built.export(file_type="glb"))  # type: ignore[no-untyped-call]


def combined(part: dict[str, Any]) -> Manifold:
    """The body of a part: its solids, one after the other.  Raises Unbuildable."""
    name, done = part["name"], 0
    body = Manifold()
    # Those in a row that do the same go together, which is many times as quick.
    for operation, group in groupby(part["solids"], key=lambda solid: solid["operation"]):
        solids = [placed(solid, f"Solid {done + n} of part '{name}'") for n, solid in enumerate(group, 1)]
        body = Manifold.batch_boolean([body, *solids] if done else solids, OPERATIONS[operation])
        done += len(solids)
        if body.is_empty():
            raise Unbuildable(f"Nothing is left of part '{name}' after its solid {done} ({operation}).")
    return body


def placed(solid: Solid, name: str) -> Manifold:
    """A solid where it belongs.  Raises Unbuildable."""
    turn, at = solid["rotation"], solid["position"]
    one = SHAPES[solid["shape"]](solid).rotate((turn["x"], turn["y"], turn["z"]))
    if one.status() != manifold3d.Error.NoError or one.is_empty():
        raise Unbuildable(f"{name}, a {solid['shape']}, has no volume.")
    return one.translate((at["x"], at["y"], at["z"]))


def material(colour: str) -> Any:
    """A dull one.  glTF counts in linear light, and colours are told as screens show them."""
    shown = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = to_linear(np.array(shown))
    return trimesh.visual.material.PBRMaterial(  # type: ignore[no-untyped-call]
        baseColorFactor=[round(c * 255) for c in linear.tolist()] + [255], metallicFactor=0.0, roughnessFactor=0.8
    )


def _sized(unit: Manifold, solid: Solid) -> Manifold:
    """Something of one metre each way, in the size of the solid."""
    size = solid["size"]
    return unit.scale((size["x"], size["y"], size["z"]))


def _upright(along_z: Manifold) -> Manifold:
    """What was made along Manifold's axis z, along ours, y."""
    return along_z.rotate((-90, 0, 0))


def _section(solid: Solid) -> CrossSection:
    outline = [(point["x"], point["y"]) for point in solid["points"]]
    return CrossSection([outline], FillRule.NonZero)  # whichever way round it is drawn


def _box(solid: Solid) -> Manifold:
    return _sized(Manifold.cube((1, 1, 1), True), solid)


def _sphere(solid: Solid) -> Manifold:
    return _sized(Manifold.sphere(0.5, ROUND), solid)


def _cylinder(solid: Solid) -> Manifold:
    return _sized(_upright(Manifold.cylinder(1, 0.5, 0.5, ROUND, True)), solid)


def _cone(solid: Solid) -> Manifold:
    return _sized(_upright(Manifold.cylinder(1, 0.5, 0, ROUND, True)), solid)


def _pyramid(solid: Solid) -> Manifold:
    return _sized(_upright(Manifold.cylinder(1, 0.5**0.5, 0, 4, True).rotate((0, 0, 45))), solid)


def _wedge(solid: Solid) -> Manifold:
    gable = CrossSection([[(-0.5, -0.5), (0.5, -0.5), (0, 0.5)]])
    return _sized(gable.extrude(1).translate((0, 0, -0.5)), solid)


def _torus(solid: Solid) -> Manifold:
    size = solid["size"]
    tube = size["y"] / 2
    ring = CrossSection.circle(tube, TUBE).translate((size["x"] / 2 - tube, 0)).revolve(ROUND)
    return _upright(ring).scale((1, 1, size["z"] / size["x"]))


def _capsule(solid: Solid) -> Manifold:
    size = solid["size"]
    straight = size["y"] - size["x"]
    if straight <= 0:
        return _sphere(solid)
    ball = Manifold.sphere(size["x"] / 2, ROUND)
    ends = [ball.translate((0, y, 0)) for y in (-straight / 2, straight / 2)]
    return Manifold.batch_hull(ends).scale((1, 1, size["z"] / size["x"]))


def _prism(solid: Solid) -> Manifold:
    deep = solid["size"]["z"]
    return _section(solid).extrude(deep).translate((0, 0, -deep / 2))


def _revolved(solid: Solid) -> Manifold:
    return _upright(_section(solid).revolve(ROUND))


SHAPES: dict[str, Callable[[Solid], Manifold]] = {
    "box": _box,
    "sphere": _sphere,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _pyramid,
    "wedge": _wedge,
    "torus": _torus,
    "capsule": _capsule,
    "prism": _prism,
    "revolved": _revolved,
}
OPERATIONS = {"union": OpType.Add, "difference": OpType.Subtract, "intersection": OpType.Intersect}

if __name__ == "__main__":
    serve(answered, memory_max_bytes=MEMORY_MAX_BYTES, cpu_max_s=CPU_MAX_S)
