"""The objects that tiny-3d was trained on: signed distances and colours, in [-1, 1]³ with Y up."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
Part = tuple[Callable[[Array], Array], Colour]
"""Distances of places (N x 3) from a surface, negative inside, and its colour."""

COLOURS: dict[str, Colour] = {
    "red": (0.84, 0.16, 0.16), "green": (0.18, 0.63, 0.26), "blue": (0.15, 0.33, 0.84), "yellow": (0.98, 0.82, 0.17),
    "orange": (0.96, 0.51, 0.13), "purple": (0.51, 0.24, 0.71), "pink": (0.96, 0.51, 0.71), "white": (0.95, 0.95, 0.95),
    "black": (0.1, 0.1, 0.1), "brown": (0.47, 0.31, 0.18), "gray": (0.5, 0.5, 0.5), "cyan": (0.16, 0.76, 0.82),
}  # fmt: skip
THINGS = (
    "sphere", "cube", "cylinder", "cone", "torus", "pyramid", "chair", "table", "house", "tree", "mushroom", "snowman",
    "rocket", "mug",
)  # fmt: skip
LEG = 0.085
"""Half a leg's thickness: thinner ones break in the network."""

Point = tuple[float, float, float]


def field(thing: str, colour: Colour, chance: Sequence[float], places: Array) -> tuple[Array, Array]:
    """Distances and colours at some places."""
    found = parts(thing, colour, chance)
    distances = np.stack([distance(places) for distance, _ in found])
    nearest = distances.argmin(0)
    return distances.min(0), np.array([part[1] for part in found])[nearest]


def parts(thing: str, c: Colour, chance: Sequence[float]) -> list[Part]:
    """What a thing is made of; the first two numbers of `chance` stretch it."""
    a, b = 1 + 0.18 * chance[0], 1 + 0.18 * chance[1]
    brown, white = COLOURS["brown"], COLOURS["white"]
    second = COLOURS["red"] if c != COLOURS["red"] else white
    match thing:
        case "sphere":
            return [(ball((0, 0, 0), 0.6 * a), c)]
        case "cube":
            return [(box((0, 0, 0), (0.5 * a, 0.5 * a, 0.5 * a)), c)]
        case "cylinder":
            return [(cylinder((0, 0, 0), 0.42 * a, 0.6 * b), c)]
        case "cone":
            return [(frustum((0, 0, 0), 0.55 * a, 0.0, 0.6 * b), c)]
        case "torus":
            return [(ring((0, 0, 0), 0.5 * a, 0.2 * b), c)]
        case "pyramid":
            return [(pyramid((0, 0, 0), 0.6 * a, 0.5 * b), c)]
        case "chair":
            seat, back = box((0, -0.05, 0), (0.42, 0.06, 0.42)), box((0, 0.4 * b, -0.37), (0.42, 0.42 * b, 0.06))
            legs = [box((x, -0.42, z), (LEG, 0.38, LEG)) for x in (-0.325, 0.325) for z in (-0.325, 0.325)]
            return [(part, c) for part in (seat, back, *legs)]
        case "table":
            top = box((0, 0.25, 0), (0.65 * a, 0.06, 0.5 * b))
            feet = [(x * 0.55 * a, z * 0.4 * b) for x in (-1, 1) for z in (-1, 1)]
            return [(part, c) for part in (top, *(box((x, -0.2, z), (LEG, 0.45, LEG)) for x, z in feet))]
        case "house":
            roof = second if second != white else brown
            walls, door = box((0, -0.25, 0), (0.5 * a, 0.35, 0.45)), box((0, -0.4, 0.44), (0.1, 0.2, 0.04))
            return [(walls, c), (pyramid((0, 0.4 * b, 0), 0.68 * a, 0.3 * b), roof), (door, brown)]
        case "tree":
            crown = [frustum((0, 0.05, 0), 0.5 * a, 0.1, 0.3), frustum((0, 0.5 * b, 0), 0.36 * a, 0.0, 0.32)]
            return [(cylinder((0, -0.45, 0), 0.1, 0.35), brown), *((part, c) for part in crown)]
        case "mushroom":
            cap = ball((0, -0.05, 0), 0.58 * b)
            return [(cylinder((0, -0.35, 0), 0.16 * a, 0.35), white), (lambda p: np.maximum(cap(p), -p[:, 1]), c)]
        case "snowman":
            balls = [ball((0, -0.42, 0), 0.42 * a), ball((0, 0.18, 0), 0.3), ball((0, 0.6, 0), 0.21)]
            return [*((part, c) for part in balls), (ball((0, 0.6, 0.24), 0.06), COLOURS["orange"])]
        case "rocket":
            fins = [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)]
            return [
                (cylinder((0, -0.1, 0), 0.22 * a, 0.5), c),
                (frustum((0, 0.62, 0), 0.22 * a, 0.0, 0.24), second),
                *((box((x, -0.5, z), (0.16 if x else 0.05, 0.18, 0.16 if z else 0.05)), second) for x, z in fins),
            ]
        case "mug":
            outside, inside = cylinder((-0.1, 0, 0), 0.42 * a, 0.48 * b), cylinder((-0.1, 0.12, 0), 0.34 * a, 0.48 * b)
            loop = ring((0.36, 0, 0), 0.27, 0.095)
            return [
                (lambda p: np.maximum(outside(p), -inside(p)), c),
                (lambda p: np.maximum(loop(p[:, [0, 2, 1]]), 0.30 - p[:, 0]), c),
            ]
    raise ValueError(f"there is no {thing}")


def ball(at: Point, radius: float) -> Callable[[Array], Array]:
    return lambda p: np.linalg.norm(p - np.array(at), axis=-1) - radius


def box(at: Point, half: Point, rounding: float = 0.02) -> Callable[[Array], Array]:
    def distance(p: Array) -> Array:
        q = np.abs(p - np.array(at)) - (np.array(half) - rounding)
        out: Array = np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - rounding
        return out

    return distance


def cylinder(at: Point, radius: float, half: float) -> Callable[[Array], Array]:
    def distance(p: Array) -> Array:
        q = p - np.array(at)
        d = np.stack([np.hypot(q[:, 0], q[:, 2]) - radius, np.abs(q[:, 1]) - half], -1)
        out: Array = np.minimum(d.max(-1), 0) + np.linalg.norm(np.maximum(d, 0), axis=-1)
        return out

    return distance


def frustum(at: Point, below: float, above: float, half: float) -> Callable[[Array], Array]:
    """A cone cut off: its radius at the bottom and at the top."""

    def distance(p: Array) -> Array:
        q = p - np.array(at)
        t = np.clip((q[:, 1] + half) / (2 * half), 0, 1)
        slant = 2 * half / math.hypot(2 * half, below - above)
        side = (np.hypot(q[:, 0], q[:, 2]) - (below + (above - below) * t)) * slant
        out: Array = np.maximum(side, np.abs(q[:, 1]) - half)
        return out

    return distance


def pyramid(at: Point, radius: float, half: float) -> Callable[[Array], Array]:
    def distance(p: Array) -> Array:
        q = p - np.array(at)
        t = np.clip((q[:, 1] + half) / (2 * half), 0, 1)
        slant = 2 * half / math.hypot(2 * half, radius)
        side = (np.maximum(np.abs(q[:, 0]), np.abs(q[:, 2])) - radius * (1 - t)) * slant
        out: Array = np.maximum(side, np.abs(q[:, 1]) - half)
        return out

    return distance


def ring(at: Point, around: float, thick: float) -> Callable[[Array], Array]:
    def distance(p: Array) -> Array:
        q = p - np.array(at)
        out: Array = np.hypot(np.hypot(q[:, 0], q[:, 2]) - around, q[:, 1]) - thick
        return out

    return distance
