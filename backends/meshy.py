"""Meshy: meshes from words or a picture, made by tasks that are polled.

A task lives on whether it is watched or not, and costs credits: so it is created once, trouble in asking how it
stands is waited out, and one that nobody waits for any more is deleted there.  Meshy documents no way to cancel
a task, and not whether deleting one that runs gives its credits back.

Source: https://docs.meshy.ai/api (`compat.meshy` has the wire format).
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from yarl import URL

from backends.base import Call, Price, unfit
from backends.download import Downloads
from backends.ports import Account, Ports
from backends.relay import LARGE_BYTES, Wire
from compat.canonical.error import (
    AuthFailed,
    BackendError,
    BadResponse,
    ContentFiltered,
    GatewayError,
    InvalidRequest,
    Overloaded,
    QuotaExhausted,
    Rejected,
    TimedOut,
    UpstreamFailed,
)
from compat.canonical.event import Event, Finished, Produced, Progress, Started
from compat.canonical.message import GLB, Media
from compat.canonical.model import Model
from compat.canonical.request import MeshRequest, Request
from compat.meshy import (
    CARRIED,
    TEXTURING,
    Task,
    TaskError,
    depiction_of,
    parse_created,
    parse_task,
    preview_of,
    refinement_of,
)

CREATE_S = 30.0
POLL_TIMEOUT_S = 15.0
LOST_MAX = 6
"""Polls in a row that may fail before a task is taken for lost."""
BACKOFF = 1.5
FETCHES = 3
"""Times that a mesh is fetched at most."""
DELETE_S = 10.0

_HOME = "https://api.meshy.ai"
_TEXT, _IMAGE = "openapi/v2/text-to-3d", "openapi/v1/image-to-3d"
_OWN = frozenset({"texture"})
"""What a request may say that is ours, not Meshy's."""
_STAGES = {"PENDING": "queued", "IN_PROGRESS": "generating", "SUCCEEDED": "generating"}

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    api_key: str | None = None
    """None takes the environment variable MESHY_API_KEY."""
    base_url: str = _HOME
    models: tuple[str, ...] = ("latest", "meshy-6", "meshy-5")
    """What is listed; Meshy has no list of its own.  Others can be asked for by BACKEND/MODEL."""
    texture: bool = False
    """Colour the meshes, which is a second task that costs extra; a request may say otherwise: `texture`."""
    poll_s: Seconds = 2.0
    """Until a task is looked at, and looked at again; half as much longer each time,"""
    poll_max_s: Seconds = 10.0
    """up to this."""
    mesh_max_bytes: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    """Larger files are refused."""


class MeshyBackend:
    keeps_deadlines = True
    price: Price | None = "paid"

    def __init__(self, name: str, settings: Settings, key: str | None, account: Account | None) -> None:
        self.name = name
        self._settings = settings
        self._base = settings.base_url.rstrip("/")
        self._headers = {"user-agent": "pluggably", **({"authorization": f"Bearer {key}"} if key else {})}
        self._wire = Wire(name, account=account)
        public_only = account is not None and account.public_only
        self._downloads = Downloads(name, self._base, public_only=public_only)
        self._parting: set[asyncio.Task[None]] = set()
        """What is still to be deleted there."""

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, MeshRequest):
            raise unfit(self.name, request)
        textured = self._textured(request, call)
        steps = 200 if textured and request.image is None else 100
        yield Started(id=call.request_id, model=request.model, created=int(time.time()))
        if request.image is not None:
            path, body = _IMAGE, await _depicted(request, request.image, textured)
        else:
            path, body = _TEXT, preview_of(request, textured=textured)
        made: list[str] = []
        async with aclosing(self._task(path, body, call, made, steps)) as progress:
            async for event in progress:
                yield event
        if steps > 100:
            body = refinement_of(request, made.pop())
            async with aclosing(self._task(path, body, call, made, steps, done=100)) as progress:
                async for event in progress:
                    yield event
        yield _at(steps, steps, "downloading", call)
        yield Produced(media=Media(mime=GLB, data=await self._fetched(made.pop(), call)))
        yield Finished(reason="stop")

    async def models(self) -> Sequence[Model]:
        return [
            Model(name=name, backend=self.name, modality="3d", capabilities=("3d", "image_to_3d"))
            for name in self._settings.models
        ]

    async def aclose(self) -> None:
        if self._parting:
            await asyncio.wait(self._parting, timeout=DELETE_S)
        await self._wire.aclose()
        await self._downloads.aclose()

    def _textured(self, request: MeshRequest, call: Call) -> bool:
        """Whether it is to be coloured; what of the request Meshy does not know is left out."""
        wanted = request.extra.get("texture")
        if wanted is None:
            wanted = self._settings.texture
        elif wanted is not True and wanted is not False:
            raise InvalidRequest("'texture' must be true or false.", param="texture", code="invalid_type")
        known = CARRIED | _OWN | (TEXTURING if wanted else frozenset())
        lost = [name for name, value in request.extra.items() if name not in known and value is not None]
        lost += [name for name in ("seed", "user") if getattr(request, name) is not None]
        if request.image is not None and request.prompt and not wanted:
            lost.append("prompt")  # it would say what it looks like, not what shape it has
        call.drop(*lost)
        return wanted

    async def _task(
        self, path: str, body: Mapping[str, Any], call: Call, made: list[str], steps: int, *, done: int = 0
    ) -> AsyncGenerator[Progress, None]:
        """Have a task done.  `made` gets its id where another is to go on with it, else the address of its mesh."""
        id_ = await self._created(path, body, call)
        over = False
        try:
            async with aclosing(self._polled(path, id_, call)) as states:
                async for task in states:
                    stage = "texturing" if done else _STAGES.get(task.status, "generating")
                    yield _at(done + min(max(task.progress, 0), 100), steps, stage, call)
            over = True
        except _Over as e:
            over = True
            raise e.error from None
        finally:
            if not over:
                self._part(self._delete(path, id_))
        if done + 100 < steps:
            made.append(id_)
        elif task.model_urls and (address := task.model_urls.get("glb")):
            made.append(address)
        else:
            raise self._spent(f"Backend '{self.name}' has made no GLB.")

    async def _created(self, path: str, body: Mapping[str, Any], call: Call) -> str:
        """Create a task.  One whose creation nobody waits for any more is deleted as soon as its id is known."""
        creating = asyncio.create_task(self._create(path, body, call))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._part(self._uncreate(path, creating))
            raise

    async def _create(self, path: str, body: Mapping[str, Any], call: Call) -> str:
        encoded = await asyncio.to_thread(msgspec.json.encode, body)
        headers = {**self._headers, "content-type": "application/json"}
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        left_s = min(CREATE_S, _left_s(call))
        try:
            answer = await self._wire.get(self._url(path), headers, left_s, method="POST", body=encoded, ok=(200, 202))
            return parse_created(answer)
        except BackendError as e:
            if not (e.worked and e.retryable):
                raise
            raise self._spent(f"Backend '{self.name}' may have begun the mesh, but did not say so.", e) from e

    async def _polled(self, path: str, id_: str, call: Call) -> AsyncGenerator[Task, None]:
        """How a task stands, until it is done.  Raises _Over when it ended otherwise, and GatewayError."""
        loop = asyncio.get_running_loop()
        pause_s, lost = self._settings.poll_s, 0
        while True:
            due = loop.time() + pause_s
            if due >= call.deadline:
                await asyncio.sleep(_left_s(call))
                raise TimedOut(f"Backend '{self.name}' did not finish in time.")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * BACKOFF, self._settings.poll_max_s)
            try:
                answer = await self._wire.get(
                    self._url(path, id_), self._headers, min(POLL_TIMEOUT_S, _left_s(call)), limit=1024 * 1024
                )
                task = parse_task(answer)
            except (AuthFailed, QuotaExhausted, Rejected) as e:
                raise self._lost(e) from e
            except BackendError as e:
                lost += 1
                if lost >= LOST_MAX:
                    raise self._lost(e) from e
                pause_s = max(pause_s, e.retry_after_s or 0.0)
                continue
            lost = 0
            if task.status in ("FAILED", "CANCELED", "EXPIRED"):
                raise _Over(self._failure(task))
            yield task
            if task.status == "SUCCEEDED":
                return

    async def _fetched(self, address: str, call: Call) -> bytes:
        """The mesh that a task has made.  Raises GatewayError."""
        for left in reversed(range(FETCHES)):
            try:
                mesh = await self._downloads.fetch(address, call.deadline, self._settings.mesh_max_bytes)
            except (BadResponse, TimedOut) as e:
                raise self._spent(e.message, e) from e
            except BackendError as e:
                if not left:
                    raise self._spent(e.message, e) from e
                await asyncio.sleep(min(self._settings.poll_s, _left_s(call)))
            else:
                if mesh[:4] == b"glTF":
                    return mesh
                break
        raise self._spent(f"Backend '{self.name}' has made what is not a GLB.")

    def _lost(self, error: GatewayError) -> GatewayError:
        if isinstance(error, (AuthFailed, QuotaExhausted)):
            return error
        return self._spent(f"Backend '{self.name}' began the mesh, and then could not be asked how it stands.", error)

    def _spent(self, message: str, of: GatewayError | None = None) -> BackendError:
        """Trouble after a task was begun: routing must not have another begun, and paid for, on the same route."""
        error = BackendError(message, code="upstream_bad_response" if of is None else of.code)
        error.worked = True
        return error

    def _failure(self, task: Task) -> GatewayError:
        """Why a task ended without a mesh."""
        if task.status != "FAILED":
            ended = "was cancelled there" if task.status == "CANCELED" else "is no longer kept there"
            return BackendError(f"The task of backend '{self.name}' {ended}.")
        found = task.task_error or TaskError()
        if found.code == "moderation_blocked":
            return ContentFiltered(f"Backend '{self.name}' refused the request by its content policy.")
        reason = f" {found.reason}" if found.reason else ""
        if found.type == "invalid_input":
            return Rejected(f"Backend '{self.name}' could make no mesh of this.{reason}", code="invalid_input")
        if found.type == "timeout":
            return TimedOut(f"Backend '{self.name}' took too long to make the mesh.")
        if found.type == "service_unavailable":
            return Overloaded(f"Backend '{self.name}' is overloaded.", retry_after_s=5.0)
        return UpstreamFailed(f"Backend '{self.name}' failed to make the mesh.{reason}")

    async def _uncreate(self, path: str, creating: "asyncio.Task[str]") -> None:
        with suppress(GatewayError):
            await self._delete(path, await creating)

    async def _delete(self, path: str, id_: str) -> None:
        with suppress(GatewayError):  # it ends by itself, and Meshy forgets it after three days
            await self._wire.get(self._url(path, id_), self._headers, DELETE_S, method="DELETE", ok=(200, 202, 204))

    def _part(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it without anybody waiting."""
        parting = asyncio.create_task(work)
        self._parting.add(parting)
        parting.add_done_callback(self._parting.discard)

    def _url(self, path: str, id_: str = "") -> URL:
        return URL(f"{self._base}/{path}{'/' if id_ else ''}{id_}", encoded=True)


async def _depicted(request: MeshRequest, picture: Media, textured: bool) -> dict[str, Any]:
    """The body of a task; a large picture takes its time to be written in base64."""
    if len(picture.data or b"") < LARGE_BYTES:
        return depiction_of(request, picture, textured=textured)
    return await asyncio.to_thread(depiction_of, request, picture, textured=textured)


class _Over(Exception):
    """A task ended without a mesh: nothing is left to be deleted that would go on."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__()
        self.error = error


def _at(step: int, of: int, stage: str, call: Call) -> Progress:
    call.wait.step, call.wait.steps = step, of
    return Progress(step=step, of=of, stage=stage)


def _left_s(call: Call) -> float:
    return max(0.0, call.deadline - asyncio.get_running_loop().time())


def connect(name: str, settings: Settings, ports: Ports) -> MeshyBackend:
    """Raises ValueError that names the field and the cure."""
    if not settings.base_url.startswith(("http://", "https://")):
        raise ValueError("base_url: must start with http:// or https://")
    if settings.poll_max_s < settings.poll_s:
        raise ValueError("poll_max_s: must not be less than poll_s")
    # The environment's key is Meshy's: no other server gets to see it.
    own = not ports.keyless and settings.base_url.rstrip("/") == _HOME
    key = settings.api_key or (os.environ.get("MESHY_API_KEY") if own else None)
    if key is None and own:
        raise ValueError("api_key: missing; set it, or the environment variable MESHY_API_KEY")
    return MeshyBackend(name, settings, key, ports.account)
