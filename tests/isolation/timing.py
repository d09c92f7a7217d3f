"""How long the gateway takes to say that something is not there: of what is another's, and of what nobody has."""

import json
from statistics import median, quantiles
from time import perf_counter

from msgspec import Struct

from tests.gateway.auth.matrix import Door
from tests.isolation.swaps import GOOD, in_bodies, names, swapped
from tests.isolation.tenants import RIVAL, Tenants, absent

WARM = 5
"""Pairs that are not counted."""


class Compared(Struct, frozen=True):
    """Milliseconds."""

    pairs: int
    foreign: float
    """The median."""
    absent: float
    difference: float
    """The median of the differences within pairs."""
    spread: float
    """Between the quartiles of what is absent."""
    slower: float
    """In how many of the pairs the foreign one took longer: half of them, if nothing tells."""


def compared(both: Tenants, pairs: int, only: str | None = None) -> dict[str, Compared]:
    """By route, foreign against absent in turns, each first every other time."""
    found = {}
    for name, method, foreign, nobodys, body in _asked(both):
        if only in (None, name):
            found[name] = _compared(both, pairs, method, foreign, nobodys, body)
    return found


def alike(one: Compared) -> bool:
    """Whether the difference drowns in the spread, or is less than anybody could measure across a network."""
    return abs(one.difference) <= max(one.spread, 0.3)


def _compared(
    both: Tenants, pairs: int, method: str, foreign: str, nobodys: str, body: tuple[bytes | None, bytes | None]
) -> Compared:
    took: tuple[list[float], list[float]] = [], []
    sides = (foreign, body[0]), (nobodys, body[1])
    for n in range(pairs + WARM):
        pair = [0.0, 0.0]
        for side in (0, 1) if n % 2 else (1, 0):
            path, content = sides[side]
            began = perf_counter()
            answer = both.house.ask(method, path, RIVAL, content)
            pair[side] = (perf_counter() - began) * 1000
            assert answer.status in (400, 404), answer
        if n >= WARM:
            took[0].append(pair[0])
            took[1].append(pair[1])
    differences = [f - a for f, a in zip(*took, strict=True)]
    low, _, high = quantiles(took[1], n=4)
    slower = sum(d > 0 for d in differences) / len(differences)
    return Compared(pairs, median(took[0]), median(took[1]), median(differences), high - low, slower)


def _asked(both: Tenants) -> list[tuple[str, str, str, str, tuple[bytes | None, bytes | None]]]:
    """Name, method, both paths and both bodies."""
    acme, rows = both.acme.first() | {"message_id": both.acme.message_id}, []
    for door in _groups():
        given = GOOD.get((door.method, door.template))
        content = None if given is None else json.dumps(given).encode()
        ids = {name: acme[name] for name in names(door)}
        nobodys = {name: absent(id_) for name, id_ in ids.items()}
        rows.append((str(door), door.method, door.with_ids(ids), door.with_ids(nobodys), (content, content)))
    for kind, method, path, given, _ in in_bodies(both.rival.first()):
        if given is None or path.count("/") > 2:
            continue
        theirs, nobodys_id = acme[kind], absent(acme[kind])
        text = json.dumps(given)
        contents = text.replace("ID", theirs).encode(), text.replace("ID", nobodys_id).encode()
        rows.append((f"{method} {path} {kind}", method, path, path, contents))
    return rows


def _groups() -> list[Door]:
    """One that reads and one that changes, of each kind of id."""
    chosen: dict[tuple[str, bool], Door] = {}
    for door in swapped():
        chosen.setdefault((door.template.partition("{")[0], door.unsafe), door)
    return list(chosen.values())
