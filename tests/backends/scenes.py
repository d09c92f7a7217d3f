"""Scenes of solids as a language model describes them, and one that plays the model."""

import json
from collections.abc import Sequence
from typing import Any

from tests import wire
from tests.exchange import Exchange, Script
from tests.scripts import tell

Triple = tuple[float, float, float]


def solid(
    operation: str,
    shape: str,
    size: Triple,
    position: Triple = (0, 0, 0),
    rotation: Triple = (0, 0, 0),
    points: Sequence[tuple[float, float]] = (),
) -> dict[str, Any]:
    return {
        "operation": operation,
        "shape": shape,
        "size": dict(zip("xyz", size, strict=True)),
        "position": dict(zip("xyz", position, strict=True)),
        "rotation": dict(zip("xyz", rotation, strict=True)),
        "points": [{"x": x, "y": y} for x, y in points],
    }


def part(name: str, colour: str, *solids: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "colour": colour, "solids": list(solids)}


def scene(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"parts": list(parts)}


TABLE = scene(
    part("top", "#8b5a2b", solid("union", "box", (1.2, 0.04, 0.7), (0, 0.72, 0))),
    part(
        "legs",
        "#5c3a1a",
        *(solid("union", "box", (0.06, 0.71, 0.06), (x, 0.355, z)) for x in (-0.55, 0.55) for z in (-0.3, 0.3)),
    ),
)
HOUSE = scene(
    part(
        "walls",
        "#e8d8b0",
        solid("union", "box", (6, 3, 5), (0, 1.5, 0)),
        solid("difference", "box", (5.6, 3, 4.6), (0, 1.7, 0)),
        solid("difference", "box", (1, 2, 1), (0, 1, 2.5)),
        *(solid("difference", "box", (0.9, 0.9, 1), (x, 1.7, 2.5)) for x in (-1.9, 1.9)),
    ),
    part("roof", "#a03020", solid("union", "wedge", (6.6, 2, 5.6), (0, 4, 0))),
    part("chimney", "#705040", solid("union", "box", (0.5, 1.6, 0.5), (1.6, 4.4, -1))),
)
SNOWMAN = scene(
    part(
        "body",
        "#f8f8ff",
        *(solid("union", "sphere", (d, d, d), (0, y, 0)) for d, y in ((0.9, 0.45), (0.65, 1.05), (0.45, 1.5))),
    ),
    part("nose", "#ff8000", solid("union", "cone", (0.08, 0.3, 0.08), (0, 1.52, 0.33), (90, 0, 0))),
    part("eyes", "#101010", *(solid("union", "sphere", (0.06,) * 3, (x, 1.6, 0.19)) for x in (-0.08, 0.08))),
    part(
        "hat",
        "#202020",
        solid("union", "cylinder", (0.55, 0.04, 0.55), (0, 1.7, 0)),
        solid("union", "cylinder", (0.34, 0.3, 0.34), (0, 1.85, 0)),
    ),
)
MUG = scene(
    part(
        "mug",
        "#3366cc",
        solid("union", "cylinder", (0.08, 0.1, 0.08), (0, 0.05, 0)),
        solid("union", "torus", (0.07, 0.014, 0.07), (0.045, 0.05, 0), (90, 0, 0)),
        solid("difference", "cylinder", (0.07, 0.1, 0.07), (0, 0.06, 0)),
    )
)
OUTLINE = ((0.1, 0.0), (0.5, 0.0), (0.4, 0.6), (0.2, 1.0))
EVERYTHING = scene(
    *(
        part(f"a_{shape}", "#40a0c0", solid("union", shape, (1, 0.4, 1.2), (2 * n, 1, 0), (10, 20, 30), OUTLINE))
        for n, shape in enumerate(
            ("box", "sphere", "cylinder", "cone", "pyramid", "wedge", "torus", "capsule", "prism", "revolved")
        )
    )
)
NOTHING_LEFT = scene(
    part(
        "gone",
        "#ffffff",
        solid("union", "box", (1, 1, 1)),
        solid("difference", "sphere", (4, 4, 4)),
    )
)
SCENES = {"table": TABLE, "house": HOUSE, "snowman": SNOWMAN, "mug": MUG, "everything": EVERYTHING}


def describing(*scenes: Any) -> Script:
    """A model that answers with one scene after the other, the last of them from then on."""
    left = [one if isinstance(one, str) else json.dumps(one) for one in scenes]

    async def describe(x: Exchange) -> None:
        text = left.pop(0) if len(left) > 1 else left[0]
        words = [text[at : at + 200] for at in range(0, len(text), 200)]
        await tell(x, wire.stream(words, include_usage=x.wants_usage))

    return describe
