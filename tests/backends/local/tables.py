"""The tables of marching cubes, worked out: what Shap-E's checkpoint brings and its program does not.

As diffusers' `MeshDecoder` reads them: corner n of a cube is at (n & 1, n >> 1 & 1, n >> 2); edges 0 to 3 go along x, 4
to 7 along y, 8 to 11 along z.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

_CORNERS = np.array([(n & 1, n >> 1 & 1, n >> 2) for n in range(8)])
_EDGES: list[tuple[int, int]] = [
    (base, base + (1 << axis))
    for axis in range(3)
    for second, first in product((0, 1), repeat=2)
    for base in [first << min({0, 1, 2} - {axis}) | second << max({0, 1, 2} - {axis})]
]


def tables() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(256, 5, 3) edges of each case's triangles, and (256, 5) which of these there are."""
    cases, masks = np.zeros((256, 5, 3), np.int64), np.zeros((256, 5), bool)
    for case in range(256):
        triangles = [(loop[0], loop[n], loop[n + 1]) for loop in _loops(case) for n in range(1, len(loop) - 1)]
        cases[case, : len(triangles)] = np.array(triangles).reshape(-1, 3)
        masks[case, : len(triangles)] = True
    return cases, masks


def _loops(case: int) -> list[list[int]]:
    """The polygons of one case, as the edges they cross, seen from outside counter-clockwise."""
    inside = [bool(case >> n & 1) for n in range(8)]
    neighbours: dict[int, list[int]] = {}
    for axis, side in product(range(3), (0, 1)):
        face = [n for n in range(8) if _CORNERS[n][axis] == side]
        crossed = [e for e, (a, b) in enumerate(_EDGES) if a in face and b in face and inside[a] != inside[b]]
        # Where two corners inside are opposite, each is cut off by itself: alike on both sides of the face.
        pairs = [(e, f) for e in crossed for f in crossed if e < f]
        if len(crossed) == 4:
            pairs = [(e, f) for e, f in pairs if _end(e, inside) == _end(f, inside)]
        for e, f in pairs:
            neighbours.setdefault(e, []).append(f)
            neighbours.setdefault(f, []).append(e)
    loops = []
    while neighbours:
        loop = [next(iter(neighbours))]
        while following := [e for e in neighbours[loop[-1]] if e not in loop]:
            loop.append(following[0])
        for e in loop:
            del neighbours[e]
        loops.append(loop if _looks_out(loop, inside) else loop[::-1])
    return loops


def _end(edge: int, inside: list[bool]) -> int:
    return next(n for n in _EDGES[edge] if inside[n])


def _looks_out(loop: list[int], inside: list[bool]) -> bool:
    middles = np.array([_CORNERS[list(_EDGES[e])].mean(0) for e in loop])
    normal = np.cross(middles, np.roll(middles, -1, 0)).sum(0)
    outwards = sum(
        (_CORNERS[a if inside[b] else b] - _CORNERS[_end(e, inside)] for e in loop for a, b in [_EDGES[e]]),
        np.zeros(3),
    )
    return float(normal @ outwards) > 0
