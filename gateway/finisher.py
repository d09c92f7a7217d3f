"""The program of a child process that finishes one mesh: checks, measures and converts it, and draws its poster.

The parent (`meshes`) asks by a line of JSON, {"formats", "poster_px"}, and the GLB; the answer is a line of JSON,
{"facts", "sizes"} or {"refused": why}, then the files.  Meshes come from strangers, so it may use so much memory and
time and no more.
"""

import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.bounds import serve
from gateway.gltf import Unreadable, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

MEMORY_MAX_BYTES = 3 * 1024**3
CPU_MAX_S = 60
TEXTURE_MAX_PIXELS = 8192 * 8192
GREY = 0.6
"""What has no colour, linear."""


class Part(NamedTuple):
    """One mesh of a scene, where it stands in it."""

    vertices: "Floats"
    faces: "NDArray[np.intp]"
    colours: "Floats"
    """Of the vertices, in sRGB, 0 to 1."""


def answered(asked: bytes) -> Iterator[bytes]:
    """A mesh finished, as the parent reads it."""
    line, _, data = asked.partition(b"\n")
    said = json.loads(line)
    files: dict[str, bytes] = {}
    try:
        facts, files = finish(data, said["formats"], said["poster_px"])
    except Unreadable as e:
        head: dict[str, Any] = {"refused": str(e)}
    except MemoryError:
        head = {"refused": "it takes too much memory"}
    else:
        head = {"facts": facts, "sizes": {name: len(file) for name, file in files.items()}}
    yield json.dumps(head).encode() + b"\n"
    yield from files.values()


def finish(data: bytes, formats: list[str], poster_px: int | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts of a GLB, and its files by format; its poster is the one named `poster`.  Raises Unreadable."""
    check(data)
    import numpy as np

    parts = _parts(data)
    vertices = np.concatenate([part.vertices for part in parts])
    if not np.isfinite(vertices).all():
        raise Unreadable("some of its vertices are nowhere")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts[:-1], strict=True)])
    colours = np.concatenate([part.colours for part in parts])
    facts = {
        "vertices": len(vertices),
        "faces": len(faces),
        "bounds": [vertices.min(0).tolist(), vertices.max(0).tolist()],
        "watertight": all(_is_watertight(part) for part in parts),
    }
    files = {name: data if name == "glb" else _converted(vertices, faces, colours, name) for name in formats}
    if poster_px is not None:
        from gateway.poster import draw

        files["poster"] = draw(vertices.astype(np.float32), faces, colours, poster_px)
    return facts, files


def _parts(data: bytes) -> list[Part]:
    import numpy as np
    import trimesh
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = TEXTURE_MAX_PIXELS
    try:
        scene = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False)
        found = [one for one in scene.dump(concatenate=False) if isinstance(one, trimesh.Trimesh) and len(one.faces)]
        parts = [Part(np.asarray(one.vertices), np.asarray(one.faces), _colours(one)) for one in found]
    except MemoryError:
        raise
    except Exception as e:  # the bytes are a stranger's: whatever is wrong with them, it is not ours
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        raise Unreadable("it is no valid glTF 2.0") from e
    if not parts:
        raise Unreadable("there are no triangles in it")
    if any(part.faces.min() < 0 or part.faces.max() >= len(part.vertices) for part in parts):
        raise Unreadable("some of its triangles have no corners")
    return parts


def _colours(mesh: Any) -> "Floats":
    """Of each vertex: glTF multiplies the material's colour, its texture and the vertex's own, all linear."""
    import numpy as np

    from backends import srgb

    count = len(mesh.vertices)
    visual, colour = mesh.visual, np.full((count, 3), 1.0)
    if visual.kind == "vertex":
        return srgb.from_linear(np.asarray(visual.vertex_colors)[:, :3] / 255)
    if visual.kind != "texture":
        return srgb.from_linear(np.full((count, 3), GREY))
    factor = getattr(visual.material, "baseColorFactor", None)
    if factor is not None:
        colour *= np.asarray(factor)[:3] / (255 if np.asarray(factor).dtype == np.uint8 else 1)
    image = getattr(visual.material, "baseColorTexture", None)
    if image is not None and visual.uv is not None:
        texture = np.asarray(image.convert("RGB"))
        height, width, _ = texture.shape
        column = (visual.uv[:, 0] % 1 * (width - 1)).astype(np.intp)
        row = ((1 - visual.uv[:, 1] % 1) * (height - 1)).astype(np.intp)
        colour *= srgb.to_linear(texture[row, column] / 255)
    own = visual.vertex_attributes.get("color")
    if own is not None:
        own = np.asarray(own)
        colour *= own[:, :3] / (np.iinfo(own.dtype).max if own.dtype.kind == "u" else 1)
    return srgb.from_linear(colour)


def _is_watertight(part: Part) -> bool:
    """Each edge is walked once in each direction.  Vertices at the same place count as one: seams are no holes."""
    import numpy as np

    _, place = np.unique(part.vertices, axis=0, return_inverse=True)
    corners = place.reshape(-1)[part.faces]
    corners = corners[(corners != np.roll(corners, 1, 1)).all(1)]
    begins, ends = corners.reshape(-1), np.roll(corners, -1, 1).reshape(-1)
    there, back = begins * (place.max() + 1) + ends, ends * (place.max() + 1) + begins
    there.sort()
    back.sort()
    return len(there) > 0 and bool((there[1:] != there[:-1]).all()) and bool((there == back).all())


def _converted(vertices: "Floats", faces: "NDArray[np.intp]", colours: "Floats", name: str) -> bytes:
    """As one mesh in another format; STL knows no colours."""
    import numpy as np
    import trimesh

    rgba = np.full((len(vertices), 4), 255, np.uint8)
    rgba[:, :3] = (colours * 255).round()
    mesh = trimesh.Trimesh(vertices, faces, vertex_colors=rgba, process=False)
    file: Any = mesh.export(file_type=name)
    data: bytes = file.encode() if isinstance(file, str) else file
    return data


if __name__ == "__main__":
    serve(answered, memory_max_bytes=MEMORY_MAX_BYTES, cpu_max_s=CPU_MAX_S)
