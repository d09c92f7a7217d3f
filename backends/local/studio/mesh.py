"""A mesh on its way out of a child process: vertices, triangles, colours; and its GLB.

GLB is glTF 2.0 (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html): Y up, metres, counter-clockwise
triangles, colours of vertices linear.  Imports numpy and trimesh: for child processes only.
"""

from typing import Any, NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray

Floats = NDArray[Any]


class Mesh(NamedTuple):
    vertices: Floats
    """(n, 3)"""
    faces: NDArray[np.intp]
    """(n, 3), indices of vertices."""
    colours: Floats
    """(n, 3), linear, 0 to 1."""

    def standing(self, height: float) -> "Mesh":
        """The same so high, standing on the ground with its middle above the origin."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        middle = (low + high) / 2
        middle[1] = low[1]
        return self._replace(vertices=(self.vertices - middle) * (height / (high[1] - low[1])))

    def stretched(self, across: float, up: float) -> "Mesh":
        """The same so many times as wide and deep, and so many times as high."""
        return self._replace(vertices=self.vertices * (across, up, across))

    def outwards(self) -> "Mesh":
        """The same with its triangles wound so that they look outwards, where they all look inwards."""
        a, b, c = self.vertices[self.faces].transpose(1, 0, 2)
        inwards = float(np.einsum("ij,ij->", a, np.cross(b, c))) < 0
        return self._replace(faces=self.faces[:, ::-1]) if inwards else self

    def normals(self) -> Floats:
        """Of the vertices: those of the triangles around, by their areas."""
        # Trimesh's own take seconds without scipy.
        corners = self.vertices[self.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.zeros_like(self.vertices)
        for corner in range(3):
            np.add.at(total, self.faces[:, corner], flat)
        normals: Floats = total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
        return normals

    def glb(self) -> bytes:
        rgba = np.ones((len(self.vertices), 4))
        rgba[:, :3] = self.colours
        mesh = trimesh.Trimesh(
            self.vertices,
            self.faces,
            vertex_colors=(rgba * 255).round().astype(np.uint8),
            vertex_normals=self.normals(),
            process=False,
        )
        # Its annotation covers formats that are text.
        data: bytes = mesh.export(file_type="glb", include_normals=True)  # type: ignore[assignment]
        return data
