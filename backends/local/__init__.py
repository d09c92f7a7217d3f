"""Models on this machine: child processes that serve them, shared out among requests.

A child is a model server on loopback: llama.cpp's speaks OpenAI's dialect, so a request for text takes the
relay like any provider's; those that make pictures and meshes speak the dialect of `studio`.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace
from yarl import URL

from backends.base import Call, Local, Ports, Price, Relayed, unfit
from backends.local.engine import Engine, choose
from backends.local.planning import text_spec
from backends.local.pool import Pool
from backends.local.seat import headers
from backends.local.settings import Settings
from backends.local.text import Texts
from backends.local.vectors import Vectors
from backends.local.worker import Worker
from backends.relay import Wire
from compat.canonical.error import GatewayError, InvalidRequest, ModelNotFound
from compat.canonical.event import Event
from compat.canonical.model import Model
from compat.canonical.request import Dialect, Envelope, Request, TextRequest

PROBE_TIMEOUT_S = 2.0

__all__ = ["LocalBackend", "Settings", "connect"]


class LocalBackend:
    keeps_deadlines = True
    dialects: frozenset[Dialect] = frozenset({"chat", "completions", "embeddings"})
    price: Price | None = "local"

    def __init__(self, name: str, settings: Settings, ports: Ports, engine: Engine) -> None:
        self.name = name
        # llama.cpp's own server goes on with an assistant's message; the Python one begins a new turn.
        self.prefills = engine.parallel
        self._settings = settings
        self._catalogue = ports.catalogue
        self._engine = engine
        self._wire = Wire(name)
        self.pool = Pool(
            ports.catalogue,
            self._build,
            max_loaded=settings.max_loaded,
            queue_max=settings.queue_max,
            idle_unload_s=settings.idle_unload_s,
        )
        self._texts = Texts(self.pool, self._wire, engine)
        self._vectors = Vectors(self.pool, self._wire)

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        local = self._find(model)
        self._check(envelope.dialect, local)
        if envelope.dialect == "embeddings":
            return await self._vectors.relay(envelope, local, call)
        return await self._texts.relay(envelope, local, call)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, TextRequest):
            raise unfit(self.name, request)
        local = self._find(request.model)
        self._check("chat", local)
        async with aclosing(self._texts.run(request, local, call)) as events:
            async for event in events:
                yield event

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        self._check("chat", self._find(model))
        return await self._texts.count_tokens(envelope, model, call)

    async def models(self) -> Sequence[Model]:
        return [self._as_it_stands(local) for local in self._catalogue().values()]

    def standings(self) -> dict[str, int]:
        """How many models stand how."""
        return Counter(self.pool.status(model) for model in self._catalogue())

    async def ready(self) -> str | None:
        return None if self._catalogue() else "there are no local models"

    async def aclose(self) -> None:
        await self.pool.aclose()
        await self._wire.aclose()

    def _find(self, model: str) -> Local:
        local = self._catalogue().get(model)
        if local is None:
            raise ModelNotFound(f"The model '{model[:200]}' is not on this machine.")
        return local

    def _check(self, dialect: Dialect, local: Local) -> None:
        if (local.model.modality == "embedding") != (dialect == "embeddings"):
            makes = "makes embeddings only" if local.model.modality == "embedding" else "does not make embeddings"
            raise InvalidRequest(f"Model '{local.name}' {makes}.", param="model")

    def _as_it_stands(self, local: Local) -> Model:
        limit = self._settings.context_max
        context = min(local.model.context_length or limit, limit)
        return replace(local.model, status=self.pool.status(local.name), context_length=context)

    async def _build(self, local: Local) -> Worker:
        spec = await text_spec(local, self._settings, self._engine)
        return Worker(spec, self._engine, self._healthy)

    async def _healthy(self, url: str, key: str) -> bool:
        try:
            await self._wire.get(URL(url), headers(key), PROBE_TIMEOUT_S)
        except GatewayError:
            return False
        return True


def connect(name: str, settings: Settings, ports: Ports) -> LocalBackend:
    """Raises ValueError that names the field and the cure.  Starts nothing."""
    return LocalBackend(name, settings, ports, choose(settings.engine, settings.llama_server))
