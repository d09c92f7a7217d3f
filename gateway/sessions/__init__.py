"""Sessions: conversations that are kept, gone on with, branched and exported.

A turn is written once, durably, when it is over, before its client is told so: an acknowledged message is never lost,
and a request that fails before it has shown anything leaves its session as it was.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.db.responses import ResponseRows
    from gateway.db.sessions import SessionRows
    from gateway.house import House


class Sessions:
    def __init__(self, house: "House", rows: "SessionRows", turns: "ResponseRows") -> None:
        self._house = house
        self.rows = rows
        self.turns = turns

    async def watch(self) -> None:
        """Remove, for ever, the sessions whose time is over (`sessions.unused_days`, `closed_days`)."""
