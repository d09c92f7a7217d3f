"""The surface of a signed distance field as a mesh: surface nets on a grid that has no ambiguous cells.

Source: https://cerbion.net/blog/understanding-surface-nets/; that such a grid gives a manifold is shown by Latecki,
"3D Well-Composed Pictures" (1997).  Invariant: every edge has two faces, wound so that they look outwards.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.intp]

CHUNK = 16_384
"""Places that are asked for between two looks at whether the client is still there."""
COARSE = 4
"""Cells of the fine grid along the side of a coarse one."""
TRUSTED = 0.18
"""Distances up to this one are what a model was taught; further away it was only taught that it is further."""
SLACK = 1.5
"""How much nearer to a surface a place may be than the model believes."""
SPECK = 0.02
"""Parts below this share of the whole's volume are noise."""

_CORNERS = np.array(list(product((0, 1), repeat=3)))
_EDGES = [(a, b) for a, b in combinations(range(8), 2) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1]


class Distances(Protocol):
    """How far the surface is from places in [-1, 1]³; negative inside."""

    def distances(self, places: Array) -> Array: ...


class Surface:
    """The surface of one field: first sampled, piece by piece, then meshed."""

    def __init__(self, field: Distances, resolution: int) -> None:
        """resolution: points of the grid along each side, about."""
        self._field = field
        cells = -(-(resolution - 1) // COARSE) * COARSE
        self._axis = np.linspace(-1, 1, cells + 1, dtype=np.float32)
        self._grid: Array = np.empty((0, 0, 0), np.float32)

    def sampled(self) -> Iterator[tuple[int, int, str]]:
        """Ask the field wherever the surface may be: (pieces done, pieces in all, stage), before each piece."""
        axis, coarse = self._axis, self._axis[::COARSE]
        rough = np.empty(len(coarse) ** 3, np.float32)
        yield from self._asked(_places(coarse), rough, "sketching")
        sketch = rough.reshape((len(coarse),) * 3)
        near = self._near(sketch, reach=COARSE * float(axis[1] - axis[0]) * 3**0.5 / 2 * SLACK)
        # What is not near is as far as the corner before it, which says on which side it is.
        grid = _spread(sketch, len(axis)).copy()
        values = np.empty(int(near.sum()), np.float32)
        yield from self._asked(axis[np.argwhere(near)], values, "generating")
        grid[near] = values
        self._grid = grid

    def mesh(self) -> tuple[Array, Ints]:
        """Vertices and triangles.  Raises ValueError when there is no surface."""
        # Nothing reaches the border, so that the surface is closed.
        grid = _unambiguous(np.pad(self._grid, 1, constant_values=1.0))
        if not (grid < 0).any():
            raise ValueError("the field has no surface")
        vertices, faces = _nets(grid)
        step = float(self._axis[1] - self._axis[0])
        return _solid((vertices - 1) * step - 1, faces)

    def _asked(self, places: Array, into: Array, stage: str) -> Iterator[tuple[int, int, str]]:
        pieces = -(-len(places) // CHUNK)
        for n in range(pieces):
            yield n, pieces, stage
            part = slice(n * CHUNK, (n + 1) * CHUNK)
            into[part] = self._field.distances(places[part])

    def _near(self, sketch: Array, reach: float) -> NDArray[np.bool_]:
        """Which points of the fine grid lie in or at a coarse cell that the surface may pass."""
        n = len(self._axis)
        if reach > TRUSTED:
            return np.ones((n, n, n), bool)
        corners = np.stack(_corners(sketch))
        passed = (np.abs(corners).min(0) < reach) | ((corners < 0).any(0) & (corners >= 0).any(0))
        near = np.zeros((n, n, n), bool)
        cells = np.repeat(np.repeat(np.repeat(passed, COARSE, 0), COARSE, 1), COARSE, 2)
        for corner in _CORNERS:
            near[_corner_of(cells.shape, corner)] |= cells
        return near


def _places(axis: Array) -> Array:
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def _spread(sketch: Array, size: int) -> Array:
    index = np.arange(size) // COARSE
    return sketch[np.ix_(index, index, index)]


def _corner_of(cells: tuple[int, ...], corner: Ints) -> tuple[slice, ...]:
    """Where, in a grid of points, one corner of each cell is."""
    return tuple(slice(c, c + n) for c, n in zip(corner.tolist(), cells, strict=True))


def _corners(grid: NDArray[Any]) -> list[NDArray[Any]]:
    """At each cell, the values at its eight corners."""
    cells = tuple(n - 1 for n in grid.shape)
    return [grid[_corner_of(cells, corner)] for corner in _CORNERS]


def _unambiguous(grid: Array) -> Array:
    """The grid with places filled in where things touch in a line or a point only, which no solid does."""
    grid = grid.copy()
    while True:
        inside = grid < 0
        fill = _crossed(inside) | _pinched(inside)
        if not fill.any():
            return grid
        # Only ever more inside, so this ends; just inside, so that the surface moves as little as it can.
        grid[fill] = -1e-4


def _crossed(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points outside that belong to a square of the grid with two opposite corners inside and two outside."""
    fill = np.zeros_like(inside)
    for u, v in combinations(range(3), 2):
        at: dict[tuple[int, int], tuple[slice, ...]] = {}
        for i, j in product((0, 1), repeat=2):
            where = [slice(None)] * 3
            where[u], where[v] = (slice(k, inside.shape[0] - 1 + k) for k in (i, j))
            at[i, j] = tuple(where)
        a, b, c, d = (inside[at[key]] for key in ((0, 0), (1, 1), (0, 1), (1, 0)))
        first, second = a & b & ~c & ~d, c & d & ~a & ~b
        # One of the two is enough.
        fill[at[0, 1]] |= first
        fill[at[0, 0]] |= second
    return fill


def _pinched(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points outside that belong to a cell where two opposite corners alone are inside, or alone are outside."""
    fill = np.zeros_like(inside)
    corners = _corners(inside)
    count = np.sum(corners, axis=0)
    for n in range(4):
        one, other = corners[n], corners[7 - n]
        alone = (count == 2) & one & other
        hollow = (count == 6) & ~one & ~other
        for m in range(8):
            where = _corner_of(alone.shape, _CORNERS[m])
            # A way along three edges joins the two; a hollow is filled at one end.
            if m in _way(n):
                fill[where] |= alone
            if m == n:
                fill[where] |= hollow
    return fill


def _way(n: int) -> tuple[int, int]:
    """The corners between a corner and its opposite, along the axes in turn."""
    one = _CORNERS[n].copy()
    found = []
    for axis in (0, 1):
        one[axis] = 1 - one[axis]
        found.append(int(one @ (4, 2, 1)))
    return found[0], found[1]


def _nets(grid: Array) -> tuple[Array, Ints]:
    """A vertex in each cell that the surface passes, a quad (as two triangles) around each edge it crosses."""
    inside = grid < 0
    corners = np.stack(_corners(inside))
    passed = corners.any(0) & ~corners.all(0)
    cells = np.argwhere(passed)
    index = np.full(passed.shape, -1, np.intp)
    index[passed] = np.arange(len(cells))
    total, crossings = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for a, b in _EDGES:
        at_a, at_b = (grid[tuple((cells + _CORNERS[end]).T)] for end in (a, b))
        crossed = (at_a < 0) != (at_b < 0)
        share = np.where(crossed, at_a / np.where(crossed, at_a - at_b, 1), 0)[:, None]
        total += np.where(crossed[:, None], _CORNERS[a] + share * (_CORNERS[b] - _CORNERS[a]), 0)
        crossings += crossed
    faces = []
    for axis in range(3):
        u, v = np.eye(3, dtype=np.intp)[[(axis + 1) % 3, (axis + 2) % 3]]
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(0, -1), slice(1, None)
        begins = inside[tuple(here)]
        edges = np.argwhere(begins != inside[tuple(there)])
        around = np.stack([index[tuple((edges - off).T)] for off in (u + v, v, 0 * u, u)], -1)
        outwards = begins[tuple(edges.T)]
        around[~outwards] = around[~outwards][:, ::-1]
        faces += [around[:, [0, 1, 2]], around[:, [0, 2, 3]]]
    return cells + total / crossings[:, None], np.concatenate(faces)


def _solid(vertices: Array, faces: Ints) -> tuple[Array, Ints]:
    """Without specks, and without bubbles, which nobody sees."""
    labels = _parts(len(vertices), faces)
    corners = vertices[faces]
    volumes = np.zeros(len(vertices))
    swept = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    np.add.at(volumes, labels[faces[:, 0]], swept)
    kept = volumes > SPECK * volumes.clip(0).sum()
    faces = faces[kept[labels[faces[:, 0]]]]
    used, flat = np.unique(faces, return_inverse=True)
    return vertices[used], flat.reshape(-1, 3)


def _parts(count: int, faces: Ints) -> Ints:
    """For each vertex the first one it hangs together with."""
    labels = np.arange(count)
    while True:
        least = labels[faces].min(1)
        before = labels.copy()
        for corner in range(3):
            np.minimum.at(labels, faces[:, corner], least)
        labels = labels[labels]
        if (labels == before).all():
            return labels
