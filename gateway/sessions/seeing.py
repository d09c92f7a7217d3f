"""The pictures of a session: which there are, and which of them a model is shown again."""

from collections.abc import Iterable, Iterator, Sequence

from compat import nativeturn
from compat.openai.responses_item import Item
from gateway.db.responses import Turn
from gateway.routing.router import Plan

SHOWN_MAX = 16
"""Pictures of what came before that a model is shown again."""


def pictures(items: Iterable[Item]) -> list[str]:
    """The artifacts that are pictures in these items, oldest first."""
    found: list[str] = []
    for item in items:
        given = (nativeturn.artifact_id(place) for place in nativeturn.places_of([item]))
        found += [id_ for id_ in given if id_ is not None]
        found += nativeturn.made_ids([item], "image")
    return found


def newest_first(turns: Sequence[Turn]) -> Iterator[str]:
    """The pictures that were made or given, the last one first."""
    for turn in reversed(turns):
        yield from reversed(pictures([*turn.given, *turn.output]))


def seen_of(turns: Sequence[Turn], plan: Plan, new: Sequence[Item] = ()) -> frozenset[str]:
    """The pictures that the plan's models are shown again: all, none, or, of models nobody has described, those that
    a text model was given before.

    new: what is given besides, to a text model.
    """
    known = [route.capabilities for route in plan.routes]
    if any(able and "vision" not in able for able in known):
        return frozenset()
    wise = all(known)
    found = [
        id_
        for turn in turns
        if wise or turn.body.get("modality", "text") == "text"
        for id_ in pictures([*turn.given, *turn.output] if wise else turn.given)
    ]
    found += pictures(new)
    return frozenset(list(dict.fromkeys(reversed(found)))[:SHOWN_MAX])
