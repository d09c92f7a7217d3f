"""Which model for what, from what is known of the models there are now: no opinion, only comparisons.

Nobody is asked for this: providers that have not been asked what they have contribute nothing, and say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from backends.base import IN_MEMORY, Loads
from compat.canonical.model import Modality, Model
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.schema.bodies import Json
from gateway.schema.facts import standings

_MAKES: dict[Modality, str] = {
    "text": "text",
    "embedding": "embeddings",
    "rerank": "rankings",
    "image": "pictures",
    "3d": "meshes",
}
_PRICES = {"local": "runs on this machine", "free": "its provider asks nothing for it", "paid": "paid by use"}
"""The classes of price in words, the cheapest first."""
_TASKS = {"tools": "calling tools", "vision": "looking at pictures"}
"""By capability."""


class _One(Struct, frozen=True):
    """A model that may be chosen."""

    id: str
    model: Model
    price: str | None
    status: str | None
    """Of one on this machine, how it stands."""
    fits: bool | None
    """In the memory that models may take; None for those that run elsewhere, and where nobody knows."""
    speed_s: float
    """To the first token, as last measured; 0: nobody knows."""
    told: bool
    """What it can do is known, not guessed."""

    @property
    def loaded(self) -> bool:
        return self.status in IN_MEMORY

    @property
    def size(self) -> int:
        """In parameters; 0: nobody knows."""
        return self.model.parameters or 0

    @property
    def reads(self) -> int:
        """In tokens; 0: nobody knows."""
        return self.model.context_length or 0

    @property
    def cost(self) -> int:
        """The place of its price among the classes, from the cheapest; those of no known price come last."""
        return [*_PRICES].index(self.price) if self.price in _PRICES else len(_PRICES)


def guidance(house: House, estate: Estate, grant: Grant, modality: Modality | None = None) -> list[Json]:
    """For each task, the model that is best at one thing, and why; null where there is none."""
    # Of two that are alike, the one whose name comes first: the answer is the same each time.
    ones = sorted(_known(house, estate, grant, modality), key=lambda one: one.id)
    out: list[Json] = []
    for made in _MAKES if modality is None else (modality,):
        fit = [one for one in ones if one.model.modality == made and one.fits is not False]
        out.append(_best(made, "cheapest", fit, lambda one: (-one.cost, one.loaded), _why_cheap))
        for criterion, (counts, rank, why) in _CRITERIA.items():
            if some := [one for one in fit if counts(one)]:
                out.append(_best(made, criterion, some, rank, why))
        if made == "text":
            for ability, words in _TASKS.items():
                able = [one for one in fit if one.told and ability in one.model.capabilities]
                out.append(_best(made, words, able, lambda one: (-one.cost, one.size), _why_cheap))
    return out


def _known(house: House, estate: Estate, grant: Grant, modality: Modality | None) -> Iterable[_One]:
    book = estate.registry.book
    routed = {to for entry in estate.config.models.values() for to in entry.leads_to()}
    now = house.book.now()
    rooms: dict[str, float] = {}
    stand: dict[str, Mapping[str, tuple[str, int | None]]] = {}
    for model in [*book.local, *(one for listed in book.listed.values() for one in listed)]:
        if modality not in (None, model.modality) or model.backend not in estate.backends:
            continue
        if not grant.may_use(model.backend):
            continue
        id_ = model.id
        # Whoever may ask for a bare name may ask for the model that it means.
        if not grant.may_ask(id_) and not (grant.may_ask(model.name) and estate.router.means(id_, model.modality)):
            continue
        backend = estate.backends[model.backend]
        here = estate.registry.is_closed(model.backend)
        if here and model.backend not in rooms:
            rooms[model.backend] = backend.counts()["memory_max_bytes"] if isinstance(backend, Loads) else 0.0
            stand[model.backend] = standings(backend)
        stands = stand[model.backend].get(model.name) if here else None
        need = (stands[1] if stands is not None else None) or model.memory_bytes or model.size_bytes
        yield _One(
            id=id_,
            model=model,
            price=estate.router.price(model.backend),
            status=None if not here else "unloaded" if stands is None else stands[0],
            fits=need <= rooms[model.backend] if here and need is not None else None,
            speed_s=house.book.of(id_).speed(now) if here or id_ in routed else 0.0,
            told=here or estate.registry.vouched(model.backend, model.name) is not None,
        )


def _best(
    made: Modality, criterion: str, ones: Sequence[_One], rank: Callable[[_One], Any], why: Callable[[_One], str]
) -> Json:
    out: Json = {"for": f"{_MAKES[made]}, {criterion}", "modality": made, "criterion": criterion}
    if not ones:
        return out | {
            "model": None,
            "why": "No model that is known here does this; "
            f"GET /v1/models/search?modality={made} finds some to download.",
        }
    best = max(ones, key=rank)
    return out | {"model": best.id, "why": why(best)}


def _why_cheap(one: _One) -> str:
    words = [_PRICES.get(one.price or "", "its price class is not known")]
    if one.loaded:
        words.append("in memory already")
    elif one.fits:
        words.append("fits into the memory that models may take")
    return ", ".join(words)


_CRITERIA: dict[str, tuple[Callable[[_One], object], Callable[[_One], Any], Callable[[_One], str]]] = {
    "ready now": (
        lambda one: one.loaded,
        lambda one: one.size,
        lambda one: f"in memory already ({one.status})",
    ),
    "fastest to begin": (
        lambda one: one.speed_s > 0,
        lambda one: -one.speed_s,
        lambda one: f"its first token came after {one.speed_s:.2g} s, as last measured",
    ),
    "longest context": (
        lambda one: one.reads,
        lambda one: (one.reads, -one.cost),
        lambda one: f"reads {one.reads} tokens",
    ),
    "largest": (
        lambda one: one.size,
        lambda one: (one.size, -one.cost),
        lambda one: f"has {one.size} parameters, and {_why_cheap(one)}",
    ),
}
"""Who is compared, what the best of them has most of, and what is said of it."""
