"""The engine of our own small models of things: words → a signed distance field → a mesh, with numpy alone.

A model is a folder: `config.json` says what it knows and how its network is laid out, `model.safetensors` holds the
numbers.  It makes what it was taught and refuses all else; the same words and seed give the same mesh.
"""

import difflib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from backends.local.studio import Job, Refused, Report
from backends.local.studio import serve as serve_jobs
from compat.canonical.message import GLB

RESOLUTION, RESOLUTION_MIN, RESOLUTION_MAX = 88, 24, 160
"""Points of the grid along each side."""
CLOSE = 0.7
"""How much alike a word and a known one are, from 0 to 1, for the second to be proposed."""

_word = re.compile(r"[^\W_]+").finditer


class Wanted(NamedTuple):
    """What a prompt asks for, in the model's own words."""

    thing: str
    colour: str
    across: float
    """How many times as wide and as deep as it would be,"""
    up: float
    """and how many times as high."""


class Vocabulary:
    """What a model knows: things, colours, how they may be stretched, and other words for all of these."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.words: list[str] = config["words"]
        self._filler: list[str] = config["filler"]
        self._colours: list[str] = config["colours"]
        self._things: dict[str, dict[str, Any]] = config["things"]
        self._stretches: dict[str, dict[str, float]] = config["stretches"]
        self._synonyms: dict[str, str] = config["synonyms"]

    @property
    def things(self) -> list[str]:
        return list(self._things)

    def height_m(self, thing: str) -> float:
        height: float = self._things[thing]["height_m"]
        return height

    def read(self, prompt: str) -> Wanted:
        """What is asked for; words that say nothing here are passed over.  Raises Refused."""
        said = [self._known(match[0]) for match in _word(prompt.lower())]
        things = list(dict.fromkeys(word for word in said if word in self._things))
        if not things:
            raise Refused(self._unknown(prompt), param="prompt", code="unsupported_value")
        if len(things) > 1:
            raise Refused(
                f"This model makes one thing at a time, and the prompt names {' and '.join(things)}.",
                param="prompt",
                code="unsupported_value",
            )
        colours = [word for word in said if word in self._colours]
        stretches = [self._stretches[word] for word in dict.fromkeys(said) if word in self._stretches]
        across, up = (math.prod(stretch[way] for stretch in stretches) for way in ("across", "up"))
        return Wanted(things[0], (colours or [self._things[things[0]]["colour"]])[0], across, up)

    def encoded(self, wanted: Wanted) -> Iterator[float]:
        """One number a word: whether it is said."""
        said = {*self._filler, wanted.thing, wanted.colour}
        return (float(word in said) for word in self.words)

    def _known(self, word: str) -> str:
        known = {*self._things, *self._colours, *self._stretches}
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if (meant := self._synonyms.get(form, form)) in known:
                return meant
        return word

    def _unknown(self, prompt: str) -> str:
        nouns = {thing: thing for thing in self._things}
        nouns |= {word: meant for word, meant in self._synonyms.items() if meant in self._things}
        near = [
            nouns[found]
            for match in _word(prompt.lower()[:500])
            for found in difflib.get_close_matches(match[0], nouns, 1, CLOSE)
        ]
        proposal = f" The closest that it knows is '{near[0]}'." if near else ""
        return f"This model cannot make that.{proposal} It makes: {', '.join(self._things)}."


def serve(spec: dict[str, Any], report: Report) -> NoReturn:
    """Load the folder at the spec's path and do jobs."""
    # Which numpy reads when it is imported, and never again.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(spec["threads"])
    from backends.local.studio.implicit import Network
    from backends.local.studio.mesh import Mesh
    from backends.local.studio.surface import Surface
    from backends.srgb import to_linear

    folder = Path(spec["path"])
    config = json.loads((folder / "config.json").read_text())
    vocabulary, network = Vocabulary(config), Network(folder / "model.safetensors", config)

    def make(job: Job) -> None:
        if job.body.get("image") is not None:
            raise Refused("This model makes meshes from words, not from pictures.", param="image")
        wanted = vocabulary.read(job.body["prompt"])
        resolution = _resolution(job.body.get("resolution", RESOLUTION))
        seed = job.body.get("seed")
        field = network.field(list(vocabulary.encoded(wanted)), secrets.randbits(63) if seed is None else seed)
        surface = Surface(field, resolution)
        for done, of, stage in surface.sampled():
            job.step(done, of, stage)
        job.step(1, 1, "meshing")
        vertices, faces = surface.mesh()
        colours = to_linear(field.colours(vertices))
        mesh = Mesh(vertices, faces, colours).standing(vocabulary.height_m(wanted.thing))
        job.made(mesh.stretched(wanted.across, wanted.up).glb(), GLB)

    serve_jobs(spec, report, make)


def _resolution(given: int) -> int:
    if not RESOLUTION_MIN <= given <= RESOLUTION_MAX:
        raise Refused(
            f"Invalid value for 'resolution': expected a whole number from {RESOLUTION_MIN} to {RESOLUTION_MAX}.",
            param="resolution",
        )
    return given
