"""Titles of sessions that were given none: the first words of the user."""

import re
from collections.abc import Iterable

from gateway.db.responses import Item
from gateway.sessions.said import texts_of

LENGTH_MAX = 60
"""Characters of a title that is made here."""
_LOOKED_AT = 2000
"""Characters of a message: what comes behind them is no title."""
_SHORT = 4
"""Characters of what is no sentence yet, like `1.` or `Hi!`."""
_fence = re.compile(r"```[^\n]*\n?")
_link = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_tag = re.compile(r"</?[A-Za-z][^<>]*>")
_lead = re.compile(r"^(?:[#>\-*+|=]+|\d{1,3}[.)](?=\s))\s*")
_mark = re.compile(r"[*_~`]{1,3}(?=\S)|(?<=\S)[*_~`]{1,3}")
_word = re.compile(r"(?<=\w)_(?=\w)")
_end = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")


def title_of(items: Iterable[Item]) -> str | None:
    """The first sentence or line that a user says in these items, without markup; None where they say nothing."""
    for item in items:
        if item["type"] == "message" and item.get("role", "user") == "user":
            for text in texts_of(item):
                if (title := first_words(text)) is not None:
                    return title
    return None


def first_words(text: str) -> str | None:
    """The first sentence or line of a text, cut at a word."""
    text = _fence.sub("", text[:_LOOKED_AT])
    for line in text.splitlines():
        if words := _plain(line):
            return _cut(_sentence(words))
    return None


def _plain(line: str) -> str:
    line = _link.sub(r"\1", _tag.sub("", line.strip()))
    while (shorter := _lead.sub("", line, count=1)) != line:
        line = shorter
    # An underscore within a word is part of a name.
    line = _mark.sub("", _word.sub("\ue000", line)).replace("\ue000", "_")
    line = "".join(c if c.isprintable() or c == "\u200d" else " " for c in line)
    words = " ".join(line.split())
    return words if any(c.isalnum() for c in words) else ""


def _sentence(words: str) -> str:
    for end in _end.finditer(words):
        if end.start() >= _SHORT:
            return words[: end.start()]
    return words


def _cut(words: str) -> str:
    if len(words) <= LENGTH_MAX:
        return words
    whole = words[:LENGTH_MAX].rpartition(" ")[0]
    # Where there are no spaces, there are no words to go by.
    return f"{(whole or words[: LENGTH_MAX - 1]).rstrip(' ,;:-')}…"
