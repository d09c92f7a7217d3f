"""What models there are: local ones, and what each provider lists (asked seldom, remembered)."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from backends.base import Backend
from backends.ports import Local
from compat.canonical.error import GatewayError
from compat.canonical.model import Modality, Model
from gateway.registry.absence import refusal
from gateway.registry.book import Book
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry
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
        self._entries: Entries | None = None
        self._lists: dict[str, Sequence[Model]] = {}
        self._due: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._learned = 0
        """Counts the times when a provider's list became another."""
        self._book: Book | None = None
        self._as_of: int | None = None

    def lend(self, entries: Entries, before: "Registry | None" = None) -> None:
        """What is registered besides, as it changes.

        before: the registry in whose place this one comes, of which it takes over what is the same.
        """
        self._entries = entries
        if before is not None and before._book is not None:
            self._book, self._as_of = before._book, None

    @property
    def edition(self) -> int:
        """A higher one whenever something else is known."""
        return self._learned if self._entries is None else self._learned + self._entries.edition

    @property
    def book(self) -> Book:
        """What is known now, without asking anybody."""
        as_of = self.edition
        if self._book is None or self._as_of != as_of:
            self._book = self._draft()()
            self._as_of = as_of
        return self._book

    async def prepare(self) -> None:
        """Work out in a thread what is known, which is long of thousands: so that nobody has to wait for it."""
        as_of = self.edition
        if self._book is None or self._as_of != as_of:
            book = await asyncio.to_thread(self._draft())
            if as_of == self.edition:
                self._book, self._as_of = book, as_of

    def _draft(self) -> Callable[[], Book]:
        entries, coming = {}, frozenset[str]()
        if self._entries is not None:
            entries, coming = dict(self._entries.by_id), self._entries.coming()
        lists = {name: self._lists[name] for name in self._backends if name in self._lists}
        return partial(Book, self._backends, self._local, lists, entries, self._book, coming)

    def is_closed(self, backend: str) -> bool:
        """Whether all of a backend's models are known: only local ones are."""
        return backend in self._local

    def has_local(self, backend: str, name: str) -> bool:
        return name in self._local[backend]

    def is_listed(self, id_: str) -> bool:
        """Whether a provider lists a model, or may do so: removed ones too."""
        backend = id_.partition("/")[0]
        if self.is_closed(backend):
            return False
        return backend not in self._lists or any(model.id == id_ for model in self._lists[backend])

    async def learn_of(self, name: str) -> None:
        """Ask those who may list a model of this name, BACKEND/NAME or bare, unless it is known anyway."""
        backend = name.partition("/")[0]
        if backend in self._backends:
            if not self.is_closed(backend):
                await self._refresh(backend)
        elif self.here(name) is None and self.absent(name) is None:
            await self.all()

    def is_gone(self, backend: str, name: str) -> bool:
        """Whether nothing can be asked of it: it was removed, or its files are not here."""
        models, hidden = self._local.get(backend), self.book.hidden
        return (models is not None and name not in models) or (bool(hidden) and f"{backend}/{name}" in hidden)

    def known(self, backend: str, name: str) -> Model | None:
        """What is known of a backend's model, without asking anybody."""
        return self.book.known.get(f"{backend}/{name}")

    def vouched(self, backend: str, name: str) -> Entry | None:
        """What somebody has registered of a provider's model."""
        return self.book.vouched.get(f"{backend}/{name}")

    def meant(self, backend: str, name: str) -> str:
        """A backend's own name for a model, of which this may be an alias."""
        book = self.book
        alias = book.aliases.get(name)
        return name if alias is None or alias.backend != backend or f"{backend}/{name}" in book.known else alias.name

    def here(self, name: str, modality: Modality = "text") -> Model | None:
        """The local model of a bare name, else any model that has it for an alias; without asking anybody."""
        book = self.book
        return named(book.named.get(name, ()), name, modality) or book.aliases.get(name)

    def is_meant(self, backend: str, name: str, modality: Modality = "text") -> bool:
        """Whether the bare name leads to this backend's model, as far as is known without asking anybody."""
        book = self.book
        listed = [model for one in self._backends for model in book.listed.get(one, ())]
        found = self.here(name, modality) or named(listed, name, modality)
        return found is not None and (found.backend, found.name) == (backend, name)

    def absent(self, name: str) -> Entry | None:
        """The local model of this bare name, alias or BACKEND/NAME that is registered and not here."""
        book = self.book
        if not book.absent:
            return None
        backend, _, rest = name.partition("/")
        if (entry := book.absent.get(name) or book.absent_names.get(name)) is not None:
            return entry
        entry = book.absent_names.get(rest) if backend in self._local else None
        return entry if entry is not None and entry.backend == backend else None

    def refusal(self, entry: Entry) -> GatewayError:
        """What is said to who asks for a model that is not here."""
        return refusal(entry, None if self._entries is None else self._entries.progress(entry.id))

    def count(self, backend: str) -> int | None:
        """How many models a backend has, without asking anybody; None: nobody has asked it."""
        if self.is_closed(backend):
            return len(self._local[backend])
        return len(self.book.listed[backend]) if backend in self._lists else None

    def local(self) -> list[Model]:
        return self.book.local

    async def all(self) -> list[Model]:
        """Every model that can be asked now; a provider that cannot be asked contributes what it last said."""
        await asyncio.gather(*(self._refresh(name) for name in self._backends if not self.is_closed(name)))
        book = self.book
        return book.local + [model for name in self._backends for model in book.listed.get(name, ())]

    async def find(self, name: str, modality: Modality = "text") -> Model | None:
        """The model of this bare name, local ones first, and of those who list it one that makes this."""
        return self.here(name, modality) or named(await self.all(), name, modality)

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
                self._learned += 1
                await self.prepare()
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
