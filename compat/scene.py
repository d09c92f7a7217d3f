"""A scene of solids, as a language model describes it: the schema it answers in, what it is told, and the reading.

A scene has parts, each of one colour; a part is built from solids that are added, cut away or intersected one after
the other, so that nothing can refer to itself.  Metres and degrees; Y is up, and the floor is at y = 0.

The schema keeps to what every provider's strict mode and llama.cpp's grammars take: no recursion, no alternatives,
no bounds of numbers; those are checked here.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

PARTS_MAX = 32
SOLIDS_MAX = 128
"""In all parts together."""
POINTS_MAX = 64
"""Of one outline."""
SIZE_MIN, SIZE_MAX = 0.001, 1000.0
"""Metres."""
FAR_MAX = 1000.0
"""Metres from the origin."""
_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*(?:```)?\s*", re.DOTALL).fullmatch
_NAME = "[a-z][a-z0-9_]{0,30}"
_COLOUR = "#[0-9a-f]{6}"
_name = re.compile(_NAME).fullmatch
_colour = re.compile(_COLOUR).fullmatch

Shape = Literal[
    "box", "sphere", "cylinder", "cone", "pyramid", "wedge", "torus", "capsule", "prism", "revolved"
]  # fmt: skip
Operation = Literal["union", "difference", "intersection"]
_UNMEASURED: dict[Shape, str] = {"prism": "xy", "revolved": "xyz"}
"""Sizes that do not matter, since the outline says them."""


class Unbuildable(Exception):
    """A scene that cannot be built; says why, in words fit for whoever described it."""


class Vector(Struct, frozen=True):
    x: float
    y: float
    z: float


class Point(Struct, frozen=True):
    x: float
    y: float


class Solid(Struct, frozen=True):
    operation: Operation
    """With what the solids before it left of its part; of the first, it does not matter."""
    shape: Shape
    size: Vector
    position: Vector
    """Of its centre; of a prism or revolved outline, of the outline's origin."""
    rotation: Vector
    """About the axes through its position, x first."""
    points: tuple[Point, ...]
    """The outline of a prism or a revolved solid, in metres."""


class Part(Struct, frozen=True):
    name: str
    colour: str
    """#rrggbb"""
    solids: tuple[Solid, ...]


class Scene(Struct, frozen=True):
    parts: tuple[Part, ...]


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _numbers(names: str) -> dict[str, Any]:
    return _object(**{name: {"type": "number"} for name in names})


def schema(solids_max: int | None = None) -> dict[str, Any]:
    """The JSON Schema of a scene.

    solids_max: bounds its lists as well, for small models that would not end; not every provider takes such bounds.
    """

    def some(items: dict[str, Any], most: int | None) -> dict[str, Any]:
        return {"type": "array", "items": items} | ({} if most is None else {"maxItems": most})

    bounded = solids_max is not None
    solid = _object(
        operation={"type": "string", "enum": ["union", "difference", "intersection"]},
        shape={"type": "string", "enum": list(_LOOKS)},
        size=_numbers("xyz"),
        position=_numbers("xyz"),
        rotation=_numbers("xyz"),
        points=some(_numbers("xy"), 8 if bounded else None),
    )
    part = _object(
        name={"type": "string", "pattern": f"^{_NAME}$"},
        colour={"type": "string", "pattern": f"^{_COLOUR}$"},
        solids=some(solid, solids_max) | {"minItems": 1},
    )
    return _object(parts=some(part, 1 if bounded else None) | {"minItems": 1})


_LOOKS: dict[Shape, str] = {
    "box": "a cuboid of this size",
    "sphere": "a ball, or an ellipsoid, of this size",
    "cylinder": "upright along y, size.x and size.z across, size.y high",
    "cone": "like a cylinder, ending in a tip at the top",
    "pyramid": "like a box, ending in a tip at the top",
    "wedge": "a gable roof: size.x wide, size.y high, its ridge along z, size.z long",
    "torus": "a ring lying flat: size.x and size.z across, size.y thick, which is less than half of size.x",
    "capsule": "upright along y with round ends: size.x and size.z across, size.y high with its ends",
    "prism": "the outline `points`, drawn in x and y about the position, made size.z deep along z",
    "revolved": "the outline `points`, x being the distance from the upright axis, never below 0, y the height, "
    "turned once around that axis",
}
INSTRUCTIONS = """\
You build three-dimensional objects from simple solids. Answer with one JSON object of the given form and nothing else.

Lengths are metres, angles degrees. Y is up, the floor is at y = 0, and the object stands on it around x = 0, z = 0,
with its front towards positive z. Use real sizes: a chair seat is about 0.45 high, a mug 0.1.

A scene has `parts`, each with a `name` (lower case, like table_top), one `colour` (#rrggbb) and its `solids`. The
solids of a part are combined in their order: the first is a `union`; each further one is added to what is there
(`union`), cut away from it (`difference`), or only what they share is kept (`intersection`). So a hollow is a body and
then a smaller one as `difference`. What is cut away should reach a little beyond the surface it opens. Parts do not
cut one another; let those that touch overlap a little.

Shapes:
{looks}

`position` is the centre of the solid, except for prism and revolved, whose points are measured from it. `rotation`
turns it about the x, then the y, then the z axis through its position; usually it is 0, 0, 0. `points` is [] for all
other shapes. Use at most {most} solids."""

_read = msgspec.json.Decoder(Scene).decode


def instructions(solids_max: int | None = None, *, form: bool = False) -> str:
    """What a model is told before it is asked for a scene.

    form: with the schema in it, for one that is not held to it otherwise.
    """
    looks = "\n".join(f"- {shape}: {look}" for shape, look in _LOOKS.items())
    told = INSTRUCTIONS.format(looks=looks, most=solids_max or SOLIDS_MAX)
    if not form:
        return told
    return f"{told}\n\nThe JSON Schema of the object:\n{msgspec.json.encode(schema(solids_max)).decode()}"


def parse(text: str, solids_max: int | None = None) -> Scene:
    """Read a model's answer, which may be fenced.  Raises Unbuildable."""
    fenced = _FENCE(text)
    try:
        scene = _read((fenced[1] if fenced else text).encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as e:  # of which msgspec's words name types and places only
        raise Unbuildable(f"It is not a scene of this form: {e}.") from e
    if not 1 <= len(scene.parts) <= PARTS_MAX:
        raise Unbuildable(f"It has {len(scene.parts)} parts; between 1 and {PARTS_MAX} are possible.")
    count, most = sum(len(part.solids) for part in scene.parts), solids_max or SOLIDS_MAX
    if count > most:
        raise Unbuildable(f"It has {count} solids; at most {most} are possible.")
    for n, part in enumerate(scene.parts):
        _check_part(part, f"parts[{n}]")
    return scene


def _check_part(part: Part, at: str) -> None:
    if _name(part.name) is None:
        raise Unbuildable(f"{at}.name must be lower case letters, digits and _, at most 31.")
    if _colour(part.colour) is None:
        raise Unbuildable(f"{at}.colour must be like #c0a080.")
    if not part.solids:
        raise Unbuildable(f"{at}.solids is empty.")
    for n, solid in enumerate(part.solids):
        _check_solid(solid, f"{at}.solids[{n}]")


def _check_solid(solid: Solid, at: str) -> None:
    def within(values: dict[str, float], low: float, high: float) -> None:
        for name, value in values.items():
            if not (math.isfinite(value) and low <= value <= high):
                raise Unbuildable(f"{at}.{name} must be between {low:g} and {high:g}.")

    size, unmeasured = solid.size, _UNMEASURED.get(solid.shape, "")
    within({f"size.{a}": getattr(size, a) for a in "xyz" if a not in unmeasured}, SIZE_MIN, SIZE_MAX)
    within({f"position.{a}": getattr(solid.position, a) for a in "xyz"}, -FAR_MAX, FAR_MAX)
    within({f"rotation.{a}": getattr(solid.rotation, a) for a in "xyz"}, -3600.0, 3600.0)
    if (check := _CHECKS.get(solid.shape)) is not None:
        check(solid, at)
    if solid.shape in _UNMEASURED:
        if not 3 <= len(solid.points) <= POINTS_MAX:
            raise Unbuildable(f"{at}.points must be between 3 and {POINTS_MAX} for a {solid.shape}.")
        for n, point in enumerate(solid.points):
            lowest = 0.0 if solid.shape == "revolved" else -FAR_MAX
            within({f"points[{n}].x": point.x}, lowest, FAR_MAX)
            within({f"points[{n}].y": point.y}, -FAR_MAX, FAR_MAX)


def _check_torus(solid: Solid, at: str) -> None:
    if not solid.size.y < solid.size.x / 2:
        raise Unbuildable(f"{at}.size.y must be less than half of size.x for a torus.")


_CHECKS: dict[Shape, Callable[[Solid, str], None]] = {"torus": _check_torus}
