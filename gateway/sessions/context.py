"""How much of a conversation its model is told: what is left out when that is too long.

Whole turns are left out, the oldest first; never the system prompt, the newest message, or a tool's result without
its call.  How long something is can only be guessed here: where the guess was wrong, the model refuses, and more is
left out.  Pure decisions.
"""

from collections.abc import Callable, Sequence

import msgspec

from compat.native import LeftOut
from compat.nativeturn import places_of, shown
from compat.openai.responses_item import Item
from gateway.db.responses import Turn
from gateway.keeping import ContextPolicy
from gateway.limits.estimate import ANSWER_TOKENS, BYTES_PER_TOKEN, PICTURE_TOKENS
from gateway.routing.router import Route
from gateway.sessions.answered import settled
from gateway.sessions.said import said
from gateway.sessions.session import Summary

ROUNDS = 6
"""How often a request is shortened that its model still refuses."""
SHARES = (0.75, 0.5, 0.35, 0.2, 0.1, 0.0)
"""Of what came before, how much is left after each round."""
SUMMED_SHARE = 0.5
"""Of the window, what is left of turns beside a summary: so it does not have to be written again with every turn."""
_SUMMED = "Summary of the conversation so far:\n"


class Line:
    """What came before a request, and how much of it is left out by now."""

    def __init__(
        self,
        turns: Sequence[Turn],
        new: Sequence[Item],
        policy: ContextPolicy,
        summary: Summary | None,
        sees: Callable[[str], bool],
    ) -> None:
        """sees: whether the model is shown the picture of an artifact."""
        self.policy = policy
        self._units = units(turns, new)
        self._sees = sees
        self._sizes: dict[int, int] = {}
        """Of the units that were counted; those that are left out need not be."""
        self._new = tokens(new, sees)
        self.out = 0
        """How many units are left out."""
        self.summary: Summary | None = None
        """What stands for the first turns that are left out."""
        ends = [unit[-1].id for unit in self._units[:-1]]
        if policy == "summarize" and summary is not None and summary.until in ends:
            self.summary, self.out = summary, ends.index(summary.until) + 1
        self._most = len(self._units) - 1
        self._rounds = 0

    @property
    def kept(self) -> list[Item]:
        """The items of what is left."""
        return [item for unit in self._units[self.out :] for turn in unit for item in (*turn.given, *turn.output)]

    @property
    def dropped(self) -> list[Turn]:
        return [turn for unit in self._units[: self.out] for turn in unit]

    @property
    def unsummed(self) -> list[Turn]:
        """What is left out, and in no summary."""
        dropped = self.dropped
        if self.summary is None:
            return dropped
        ids = [turn.id for turn in dropped]
        return dropped[ids.index(self.summary.until) + 1 :]

    def size(self) -> int:
        """Tokens of all that is left, and of what is new; a guess."""
        return sum(map(self._size, range(self.out, len(self._units)))) + self._new + self._summed()

    def fit(self, room: int | None, system: int) -> bool:
        """Leave out what does not fit; whether anything more is.

        room: tokens that the model has for what it is told; None: unknown.  system: of these, the system prompt's.
        """
        if room is None or self.policy == "error":
            return False
        before = self.out
        beside = self._new + system + self._summed()
        if (out := self._fitting(room - beside)) == before:
            return False
        self.out = out if self.policy != "summarize" else self._fitting(int(room * SUMMED_SHARE) - beside)
        return True

    def laid(self, new: Sequence[Item], system: str, sees: Callable[[str], bool]) -> list[Item]:
        """What the model is told: the system prompt, what is left of what came before, and what is new."""
        if self.summary is not None and not self.unsummed:
            system = f"{system}\n\n{_SUMMED}{self.summary.text}".strip()
        told = shown(settled([*self.kept, *new]), sees)
        first = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": system}]}
        return [first, *told] if system else told

    def cure(self, system: int, room: int | None) -> str:
        """What can be done where the model refuses what is left.

        system, room: as in `fit`.
        """
        if room is not None and system > room:
            return "The session's system prompt alone is longer: shorten its 'system', or name another model."
        if self.policy == "error" and self.kept:
            return (
                "The session's context policy is 'error': set its 'context' to 'drop_oldest' or 'summarize', reset "
                "or branch it, or name a model with a longer context."
            )
        what = "Shorten the session's 'system', its system prompt" if system > self._new else "Send a shorter message"
        return f"{what}, or name a model with a longer context."

    def shorten(self) -> bool:
        """Leave out more, since the model refused what was left; whether there was any more, and another round."""
        if self.policy == "error" or self._rounds >= ROUNDS or self.out >= self._most:
            return False
        # Beside a summary more is left out at first, as `fit` does.
        step = self._rounds + (self.policy == "summarize")
        left = sum(map(self._size, range(self.out, self._most)))
        most = left * SHARES[min(step, len(SHARES) - 1)]
        self._rounds += 1
        while True:
            left -= self._size(self.out)
            self.out += 1
            if self.out >= self._most or left <= most:
                return True

    def told(self, unseen: Sequence[str]) -> LeftOut | None:
        """What the answer says of it; None where nothing was left out.

        unseen: pictures that the model was not shown.
        """
        messages = [one.id for turn in self.dropped for one in said(turn)]
        if not messages and not unseen:
            return None
        return LeftOut(
            policy=self.policy,
            dropped_messages=len(messages),
            dropped=messages,
            summarized=bool(messages) and self.summary is not None and not self.unsummed,
            artifacts=list(unseen),
        )

    def _size(self, n: int) -> int:
        """Tokens of a unit, counted once."""
        if (size := self._sizes.get(n)) is None:
            size = sum(tokens([*turn.given, *turn.output], self._sees) for turn in self._units[n])
            self._sizes[n] = size
        return size

    def _summed(self) -> int:
        return 0 if self.summary is None else len(self.summary.text.encode()) // BYTES_PER_TOKEN

    def _fitting(self, room: int) -> int:
        """How many units are left out so that the others fit; counts from the newest, as far as there is room."""
        out = self._most
        room -= self._size(out)
        while out > self.out and (room := room - self._size(out - 1)) >= 0:
            out -= 1
        return out


def units(turns: Sequence[Turn], new: Sequence[Item]) -> list[list[Turn]]:
    """Turns that are left out together or not at all, oldest first; the last is never, and may be empty.

    new: what comes after them.
    """
    found: list[list[Turn]] = []
    for turn in turns:
        if found and _answers(turn.given):
            found[-1].append(turn)
        else:
            found.append([turn])
    return found if found and _answers(new) else [*found, []]


def room(routes: Sequence[Route], max_tokens: int | None) -> int | None:
    """The tokens that a request may have, as far as that is known of all its routes: the longest of them counts."""
    windows = [route.context_length for route in routes]
    if not windows or any(window is None for window in windows):
        return None
    longest = max(window for window in windows if window is not None)
    return max(1, longest - min(max_tokens or ANSWER_TOKENS, longest // 2))


def tokens(items: Sequence[Item], sees: Callable[[str], bool]) -> int:
    """How long items are, as a model is told of them; a guess."""
    told = shown(items, sees)
    return len(msgspec.json.encode(told)) // BYTES_PER_TOKEN + PICTURE_TOKENS * sum(1 for _ in places_of(told))


def _answers(items: Sequence[Item]) -> bool:
    """Whether it begins with what a tool gave."""
    return any(item["type"].endswith("_output") for item in items)
