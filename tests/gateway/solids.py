"""Meshes as strangers may send them: a GLB that is right, and ways to get it wrong."""

import json
import struct
from collections.abc import Callable
from typing import Any

from backends.fake import tetrahedron

Json = dict[str, Any]


def glb(tree: Json, binary: bytes = b"") -> bytes:
    """A GLB that says this, whatever it is."""
    described = json.dumps(tree).encode()
    described += b" " * (-len(described) % 4)
    chunks = struct.pack("<I4s", len(described), b"JSON") + described
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def changed(change: Callable[[Json], object]) -> bytes:
    """A tetrahedron whose description was tampered with."""
    whole = tetrahedron("grey")
    size = int.from_bytes(whole[12:16], "little")
    tree = json.loads(whole[20 : 20 + size])
    change(tree)
    return glb(tree, whole[28 + size :])


def box(colours: bool = False) -> bytes:
    """A box with a vertex for each corner of each side, as most programs write it."""
    import numpy as np
    import trimesh

    mesh = trimesh.creation.box((1.0, 2.0, 3.0))
    mesh.unmerge_vertices()
    if colours:
        mesh.visual.vertex_colors = np.tile([[55, 55, 55, 255]], (len(mesh.vertices), 1))
    data: bytes = mesh.export(file_type="glb")
    return data
