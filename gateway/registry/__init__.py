"""What models there are: local ones, and what each provider lists (asked seldom, remembered)."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from backends.base import Backend
from backends.ports import Local
from compat.canonical.error import GatewayError
from compat.canonical.model import Modality, Model
from gateway.telemetry.logging import logger

FRESH_S = 300.0
"""How long a provider's list is good for."""
FAILED_S = 30.0
"""How long a provider that could not be asked is left alone."""


class Registry:
    def __init__(self, backends: Mapping[str, Backend], local: Mapping[str, Mapping[str, Local]]) -> None:
        self._backends = backends
        self._local = local
        """Per local backend, its models by name."""
        self._lists: dict[str, Sequence[Model]] = {}
        self._due: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.edition = 0
        """Counts the times when more became known."""

    def is_closed(self, backend: str) -> bool:
        """Whether all of a backend's models are known: only local ones are."""
        return backend in self._local

    def has_local(self, backend: str, name: str) -> bool:
        return name in self._local[backend]

    def known(self, backend: str, name: str) -> Model | None:
        """What is known of a backend's model, without asking anybody."""
        if backend in self._local:
            found = self._local[backend].get(name)
            return found.model if found else None
        return next((model for model in self._lists.get(backend, ()) if model.name == name), None)

    def count(self, backend: str) -> int | None:
        """How many models a backend has, without asking anybody; None: nobody has asked it."""
        known = self._local.get(backend) if self.is_closed(backend) else self._lists.get(backend)
        return None if known is None else len(known)

    def local(self) -> list[Model]:
        return [found.model for catalogue in self._local.values() for found in catalogue.values()]

    async def all(self) -> list[Model]:
        """Every model; a provider that cannot be asked now contributes what it last said."""
        await asyncio.gather(*(self._refresh(name) for name in self._backends if not self.is_closed(name)))
        listed = [model for name in self._backends for model in self._lists.get(name, ())]
        return self.local() + listed

    async def find(self, name: str, modality: Modality = "text") -> Model | None:
        """The model of this bare name, local ones first, and of those who list it one that makes this."""
        found = named(self.local(), name, modality)
        return found or named(await self.all(), name, modality)

    async def _refresh(self, name: str) -> None:
        if time.monotonic() < self._due.get(name, 0.0):
            return
        task = self._asking.get(name)
        if task is None:
            # One question at a time, which outlives the client that asked first.
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        await asyncio.shield(task)

    async def _ask(self, name: str) -> None:
        try:
            listed = await self._backends[name].models()
            if listed != self._lists.get(name):
                self._lists[name] = listed
                self.edition += 1
            self._due[name] = time.monotonic() + FRESH_S
        except GatewayError as e:
            self._due[name] = time.monotonic() + FAILED_S
            logger().warning("models_unlisted", backend=name, code=e.code, reason=e.message)
        except Exception:
            # A defect in one backend is no reason to withhold the others' models.
            self._due[name] = time.monotonic() + FAILED_S
            logger().exception("models_unlisted", backend=name)


def named(models: Sequence[Model], name: str, modality: Modality) -> Model | None:
    """The first of these that has the name and makes what is wanted; else the first that has the name."""
    found = [model for model in models if model.name == name]
    # A backend that asks another's model for something lists it as well, and most lists do not say what models make.
    return next((model for model in found if model.modality == modality), found[0] if found else None)
