"""Which files go when room is wanted, and why: decisions only, the disk is not touched.

Files that several models share stay or go with all of them.  What is protected never goes, whoever asks.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

from msgspec import Struct

Kind = Literal["model", "version", "partial", "orphan", "truncated"]
"""A model as it is served; one of its versions that is not; an unfinished download; a file that nobody has registered;
a model whose files are shorter than they were."""
KINDS: frozenset[Kind] = frozenset(get_args(Kind))
_RANKS: dict[Kind, int] = {"truncated": 0, "partial": 1, "orphan": 2, "version": 3, "model": 4}
"""Who makes room first: what is of no use, then what is of little."""
ORPHAN_S = 3_600.0
"""How long a file may lie there before it is said to be nobody's: it may be about to be registered."""
_DAY_S = 86_400.0


class Thing(Struct, frozen=True, kw_only=True):
    """Files that stay or go together."""

    kind: Kind
    path: str
    """What is shown: the file, or the folder of several, relative to the folder of models."""
    files: tuple[tuple[str, int], ...]
    """Each with its size in bytes; paths as above."""
    used_at: float
    """When it was of use last: used or added; of what nobody has registered, written."""
    last_used_at: float | None = None
    model: str | None = None
    commit: str | None = None
    job: str | None = None
    """The unfinished one that it belongs to."""
    kept: str | None = None
    """Why it is protected; None: it may go."""

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)


class Policy(Struct, frozen=True, kw_only=True):
    limit_bytes: int | None = None
    """What all files in the folder may take together."""
    min_free_bytes: int = 0
    lru: bool = False
    """Models that were not used for longest make room."""
    unused_s: float | None = None
    partial_s: float = 7 * _DAY_S


class Room(Struct, frozen=True, kw_only=True):
    """How full it is."""

    used_bytes: int
    """By all files in the folder."""
    reserved_bytes: int = 0
    """Still to come of what was promised."""
    free_bytes: int
    """On the disk."""

    def lacking(self, policy: Policy, wanted_bytes: int = 0) -> int:
        """How many bytes have to go before so many more may come; 0: they fit."""
        more = self.reserved_bytes + wanted_bytes
        over = 0 if policy.limit_bytes is None else self.used_bytes + more - policy.limit_bytes
        return max(over, policy.min_free_bytes + more - self.free_bytes, 0)


class Removal(Struct, frozen=True, kw_only=True):
    thing: Thing
    reason: str
    size_bytes: int
    """What comes free by it; a file that is shared counts once."""


class Plan(Struct, frozen=True, kw_only=True):
    removals: tuple[Removal, ...] = ()
    """In the order in which they are done."""
    missing_bytes: int = 0
    """What is lacking still when all of it is done."""

    @property
    def freed_bytes(self) -> int:
        return sum(one.size_bytes for one in self.removals)


def make_room(things: Iterable[Thing], room: Room, policy: Policy, wanted_bytes: int, now: float) -> Plan:
    """What goes so that so many bytes may come: no more than that takes, and nothing if it would not do.

    Files that nobody has registered stay: whose they are is for people to say.
    """
    lacking = room.lacking(policy, wanted_bytes)
    if not lacking:
        return Plan()
    if not policy.lru:
        return Plan(missing_bytes=lacking)
    groups = [group for group in _groups(things) if group.kind != "orphan" and _may_make_room(group, policy, now)]
    removals = _oldest(groups, lacking, "not used for longest, and room was wanted")
    return Plan(removals=removals) if removals else Plan(missing_bytes=lacking - sum(one.size for one in groups))


def tidy(
    things: Iterable[Thing],
    room: Room,
    policy: Policy,
    now: float,
    *,
    kinds: Collection[Kind] | None = None,
    aged_only: bool = False,
) -> Plan:
    """What the policy says must go, and what is of no use.

    kinds: only these; a version that is not served goes when it is named here, or by its age.
    aged_only: only what has become too old; a folder that is over its limit stays so.
    """
    wanted = KINDS if kinds is None else frozenset(kinds)
    groups = [group for group in _groups(things) if group.kept is None and group.kind in wanted]
    removals: list[Removal] = []
    left: list[_Group] = []
    for group in sorted(groups, key=_Group.order):
        reason = _useless(group, policy, now, named=kinds is not None and not aged_only, aged_only=aged_only)
        removals += [] if reason is None else group.removals(reason)
        if reason is None and group.kind in ("model", "version"):
            left.append(group)
    freed = sum(one.size_bytes for one in removals)
    missing = 0
    if not aged_only and (lacking := room.lacking(policy) - freed) > 0:
        more = _oldest(left, lacking, "not used for longest, and all together are over the limit") if policy.lru else ()
        removals += more
        missing = 0 if more else lacking
    return Plan(removals=tuple(removals), missing_bytes=missing)


class _Group:
    """Things that share files, directly or by others: what one of them may not lose, none may."""

    def __init__(self, things: Sequence[Thing]) -> None:
        self.things = sorted(things, key=lambda one: (_RANKS[one.kind], one.used_at, one.path))
        self.kind: Kind = self.things[-1].kind
        self.used_at = max(one.used_at for one in things)
        self.kept = next((one.kept for one in things if one.kept is not None), None)
        self.size = sum(dict(pair for one in things for pair in one.files).values())

    def order(self) -> tuple[int, float, str]:
        return _RANKS[self.kind], self.used_at, self.things[0].path

    def removals(self, reason: str) -> list[Removal]:
        counted: set[str] = set()
        made = []
        for thing in self.things:
            size = sum(size for path, size in thing.files if path not in counted)
            counted |= {path for path, _ in thing.files}
            made.append(Removal(thing=thing, reason=reason, size_bytes=size))
        return made


def _groups(things: Iterable[Thing]) -> list[_Group]:
    """Each thing in one group, by the files they have in common."""
    members: dict[int, list[Thing]] = {}
    of: dict[str, int] = {}
    for n, thing in enumerate(things):
        members[n] = [thing]
        for met in {of[path] for path, _ in thing.files if path in of}:
            members[n] += members.pop(met)
        of |= {path: n for one in members[n] for path, _ in one.files}
    return [_Group(group) for group in members.values()]


def _oldest(groups: Iterable[_Group], lacking: int, reason: str) -> tuple[Removal, ...]:
    """As many as it takes, none where all of them would not do."""
    removals: list[Removal] = []
    for group in sorted(groups, key=_Group.order):
        if lacking <= 0:
            break
        if group.size:
            why = reason if group.kind == "model" else _WHY[group.kind]
            removals += group.removals(why)
            lacking -= group.size
    return tuple(removals) if lacking <= 0 else ()


_WHY: dict[Kind, str] = {
    "truncated": "its files are shorter than they were, so it cannot be served",
    "orphan": "no model and no download has it",
    "version": "another version of it is served",
    "partial": "nobody has gone on with this download for long",
}


def _may_make_room(group: _Group, policy: Policy, now: float) -> bool:
    return group.kept is None and (group.kind != "partial" or now - group.used_at >= policy.partial_s)


def _useless(group: _Group, policy: Policy, now: float, *, named: bool, aged_only: bool) -> str | None:
    """Why it goes whether or not there is room; None: it does not."""
    age = now - group.used_at
    if group.kind in ("model", "version"):
        if policy.unused_s is not None and age >= policy.unused_s:
            return f"nobody has used it for {policy.unused_s / _DAY_S:g} days"
        return _WHY["version"] if group.kind == "version" and named else None
    if group.kind == "partial":
        return f"nobody has gone on with it for {policy.partial_s / _DAY_S:g} days" if age >= policy.partial_s else None
    if aged_only or (group.kind == "orphan" and age < ORPHAN_S):
        return None
    return _WHY[group.kind]
