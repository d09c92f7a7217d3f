"""What a model says of a scene: read, held to bounds, and refused in words that tell it what to change."""

import copy
import json
import math
from typing import Any

import pytest

from compat.scene import POINTS_MAX, SOLIDS_MAX, Unbuildable, instructions, parse, schema
from tests.backends.scenes import HOUSE, MUG, SCENES, part, scene, solid


def changed(at: str, value: Any) -> dict[str, Any]:
    """The mug with something else at a path like `parts.0.solids.1.size.x`."""
    mug = copy.deepcopy(MUG)
    *way, last = (int(step) if step.isdigit() else step for step in at.split("."))
    place: Any = mug
    for step in way:
        place = place[step]
    place[last] = value
    return mug


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_read(name: str) -> None:
    read = parse(json.dumps(SCENES[name]))
    assert [one.name for one in read.parts] == [one["name"] for one in SCENES[name]["parts"]]


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", "  {}\n", "\n```json\n{}\n```\n"])
def test_a_fence_around_it_does_no_harm(fence: str) -> None:
    assert parse(fence.replace("{}", json.dumps(HOUSE))) == parse(json.dumps(HOUSE))


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ("", "form"),
        ("A table.", "form"),
        ('{"parts": [{"name": "a"', "form"),
        ("[" * 5000, "form"),
        ('{"parts": []}', "0 parts"),
        (scene(*[part("a", "#ffffff", solid("union", "box", (1, 1, 1)))] * 33), "33 parts"),
        (scene(part("a", "#ffffff", *[solid("union", "box", (1, 1, 1))] * (SOLIDS_MAX + 1))), "129 solids"),
        (scene(part("a", "#ffffff")), "parts[0].solids is empty"),
        (changed("parts.0.name", "../../etc"), "parts[0].name"),
        (changed("parts.0.name", "a" * 40), "parts[0].name"),
        (changed("parts.0.colour", "red"), "parts[0].colour"),
        (changed("parts.0.solids.1.size.x", 0), "parts[0].solids[1].size.x"),
        (changed("parts.0.solids.1.size.y", 0.5), "parts[0].solids[1].size.y must be less than half"),
        (changed("parts.0.solids.1.size.z", -1), "parts[0].solids[1].size.z"),
        (changed("parts.0.solids.2.size.x", 1e300), "parts[0].solids[2].size.x"),
        (changed("parts.0.solids.2.position.y", -1e9), "parts[0].solids[2].position.y"),
        (changed("parts.0.solids.2.rotation.y", 1e9), "parts[0].solids[2].rotation.y"),
        (changed("parts.0.solids.2.position.y", math.nan), "form"),
        (changed("parts.0.solids.2.position.y", "0"), "form"),
        (changed("parts.0.solids.2.shape", "teapot"), "form"),
        (changed("parts.0.solids.2.shape", "prism"), "parts[0].solids[2].points must be between 3"),
        (
            scene(part("a", "#ffffff", solid("union", "prism", (1, 1, 1), points=[(0, 0)] * (POINTS_MAX + 1)))),
            "points must be between 3",
        ),
        (
            scene(part("a", "#ffffff", solid("union", "revolved", (1, 1, 1), points=[(-1, 0), (1, 0), (1, 1)]))),
            "points[0].x must be between 0",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(described: Any, told: str) -> None:
    with pytest.raises(Unbuildable, match=told.replace("[", r"\[").replace("]", r"\]")):
        parse(described if isinstance(described, str) else json.dumps(described))


def test_fewer_solids_may_be_wanted() -> None:
    parse(json.dumps(MUG), 3)
    with pytest.raises(Unbuildable, match="at most 2"):
        parse(json.dumps(MUG), 2)
    assert "at most 2 solids" in instructions(2)


def test_the_schema_keeps_to_what_strict_modes_take() -> None:
    """Every property required, nothing additional, no bounds of lists but at least one, unless they are asked for."""

    def look(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["required"] == list(node["properties"])
                assert node["additionalProperties"] is False
            assert set(node) <= {
                "type", "properties", "required", "additionalProperties", "items", "minItems", "enum", "pattern",
            } or "type" not in node  # fmt: skip
            for one in node.values():
                look(one)

    look(schema())
    assert "maxItems" in json.dumps(schema(4))
