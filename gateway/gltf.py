"""Looks at a GLB before anything else does: what it claims to hold, not what it is worth.

Source: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.  Invariant: what passes refers to nothing outside
itself, and unfolds to no more than the bounds below.  Standard library only.
"""

import json
from typing import Any

JSON_MAX_BYTES = 8 * 1024 * 1024
THINGS_MAX = 10_000
"""Nodes, meshes, accessors, … of each kind."""
NUMBERS_MAX = 30_000_000
"""In all accessors."""
VERTICES_MAX = FACES_MAX = 1_000_000
"""Of the whole scene, each mesh counted as often as it stands in it."""
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
HARMLESS = ("KHR_materials_", "KHR_texture_", "KHR_mesh_quantization", "KHR_lights_", "EXT_texture_webp")
"""How the extensions begin whose geometry can be read without knowing them."""

Json = dict[str, Any]


class Unreadable(Exception):
    """It cannot be used; the message says why, in words for clients."""


def check(data: bytes) -> None:
    """Raises Unreadable."""
    try:
        tree = _tree(data)
        _check_references(tree)
        _check_sizes(tree)
        _check_scene(tree)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, RecursionError) as e:
        raise Unreadable("it is no valid glTF 2.0") from e


def _tree(data: bytes) -> Json:
    if len(data) < 20 or data[:4] != b"glTF":
        raise Unreadable("it is no GLB")
    if int.from_bytes(data[4:8], "little") != 2:
        raise Unreadable("it is glTF of another version than 2.0")
    size = int.from_bytes(data[12:16], "little")
    if data[16:20] != b"JSON" or size > min(len(data) - 20, JSON_MAX_BYTES):
        raise Unreadable("its description is missing, cut off or too large")
    tree = json.loads(data[20 : 20 + size])
    if not isinstance(tree, dict):
        raise Unreadable("it is no valid glTF 2.0")
    return tree


def _check_references(tree: Json) -> None:
    for thing in (*tree.get("buffers", ()), *tree.get("images", ())):
        if not thing.get("uri", "data:").startswith("data:"):
            raise Unreadable("it refers to files outside itself")
    for name in tree.get("extensionsRequired", ()):
        if not name.startswith(HARMLESS):
            raise Unreadable(f"it needs the extension {name[:60]!r}, which is not supported")


def _check_sizes(tree: Json) -> None:
    for kind, things in tree.items():
        if isinstance(things, list) and len(things) > THINGS_MAX:
            raise Unreadable(f"it has more than {THINGS_MAX} {kind[:40]}")
    if sum(len(mesh["primitives"]) for mesh in tree.get("meshes", ())) > THINGS_MAX:
        raise Unreadable(f"it has more than {THINGS_MAX} primitives")
    if sum(_count(one) * WIDTHS[one["type"]] for one in tree.get("accessors", ())) > NUMBERS_MAX:
        raise Unreadable(f"it has more than {NUMBERS_MAX} numbers")


def _check_scene(tree: Json) -> None:
    """Each node has one parent, so that nothing multiplies; and what all nodes show is bounded."""
    nodes = tree.get("nodes", [])
    children = [child for node in nodes for child in node.get("children", ())]
    if len(children) != len(set(children)):
        raise Unreadable("its nodes are no tree")
    sizes = [_size(mesh, tree["accessors"]) for mesh in tree.get("meshes", ())]
    shown = [sizes[node["mesh"]] for node in nodes if "mesh" in node]
    if not shown:
        raise Unreadable("there is no mesh in it")
    if sum(v for v, _ in shown) > VERTICES_MAX or sum(f for _, f in shown) > FACES_MAX:
        raise Unreadable(f"it has more than {VERTICES_MAX} vertices or {FACES_MAX} triangles")


def _size(mesh: Json, accessors: list[Json]) -> tuple[int, int]:
    vertices = faces = 0
    for primitive in mesh["primitives"]:
        if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
            raise Unreadable("it is compressed by Draco, which is not supported")
        corners = _count(accessors[primitive["attributes"]["POSITION"]])
        vertices += corners
        indices = _count(accessors[primitive["indices"]]) if "indices" in primitive else corners
        # A strip has a triangle for each corner.
        faces += indices if primitive.get("mode", 4) == 5 else indices // 3
    return vertices, faces


def _count(accessor: Json) -> int:
    count = accessor["count"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Unreadable("it is no valid glTF 2.0")
    return count
