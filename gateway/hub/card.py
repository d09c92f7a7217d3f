"""What a model's card says: the front matter of its README, and its first paragraph without the markup."""

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.hub.repo import license_of, tags_of, words

BYTES_MAX = 1 << 20
SUMMARY_MAX = 400
"""Characters."""
_FRONT_MAX = 64 << 10
_LOOKED_AT = 16 << 10
_SHORTEST = 25
"""Characters that a paragraph has at least which says something."""

_front = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL).match
_fence = re.compile(r"^ {0,3}(```|~~~)").match
_no_prose = re.compile(r"^\s*(#|>|\||[-*+] |\d+[.)] |={3,}|-{3,}|<|!\[|\[!)").match
_HIDDEN = (("<!--", "-->"), ("<style", "</style>"), ("<script", "</script>"))
_picture = re.compile(r"!\[[^\]]{0,300}\](\([^)\s]{0,2000}[^)]{0,200}\)|\[[^\]]{0,100}\])")
_link = re.compile(r"\[([^\]]{0,300})\](?:\([^)]{0,2000}\)|\[[^\]]{0,100}\])")
_tag = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
_emphasis = re.compile(r"(\*{1,3}|__|`{1,3}|~~)")


class Card(Struct, frozen=True, kw_only=True):
    license: str | None = None
    tags: tuple[str, ...] = ()
    summary: str | None = None


def read(contents: bytes) -> Card:
    """What a README says; whatever it is, this does not fail."""
    text = contents.decode("utf-8", "replace")
    found = _front(text[:_FRONT_MAX])
    said = _front_matter(found[1]) if found else {}
    tags = tags_of(said.get("tags"))
    body = text[found.end() :] if found else text
    return Card(license=license_of(said, ()), tags=tags, summary=_summary(body[:_LOOKED_AT]))


def _front_matter(text: str) -> dict[str, Any]:
    # An alias can make a kilobyte of YAML a gigabyte of objects; cards have no use for one.
    if re.search(r"(?:^|[\s\[{,:])[&*][\w-]", text):
        return {}
    try:
        return msgspec.yaml.decode(text, type=dict[str, Any])
    except Exception:  # a stranger's YAML: the reader has more errors than it documents
        return {}


def _summary(body: str) -> str | None:
    """The first paragraph that is prose."""
    for paragraph in _paragraphs(_shown(body)):
        plain = _plain(paragraph)
        if len(plain) >= _SHORTEST and not plain.endswith(":"):
            return words(plain, SUMMARY_MAX)
    return None


def _shown(body: str) -> str:
    """Without comments and what else is not for readers."""
    for begin, end in _HIDDEN:
        pieces: list[str] = []
        at = 0
        while (start := body.find(begin, at)) >= 0:
            pieces.append(body[at:start])
            stop = body.find(end, start)
            at = len(body) if stop < 0 else stop + len(end)
        body = " ".join([*pieces, body[at:]])
    return body


def _paragraphs(body: str) -> list[str]:
    found: list[str] = []
    lines: list[str] = []
    fenced = False
    for line in body.splitlines():
        if _fence(line):
            fenced = not fenced
            line = ""
        if fenced or not line.strip() or _no_prose(line):
            found.append(" ".join(lines))
            lines = []
        else:
            lines.append(line.strip())
    return [*found, " ".join(lines)]


def _plain(paragraph: str) -> str:
    paragraph = _link.sub(r"\1", _picture.sub("", paragraph))
    return words(_emphasis.sub("", _tag.sub(" ", paragraph)), 4 * SUMMARY_MAX)
