"""Answers that spell calls as JSON (`compat.canonical.emulated`), read while they are generated.

What is a call comes out as one, piece by piece, its arguments exactly as the model wrote them; what is a reply
comes out as text.  Invariant: however the JSON is cut into pieces, in an escape or between two surrogates, the
pieces that come out join to the same.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from compat.canonical.emulated import Spelling
from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Finished, Started, TextDelta, ToolDelta

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_HIGH, _LOW, _LAST = 0xD800, 0xDC00, 0xDFFF
_LONE = "\ufffd"
"""Stands for half a surrogate pair, which no text can hold."""


async def spelled(events: AsyncGenerator[Event, None], spelling: Spelling) -> AsyncGenerator[Event, None]:
    """The events of an answer that is spelled so, as those of an answer by a model that knows tools."""
    readers: dict[int, Reader] = {}
    prefix = ""

    def reader(choice: int) -> Reader:
        if choice not in readers:
            readers[choice] = Reader(spelling, f"call_{prefix}_" + (f"{choice}_" if choice else ""), choice)
        return readers[choice]

    async with aclosing(events):
        async for event in events:
            match event:
                case Started(id=id_):
                    prefix = id_.removeprefix("chatcmpl-").replace("-", "")[:24]
                    yield event
                case TextDelta(text=text, choice=n):
                    for piece in reader(n).feed(text):
                        yield piece
                case Finished(choice=n):
                    yield reader(n).ending(event)
                case _:
                    yield event


class Reader:
    """Reads one choice."""

    def __init__(self, spelling: Spelling, prefix: str, choice: int = 0) -> None:
        self._raw_reply = spelling.reply == "json"
        self._prefix = prefix
        self._choice = choice
        self._out: list[TextDelta | ToolDelta] = []
        self._calls = 0
        self._depth = 0
        """Open objects and arrays, those inside arguments and replies not counted."""
        self._whole = False
        self._key = ""
        self._valued = False
        """A colon has been read, and not yet the value behind it."""
        self._read: Callable[[str], None] = self._between
        self._run: list[str] = []
        """Characters that wait to be handed out or to become a name."""
        self._escape = ""
        """Of an escape, what has come of it."""
        self._high = 0
        """The first half of a surrogate pair."""
        self._inner = 0
        """Open objects and arrays inside a value that is passed on as it is."""
        self._quoted = False

    def feed(self, text: str) -> list[TextDelta | ToolDelta]:
        """Take a piece of the JSON and return what it adds to the answer."""
        self._out = []
        for character in text:
            self._read(character)
        self._hand_out()
        return self._out

    def ending(self, finished: Finished) -> Finished:
        """How the answer ended, given how its JSON did.  Raises BadResponse where it broke off for no reason."""
        if not self._whole:
            if finished.reason == "stop":
                raise BadResponse("The model's answer ended before it was complete.")
            return finished
        # That the last token also was the last that was allowed takes nothing from what is whole.
        reason = finished.reason if finished.reason == "content_filter" else "tool_calls" if self._calls else "stop"
        return Finished(reason=reason, choice=finished.choice)

    # --- One character, by where it stands --------------------------------------------------------

    def _between(self, character: str) -> None:
        if self._whole or character.isspace():
            return
        if self._valued:
            self._valued = False
            self._begin(character)
        elif character == ":":
            self._valued = True
        elif character == '"':
            self._read = self._in_key
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._whole = self._depth == 0

    def _begin(self, character: str) -> None:
        """The first character of a value."""
        if self._key == "arguments" or (self._key == "reply" and self._raw_reply):
            self._read = self._in_value
            self._in_value(character)
        elif character == '"':
            self._read = self._in_name if self._key == "name" else self._in_words
        elif character in "{[":
            self._depth += 1

    def _in_key(self, character: str) -> None:
        if character == '"':
            self._key = self._taken()
            self._read = self._between
        else:
            self._run.append(character)

    def _in_name(self, character: str) -> None:
        if character == '"' and not self._escape:
            name = msgspec.json.decode(f'"{self._taken()}"', type=str)
            self._read = self._between
            call = ToolDelta(call=self._calls, id=f"{self._prefix}{self._calls}", name=name, choice=self._choice)
            self._out.append(call)
            self._calls += 1
        else:
            self._run.append(character)
            self._escape = "\\" if character == "\\" and not self._escape else ""

    def _in_value(self, character: str) -> None:
        """Inside of what is passed on as it is."""
        if self._quoted:
            self._run.append(character)
            if self._escape:
                self._escape = ""
            elif character == "\\":
                self._escape = character
            elif character == '"':
                self._quoted = False
                self._close_at_top()
        elif self._inner == 0 and (character in ",}]" or character.isspace()):
            self._close()  # a number or a word ends only with what follows it
            self._between(character)
        else:
            self._run.append(character)
            if character == '"':
                self._quoted = True
            elif character in "{[":
                self._inner += 1
            elif character in "}]":
                self._inner -= 1
                self._close_at_top()

    def _in_words(self, character: str) -> None:
        """Inside of a reply, which is handed out decoded."""
        if self._escape:
            self._escape += character
            if self._escape[1] != "u":
                self._say(_ESCAPES.get(character, character))
            elif len(self._escape) == 6:
                self._say_unit(int(self._escape[2:], 16))
            else:
                return
            self._escape = ""
        elif character == "\\":
            self._escape = character
        elif character == '"':
            self._say("")
            self._close()
        else:
            self._say(character)

    # --- What comes out ---------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self._high:
            self._run.append(_LONE)
            self._high = 0
        self._run.append(text)

    def _say_unit(self, unit: int) -> None:
        if self._high and _LOW <= unit <= _LAST:
            self._run.append(chr(0x10000 + ((self._high - _HIGH) << 10) + (unit - _LOW)))
            self._high = 0
        elif _HIGH <= unit < _LOW:
            self._say("")
            self._high = unit
        else:
            self._say(_LONE if _LOW <= unit <= _LAST else chr(unit))

    def _close_at_top(self) -> None:
        if self._inner == 0:
            self._close()

    def _close(self) -> None:
        self._hand_out()
        self._read = self._between

    def _hand_out(self) -> None:
        """Hand out what has come of a value that is being passed on."""
        if self._read == self._in_words:
            if text := self._taken():
                self._out.append(TextDelta(text=text, choice=self._choice))
        elif self._read == self._in_value and (text := self._taken()):
            if self._key == "arguments":
                self._out.append(ToolDelta(call=self._calls - 1, arguments=text, choice=self._choice))
            else:
                self._out.append(TextDelta(text=text, choice=self._choice))

    def _taken(self) -> str:
        text = "".join(self._run)
        self._run.clear()
        return text
