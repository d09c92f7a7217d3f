"""Models on this machine: child processes that serve them, shared out among requests.

A child is a model server on loopback: llama.cpp's speaks OpenAI's dialect, so a request for text takes the
relay like any provider's; those that make pictures and meshes speak the dialect of `studio`.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace
from yarl import URL

from backends.base import Backend, Call, Price, Relayed
from backends.local import devices
from backends.local.conversion import made
from backends.local.engine import Engine, choose, lacking
from backends.local.exchange import headers
from backends.local.inspection import glance, inspect
from backends.local.making import Makings
from backends.local.memory import available_bytes, machine_bytes
from backends.local.order import bounds
from backends.local.planning import Plan, engine_of, plan
from backends.local.pool import Pool
from backends.local.ranking import Rankings
from backends.local.settings import Settings, memory_bytes
from backends.local.text import Texts
from backends.local.vectors import Vectors
from backends.local.worker import Worker
from backends.ports import Local, Ports
from backends.relay import Wire
from compat.canonical.error import GatewayError, InvalidRequest, ModelNotFound
from compat.canonical.event import Event
from compat.canonical.model import Modality, Model
from compat.canonical.request import (
    Dialect,
    EmbeddingRequest,
    Envelope,
    ImageRequest,
    MeshRequest,
    Request,
    RerankRequest,
    TextRequest,
)
from compat.openai import llamafield
from compat.openai.llamafault import parse_fault

_MADE: dict[Dialect, Modality] = {
    "embeddings": "embedding",
    "rerank": "rerank",
    "images": "image",
    "image_edits": "image",
    "3d": "3d",
}
"""What a dialect asks for, where that is not text."""
_WORDS: dict[Modality, str] = {
    "text": "text",
    "embedding": "embeddings",
    "rerank": "rankings",
    "image": "pictures",
    "3d": "meshes",
}

__all__ = ["LocalBackend", "Settings", "connect"]


class LocalBackend:
    keeps_deadlines = True
    dialects: frozenset[Dialect] = frozenset({"chat", "completions"})
    price: Price | None = "local"

    def __init__(self, name: str, settings: Settings, ports: Ports, engine: Engine) -> None:
        self.name = name
        # llama.cpp's own server goes on with an assistant's message; the Python one begins a new turn.
        self.prefills = engine.parallel
        self._settings = settings
        self._catalogue = ports.catalogue
        self._engine = engine
        self._reckoning = ports.reckoning
        self._wire = Wire(name, parse_error=parse_fault)
        self._given = False
        """Another backend goes on with its workers, and with the wire to them."""
        self.pool = Pool(
            ports.catalogue,
            lambda local, rung: plan(local, settings, engine, ports.reckoning, rung),
            self._build,
            glance=lambda local, planned: glance(local, planned.spec, engine_of(local, engine)),
            max_loaded=settings.max_loaded,
            memory_max=memory_bytes(settings.memory_max, self._memory_bytes()),
            queue_max=settings.queue_max,
            idle_unload_s=settings.idle_s,
            pinned=frozenset(settings.pin),
            hang_s=settings.hang_s,
            reckoning=ports.reckoning,
            available=available_bytes,
        )
        self._connect()

    def _connect(self) -> None:
        self._texts = Texts(self.pool, self._wire, self._engine, self._settings)
        self._vectors = Vectors(self.pool, self._wire, self._engine, self._settings)
        self._rankings = Rankings(self.pool, self._wire, self._engine, self._settings, self._vectors)
        self._makings = Makings(self.pool, self._wire)

    def succeed(self, old: Backend) -> None:
        if isinstance(old, LocalBackend):
            self.pool.succeed(old.pool)
            self._wire, old._given = old._wire, True
            self._connect()

    def translates(self, envelope: Envelope, model: str) -> bool:
        local = self._catalogue().get(model)
        return local is not None and self._texts.translates(envelope, local)

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        local = self._find(model)
        self._check(envelope.dialect, local)
        return await self._texts.relay(envelope, local, call)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        local = self._find(request.model)
        match request:
            case TextRequest():
                self._check("chat", local)
                answer = self._texts.run(request, local, call)
            case EmbeddingRequest():
                self._check("embeddings", local)
                answer = self._vectors.run(request, local, call)
            case RerankRequest():
                self._check("rerank", local)
                answer = self._rankings.run(request, local, call)
            case ImageRequest() | MeshRequest():
                self._check("images" if isinstance(request, ImageRequest) else "3d", local)
                answer = self._makings.run(request, local, call)
        async with aclosing(answer) as events:
            async for event in events:
                yield event

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        local = self._find(model)
        self._check("chat", local)
        return await self._texts.count_tokens(envelope, local, call)

    async def load(self, model: str, call: Call) -> None:
        await self.pool.load(self._find(model).name, call)

    async def unload(self, model: str, *, force: bool = False) -> None:
        await self.pool.unload(model, force=force)

    def standing(self, model: str) -> dict[str, Any]:
        return self.pool.standing(model)

    def overview(self) -> dict[str, tuple[str, int | None]]:
        """Of the models that were ever wanted: how each stands, and the memory it takes or would take.  Cheap, for
        many models; all others are unloaded."""
        return self.pool.overview()

    def need_bytes(self, model: str) -> int | None:
        """What a model takes in memory, as measured, else as estimated; in any thread.  Raises ModelNotFound."""
        planned = plan(self._find(model), self._settings, self._engine, self._reckoning)
        return None if planned is None else planned.need_bytes

    def lacks(self, model: str) -> str | None:
        engine = engine_of(self._find(model), self._engine).name
        return None if (cure := lacking(engine)) is None else f"{engine}: {cure}"

    def bounds(self, model: str) -> dict[str, dict[str, Any]]:
        """What a model allows of parameters, by name, in words of JSON Schema.  Raises ModelNotFound."""
        local = self._find(model)
        if local.model.modality in ("image", "3d"):
            return bounds(local)
        if local.model.modality == "text":
            return self._text_bounds(local)
        if local.model.modality != "embedding" or not (width := local.traits.width):
            return {}
        if self._settings.of(model).matryoshka:
            return {"dimensions": {"maximum": width}}
        return {"dimensions": {"minimum": width, "maximum": width, "examples": [width]}}

    def _text_bounds(self, local: Local) -> dict[str, dict[str, Any]]:
        out: dict[str, dict[str, Any]] = {
            name: {"minimum": least, "maximum": most} for name, (least, most) in llamafield.LIMITS.items()
        }
        out["max_output_tokens"] = out["max_completion_tokens"]
        planned = plan(local, self._settings, self._engine, self._reckoning)
        if self._engine.parallel and planned is not None:
            out["n"] = {"minimum": 1, "maximum": planned.spec.slots}  # each answer takes a slot
        return out

    def defaults(self, model: str) -> dict[str, Any]:
        """What a model takes where a request says nothing, by name.  Raises ModelNotFound."""
        return self._find(model).defaults | self._settings.of(model).defaults

    def counts(self) -> dict[str, float]:
        return self.pool.counts()

    def warm(self) -> None:
        self.pool.warm()

    async def models(self) -> Sequence[Model]:
        return [self._as_it_stands(local) for local in self._catalogue().values()]

    def standings(self) -> dict[str, int]:
        """How many models stand how."""
        return Counter(self.pool.status(model) for model in self._catalogue())

    async def ready(self) -> str | None:
        return self.pool.trouble() or (None if self._catalogue() else "there are no local models")

    async def aclose(self) -> None:
        await self.pool.aclose()
        if not self._given:
            await self._wire.aclose()

    def _memory_bytes(self) -> int:
        """What a share of the memory is a share of: the GPUs' where models go there, else the machine's."""
        if self._engine.name == "xllamacpp" and self._settings.gpu_layers != 0:
            return devices.memory_bytes() or machine_bytes()
        return machine_bytes()

    def _find(self, model: str) -> Local:
        local = self._catalogue().get(model)
        if local is None:
            raise ModelNotFound(f"The model '{model[:200]}' is not on this machine.")
        return local

    def _check(self, dialect: Dialect, local: Local) -> None:
        made, wanted = local.model.modality, _MADE.get(dialect, "text")
        if made != wanted and wanted not in local.model.capabilities:
            raise InvalidRequest(f"Model '{local.name}' makes {_WORDS[made]}, not {_WORDS[wanted]}.", param="model")

    def _as_it_stands(self, local: Local) -> Model:
        return replace(self._settings.bounded(local).model, status=self.pool.status(local.name))

    async def _build(self, local: Local, planned: Plan) -> Worker:
        engine = engine_of(local, self._engine)
        await made(local)
        await inspect(local, planned.spec, engine)
        return Worker(
            planned.spec,
            engine,
            self._healthy,
            need_bytes=planned.need_bytes,
            stall_s=self._settings.stall_s,
        )

    async def _healthy(self, url: str, key: str, within_s: float) -> bool:
        try:
            await self._wire.get(URL(url), headers(key), within_s)
        except GatewayError:
            return False
        return True


def connect(name: str, settings: Settings, ports: Ports) -> LocalBackend:
    """Raises ValueError that names the field and the cure.  Starts nothing."""
    return LocalBackend(name, settings, ports, choose(settings.engine, settings.llama_server))
