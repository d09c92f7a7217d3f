"""A picture of a mesh, drawn with numpy alone: no GL, which servers and containers seldom have.

Imports numpy: for child processes only.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

YAW, PITCH = math.radians(35), math.radians(22)
"""From where it is seen: a little from its left and from above, its front towards us."""
MARGIN = 0.86
"""The share of the picture that the mesh takes."""
FINER = 2
"""Pixels that are drawn for the side of one that is kept."""
PIXELS_AT_ONCE = 2_000_000
BACKGROUND = np.array([0.955, 0.958, 0.965], np.float32)
KEY, FILL = (np.array(way, np.float32) / np.linalg.norm(way) for way in ((-0.45, 0.75, 0.6), (0.8, 0.1, 0.5)))
"""Where the light comes from, in the picture's own axes."""
AMBIENT, KEY_SHARE, FILL_SHARE = 0.42, 0.55, 0.16
CREASE = math.cos(math.radians(38))
"""Where a triangle and the surface around it differ by more, there is an edge, not a curve."""
Z_PLANE = 1e-12
EDGE = 1e-4
"""By how much a pixel may lie outside of a triangle: seams would show otherwise."""


def draw(vertices: Floats, faces: NDArray[np.intp], colours: Floats, size: int) -> bytes:
    """A PNG of so many pixels a side.

    colours: of the vertices, in sRGB, 0 to 1.
    """
    turn = _turn()
    spots = ((vertices - (vertices.min(0) + vertices.max(0)) / 2) @ turn.T).astype(np.float32)
    low, high = spots.min(0), spots.max(0)
    side = size * FINER
    scale = side * MARGIN / max(float((high - low)[:2].max()), Z_PLANE)
    spots -= (low + high) / 2
    across = np.stack([side / 2 + spots[:, 0] * scale, side / 2 - spots[:, 1] * scale], -1)
    seen, picture = _drawn(across, spots[:, 2], faces, side)
    image = np.empty((side * side, 3), np.float32)
    image[:] = BACKGROUND
    hit = np.flatnonzero(seen >= 0)
    if len(hit):
        triangles = faces[seen[hit]]
        shades = _light(spots, triangles, _normals(spots, faces), picture[hit])
        image[hit] = np.einsum("nc,nck->nk", picture[hit], colours[triangles]) * shades[:, None]
    image = image.reshape(size, FINER, size, FINER, 3).mean((1, 3)).clip(0, 1)
    return png((image * 255).round().astype(np.uint8))


def png(pixels: Bytes) -> bytes:
    """(height, width, 3) as a PNG.  Source: https://www.w3.org/TR/png-3/"""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    rows = np.zeros((height, width * 3 + 1), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00"
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _turn() -> Floats:
    """The rotation from the mesh's axes to the picture's: right, up, towards us."""
    c, s = math.cos(YAW), math.sin(YAW)
    around = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = math.cos(PITCH), math.sin(PITCH)
    over = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    turn: Floats = (over @ around).astype(np.float32)
    return turn


def _drawn(across: Floats, depth: Floats, faces: NDArray[np.intp], side: int) -> tuple[NDArray[np.intp], Floats]:
    """For each pixel which triangle is the nearest (-1: none), and where in it the pixel lies."""
    nearest = np.full(side * side, -np.inf, np.float32)
    seen = np.full(side * side, -1, np.intp)
    places = np.zeros((side * side, 3), np.float32)
    for pixel, which, weights in _covered(across, faces, side):
        how_near = np.einsum("nc,nc->n", depth[faces[which]], weights)
        np.maximum.at(nearest, pixel, how_near)
        front = how_near == nearest[pixel]
        seen[pixel[front]] = which[front]
        places[pixel[front]] = weights[front]
    return seen, places


def _covered(
    across: Floats, faces: NDArray[np.intp], side: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], Floats]]:
    """Pieces of (pixel, triangle, where in it), over all pixels that any triangle covers.

    Triangles are taken by size: those that fit the same square are tried on all of its pixels together.
    """
    spots = across[faces]
    low = np.floor(spots.min(1)).astype(np.intp).clip(0, side - 1)
    high = np.ceil(spots.max(1)).astype(np.intp).clip(0, side)
    wide = (high - low).max(1)
    slopes, area = _slopes(spots, low)
    shown = np.flatnonzero((np.abs(area) > Z_PLANE) & np.isfinite(area) & (wide > 0))
    shown = shown[np.argsort(wide[shown], kind="stable")]
    start = 0
    while start < len(shown):
        square = int(wide[shown[start]] * 5 // 4 + 1)
        fits = int(np.searchsorted(wide[shown], square, "right"))
        end = min(fits, start + max(1, PIXELS_AT_ONCE // square**2))
        which = shown[start:end]
        start = end
        x, y = (axis.ravel() for axis in np.meshgrid(np.arange(square), np.arange(square)))
        first, second = (_linear(slopes[which, corner], x, y) for corner in (0, 1))
        n, m = np.nonzero((first >= -EDGE) & (second >= -EDGE) & (first + second <= 1 + EDGE))
        column, row = low[which[n], 0] + x[m], low[which[n], 1] + y[m]
        inside = (column < side) & (row < side)
        n, m = n[inside], m[inside]
        weights = np.stack([first[n, m], second[n, m], 1 - first[n, m] - second[n, m]], -1)
        yield (row * side + column)[inside], which[n], weights


def _slopes(spots: Floats, low: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """How the shares of a triangle's first two corners grow from pixel to pixel, from its lowest one: (n, 2, 3) as
    (per column, per row, at the beginning); and twice its area.
    """
    a, b, c = (spots[:, corner] - (low + np.float32(0.5)) for corner in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = [
            np.stack([p[:, 1] - q[:, 1], q[:, 0] - p[:, 0], p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]], -1) / area[:, None]
            for p, q in ((b, c), (c, a))
        ]
    return np.stack(slopes, 1).astype(np.float32), area


def _linear(slope: Floats, x: NDArray[np.intp], y: NDArray[np.intp]) -> Floats:
    out: Floats = slope[:, :1] * x.astype(np.float32) + slope[:, 1:2] * y.astype(np.float32) + slope[:, 2:]
    return out


def _normals(vertices: Floats, faces: NDArray[np.intp]) -> Floats:
    """Of the vertices: those of the triangles around, by their areas."""
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], flat)
    out: Floats = total / (np.linalg.norm(total, axis=1, keepdims=True) + Z_PLANE)
    return out


def _light(spots: Floats, triangles: NDArray[np.intp], normals: Floats, weights: Floats) -> Floats:
    """How bright points of triangles are."""
    corners = spots[triangles]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + Z_PLANE
    around = normals[triangles]
    curved = np.einsum("nck,nk->nc", around, flat) > CREASE
    way = np.einsum("nck,nc->nk", np.where(curved[..., None], around, flat[:, None]), weights)
    way /= np.linalg.norm(way, axis=1, keepdims=True) + Z_PLANE
    # Seen from behind, as open surfaces are, it is lit from there.
    way *= np.where(way[:, 2:] < 0, -1, 1)
    light: Floats = AMBIENT + KEY_SHARE * (way @ KEY).clip(0) + FILL_SHARE * (way @ FILL).clip(0)
    return light
