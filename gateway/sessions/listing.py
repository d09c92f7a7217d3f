"""The messages of a session, page by page, as they are now: along the line that ends with its head."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gateway.artifacts.artifact import Artifact
from gateway.auth.keycard import moment
from gateway.db.responses import Turn
from gateway.sessions.card import Alternative, Attached, MessageCard, cards, named
from gateway.sessions.session import Session

if TYPE_CHECKING:
    from gateway.db.sessionrow import Stub
    from gateway.house import House

Place = tuple[str, int]
"""A turn's id, and the number of a message in it."""
PIECE = 100
"""Turns that are read in one go, not to hold up the loop."""


def alternatives(shown: "Iterable[Stub]", beside: "Iterable[Stub]") -> dict[str, list[Alternative]]:
    """What else goes on from the same turns, by the ids of those that are shown; the oldest first."""
    after: dict[str | None, list[Stub]] = {}
    for stub in beside:
        after.setdefault(stub.previous_id, []).append(stub)
    found: dict[str, list[Alternative]] = {}
    for stub in shown:
        if others := [one for one in after.get(stub.previous_id, ()) if one.id != stub.id]:
            others.sort(key=lambda one: (one.created_at, one.id))
            found[stub.id] = [Alternative(one.id, moment(one.created_at), one.model or None) for one in others]
    return found


class Listing:
    """Shows the messages of one session.

    base_url: how the client reaches the gateway, for the URLs of artifacts.
    """

    def __init__(self, house: "House", session: Session, base_url: str) -> None:
        self._house = house
        self._session = session
        self._base_url = base_url
        self._rows = house.cabinet.sessions.rows

    async def page(
        self, limit: int, after: Place | None = None, *, newest_first: bool = False
    ) -> tuple[list[MessageCard], Place | None] | None:
        """A page of messages, and the place of its last where there are more behind it; None where `after` is no
        place in it.
        """
        tenant, id_, head = self._session.tenant, self._session.id, self._session.head
        if head is None:
            return None if after is not None else ([], None)
        ids = await self._rows.line(tenant, id_, head)
        ids = ids if newest_first else ids[::-1]
        if after is not None:
            if after[0] not in ids:
                return None
            ids = ids[ids.index(after[0]) :]
        # Every turn has a message, but for those of a provider's keeping; of the first all may have been shown.
        stubs = await self._rows.stubs(tenant, ids[: limit + 2])
        placed: list[tuple[Place, MessageCard]] = []
        for stub, messages in await self._cards(_enough(stubs, limit, after)):
            numbered = [((stub.id, n), message) for n, message in enumerate(messages)]
            placed += numbered[::-1] if newest_first else numbered
        places = [place for place, _ in placed]
        if after in places:
            placed = placed[places.index(after) + 1 :]
        shown = placed[:limit]
        return [message for _, message in shown], shown[-1][0] if len(placed) > limit else None

    async def of(self, turns: Sequence[Turn]) -> list[MessageCard]:
        """The messages of some turns in it, that have no alternatives."""
        known = await self._known(turns)
        return [message for turn in turns for message in cards(turn, [], known)]

    async def all(self) -> list[MessageCard]:
        """All messages, oldest first."""
        tenant, found = self._session.tenant, list[MessageCard]()
        ids = (await self._rows.line(tenant, self._session.id, self._session.head))[::-1]
        for n in range(0, len(ids), PIECE):
            for _, messages in await self._cards(await self._rows.stubs(tenant, ids[n : n + PIECE])):
                found += messages
        return found

    async def _cards(self, stubs: "Sequence[Stub]") -> "list[tuple[Stub, list[MessageCard]]]":
        tenant, id_ = self._session.tenant, self._session.id
        turns = await self._rows.turns(tenant, [stub.id for stub in stubs])
        others = alternatives(stubs, await self._rows.beside(tenant, id_, stubs))
        known = await self._known(list(turns.values()))
        there = [(stub, turn) for stub in stubs if (turn := turns.get(stub.id)) is not None]
        return [(stub, cards(turn, others.get(turn.id, []), known)) for stub, turn in there]

    async def _known(self, turns: Sequence[Turn]) -> dict[str, Attached]:
        names = list(dict.fromkeys(name for turn in turns for name in named(turn)))
        return await attached(self._house, self._session.tenant, names, self._base_url) if names else {}


def _enough(stubs: "Sequence[Stub]", limit: int, after: Place | None) -> "Sequence[Stub]":
    """As many of these turns as a page takes, and one message more."""
    # Of the first turn all may have been shown.
    room = limit + 1 + (stubs[0].messages if after is not None and stubs else 0)
    for n, stub in enumerate(stubs):
        if room <= 0:
            return stubs[:n]
        room -= stub.messages
    return stubs


async def attached(house: "House", tenant: str, ids: Sequence[str], base_url: str) -> dict[str, Attached]:
    """Those of these artifacts that there are, with fresh URLs."""
    artifacts = house.cabinet.artifacts
    return {one.id: _attached(one, artifacts.url(one, base_url)) for one in await artifacts.rows.several(tenant, ids)}


def _attached(artifact: Artifact, signed: tuple[str, float]) -> Attached:
    url, expires_at = signed
    return Attached(
        id=artifact.id,
        kind=artifact.kind,
        mime=artifact.mime,
        bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        name=artifact.name,
        url=url,
        expires_at=moment(expires_at),
    )
