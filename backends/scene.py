"""3D from any language model: it describes a scene of solids, and the mesh is built from them exactly.

No model of shapes is at work here: what comes is as good as the description (docs/3d.md).  The text route is asked
through the port that the house lends, in the name of whoever asks for the mesh; the mesh is built in a child process
of its own (`backends.solids`), which ends when it is done or nobody waits any more.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from backends.base import Call, Price, unfit
from backends.errand import Errands, Unfinished
from backends.ports import Ask, Ports
from compat import scene
from compat.canonical.error import BackendError, ModelNotFound, TimedOut
from compat.canonical.event import Event, Finished, Produced, Progress, Started, TextDelta
from compat.canonical.message import GLB, Media, Message, Text
from compat.canonical.model import Model
from compat.canonical.plain import telling
from compat.canonical.request import MeshRequest, Request, Sampling, Schema, TextRequest

TRIES = 2
"""The first, and one in which the model is told what was wrong."""
BUILD_S = 30.0
"""From when its turn has come."""
AT_ONCE = 2
"""Scenes that are built; others wait for their turn."""
MESH_MAX_BYTES = 128 * 1024 * 1024
TOLD_EVERY_S = 1.0
"""How often it is said that the description goes on."""
STEPS = 2
"""A mesh is described, then built."""
ANSWER_MAX = 256 * 1024
"""Characters of a description; one of as many solids as are possible has a tenth of it."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str = "auto"
    """Who describes the scenes: any name that a client could ask for text, or BACKEND/MODEL."""
    max_tokens: Annotated[int, Meta(ge=64)] = 8192
    """Of a description."""
    json_schema: bool = True
    """Hold the model to the schema by `response_format`; False only tells it, for providers that refuse one."""
    solids_max: Annotated[int, Meta(ge=1, le=scene.SOLIDS_MAX)] | None = None
    """Bounds a description in its schema as well, which keeps small models short and which not every provider takes;
    None only checks it afterwards."""


class SceneBackend:
    keeps_deadlines = True
    price: Price | None = "local"
    """Of the building; what the description costs is the text route's, in a usage row of its own."""

    def __init__(self, name: str, settings: Settings, ask: Ask) -> None:
        self.name = name
        self._settings = settings
        self._ask = ask
        self._errands = Errands("backends.solids", at_once=AT_ONCE, within_s=BUILD_S, answer_max_bytes=MESH_MAX_BYTES)
        self._schema: Schema | None = None
        if settings.json_schema:
            self._schema = Schema(name="scene", schema=scene.schema(settings.solids_max), strict=True)
        self._instructions = scene.instructions(settings.solids_max, form=not settings.json_schema)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, MeshRequest):
            raise unfit(self.name, request)
        if request.model != self._settings.model:
            raise ModelNotFound(f"Backend '{self.name}' has one model, '{self._settings.model}'.")
        call.drop(*telling(request.extra), *(["user"] if request.user else []))
        yield Started(id=call.request_id, model=request.model, created=int(time.time()))
        messages = self._asked(request)
        for left in reversed(range(TRIES)):
            written: list[str] = []
            try:
                async with aclosing(self._described(request, messages, written, call)) as progress:
                    async for event in progress:
                        yield event
                text = "".join(written)
                built = scene.parse(text, self._settings.solids_max)
                yield _at(2, "building", call)
                mesh = await self._built(built, call)
            except scene.Unbuildable as e:
                if not left:
                    raise self._given_up(e) from e
                messages += _corrected("".join(written), e)
            else:
                yield Produced(media=Media(mime=GLB, data=mesh))
                yield Finished(reason="stop")
                return

    async def models(self) -> Sequence[Model]:
        return [
            Model(
                name=self._settings.model,
                backend=self.name,
                modality="3d",
                capabilities=("3d", "image_to_3d", "constructed"),
                source="constructed from solids by a language model",
            )
        ]

    async def aclose(self) -> None:
        return  # it holds nothing between requests

    def _asked(self, request: MeshRequest) -> tuple[Message, ...]:
        said: tuple[Text | Media, ...] = ()
        if request.prompt:
            said += (Text(text=request.prompt),)
        if request.image is not None:
            said += (Text(text="Build what this picture shows."), request.image)
        return (
            Message(role="system", parts=(Text(text=self._instructions),)),
            Message(role="user", parts=said),
        )

    async def _described(
        self, request: MeshRequest, messages: tuple[Message, ...], written: list[str], call: Call
    ) -> AsyncGenerator[Progress, None]:
        """Have the scene described, into `written`.  Raises Unbuildable if it does not end, and GatewayError."""
        loop = asyncio.get_running_loop()
        yield _at(1, "describing", call)
        told, size, ended = loop.time(), 0, ""
        asked = TextRequest(
            model=self._settings.model,
            messages=messages,
            sampling=Sampling(max_tokens=self._settings.max_tokens, seed=request.seed),
            schema=self._schema,
        )
        async with aclosing(self._ask(asked, call)) as events:
            async for event in events:
                match event:
                    case TextDelta(text=text):
                        written.append(text)
                        size += len(text)
                        if size > ANSWER_MAX:
                            raise scene.Unbuildable("The description did not end.")
                        if loop.time() - told >= TOLD_EVERY_S:
                            told = loop.time()
                            yield _at(1, "describing", call)
                    case Finished(reason=ended):
                        pass
        if ended == "length":
            raise scene.Unbuildable("The description is too long: it was cut off. Use fewer solids.")

    async def _built(self, described: scene.Scene, call: Call) -> bytes:
        """The GLB.  Raises Unbuildable and TimedOut."""
        try:
            answer, _ = await self._errands.done(msgspec.json.encode(described), deadline=call.deadline)
        except (TimeoutError, Unfinished) as e:
            raise TimedOut(f"Backend '{self.name}' could not build the scene in time.") from e
        if answer[:1] == b"E":
            raise scene.Unbuildable(answer[1:].decode())
        if answer[:1] != b"G":  # it was too much for its bounds
            raise scene.Unbuildable("The scene has too much detail.")
        return answer[1:]

    def _given_up(self, why: scene.Unbuildable) -> BackendError:
        """Not one that is tried again on the same route: the model had its second try."""
        error = BackendError(
            f"The model '{self._settings.model}' described no scene that can be built. {why}",
            code="upstream_bad_response",
        )
        error.worked = True
        return error


def _at(step: int, stage: str, call: Call) -> Progress:
    call.wait.step, call.wait.steps = step, STEPS
    return Progress(step=step, of=STEPS, stage=stage)


def _corrected(text: str, why: scene.Unbuildable) -> tuple[Message, ...]:
    """The model's own words, and what is wrong with them."""
    return (
        Message(role="assistant", parts=(Text(text=text[:ANSWER_MAX] or "{}"),)),
        Message(
            role="user", parts=(Text(text=f"This scene cannot be built. {why} Answer with all of it, corrected."),)
        ),
    )


def connect(name: str, settings: Settings, ports: Ports) -> SceneBackend:
    """Raises ValueError that names the field and the cure."""
    if ports.ask is None:
        raise ValueError("kind: 'scene' needs models of the house's own to ask; it cannot be a user's own account")
    return SceneBackend(name, settings, ports.ask)
