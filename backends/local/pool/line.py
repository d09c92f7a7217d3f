"""Those who wait in a pool, and in what order they are served.

Among models it is the order of arrival.  Among the waiters of one model callers take turns, so that one who
sends a hundred requests is not in the way of another who sends one: a request's turn comes one after the one
that was served last when it arrived, or after its caller's own last one that waits.  How many waiters of a
model stand before those of another does not change by that, only who they are.

Invariant: passive and bounded.  The pool's owner task alone changes it.
"""

from collections import Counter
from collections.abc import Iterator

from backends.local.pool.seat import Ticket


class Line:
    """Tickets that wait for a slot, or for a model to load.

    most: how many may wait for one model.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._arrived: dict[Ticket, None] = {}
        self._of: dict[str, list[Ticket]] = {}
        """By model, in order of service."""
        self._turn: dict[str, int] = {}
        """By model, of the one served last."""

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._arrived

    def __iter__(self) -> Iterator[Ticket]:
        """All of them, in the order in which they are considered."""
        heads = {model: iter(tickets) for model, tickets in self._of.items()}
        return iter([next(heads[ticket.local.name]) for ticket in self._arrived])

    def __bool__(self) -> bool:
        return bool(self._arrived)

    def models(self) -> list[str]:
        """Those that somebody waits for."""
        return list(self._of)

    def of(self, model: str) -> list[Ticket]:
        """Those who wait for a model, in order of service."""
        return list(self._of.get(model, ()))

    def resize(self, most: int) -> None:
        """Those who wait already stay."""
        self._most = most

    def enter(self, ticket: Ticket) -> Ticket | None:
        """Take a ticket in; returns the one that has no place: none, it, or the last of whoever has most waiting."""
        model = ticket.local.name
        tickets = self._of.setdefault(model, [])
        out = None
        if len(tickets) >= self._most:
            shares = Counter(waiting.caller for waiting in tickets)
            greedy, share = shares.most_common(1)[0]
            if share <= shares[ticket.caller] + 1:
                return ticket
            out = next(waiting for waiting in reversed(tickets) if waiting.caller == greedy)
            self.leave(out)
            tickets = self._of.setdefault(model, [])
        last = max((waiting.turn for waiting in tickets if waiting.caller == ticket.caller), default=0)
        ticket.turn = max(self._turn.get(model, 0), last) + 1
        self._arrived[ticket] = None
        tickets.append(ticket)
        tickets.sort(key=lambda waiting: waiting.turn)
        return out

    def leave(self, ticket: Ticket) -> None:
        """Let a ticket go unserved; its caller's later ones move up by a turn."""
        del self._arrived[ticket]
        model = ticket.local.name
        tickets = self._of[model]
        tickets.remove(ticket)
        for waiting in tickets:
            if waiting.caller == ticket.caller and waiting.turn > ticket.turn:
                waiting.turn -= 1
        tickets.sort(key=lambda waiting: waiting.turn)
        self._forget(model)

    def serve(self, ticket: Ticket) -> None:
        """Let a ticket go because it is served."""
        del self._arrived[ticket]
        model = ticket.local.name
        self._of[model].remove(ticket)
        if ticket.slot:
            self._turn[model] = max(self._turn.get(model, 0), ticket.turn)
        self._forget(model)

    def _forget(self, model: str) -> None:
        if not self._of[model]:
            del self._of[model]
