"""What is read from a card, whatever a stranger wrote in it."""

import time

import pytest

from gateway.hub.card import SUMMARY_MAX, read
from gateway.hub.repo import words

GOOD = b"""---
license: apache-2.0
tags:
- text
- small
---

# Tiny

[![badge](https://x/y.svg)](https://x) <img src="https://x/y.png">

<!-- a note
over lines -->
| a | table |
|---|---|

```python
print("not this, which is long enough to be taken for prose")
```

**Tiny** is a [small](https://example.com/a_(b)) model for `tests`, made
of two lines.

Another paragraph that is long enough to be one.
"""


def test_a_card_is_read_without_its_markup() -> None:
    card = read(GOOD)
    assert (card.license, card.tags) == ("apache-2.0", ("text", "small"))
    assert card.summary is not None
    assert card.summary.startswith("Tiny is a small")
    assert card.summary.endswith("made of two lines.")
    assert not set("*`<[") & set(card.summary)


def test_another_licence_is_called_by_its_own_name() -> None:
    assert read(b"---\nlicense: other\nlicense_name: llama3\n---\n").license == "llama3"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"---\n",
        b"---\n---",
        b"---\nlicense: [\n---\n",
        b"---\n!!python/object/apply:os.system ['true']\n---\n",
        b"---\n- a list\n---\n",
        b"---\nlicense: {a: 1}\ntags: 7\n---\n",
        b"---\nlicense: &a mit\nother: *a\n---\n",
        b"---\n" + b"a: {" * 5000 + b"\n---\n",
        b"\xff\xfe\x00 not text",
        b"# Only\n## Headings\n",
    ],
)
def test_what_cannot_be_read_is_nothing(text: bytes) -> None:
    card = read(text)
    assert (card.license, card.tags, card.summary) == (None, (), None)


def test_a_long_paragraph_is_cut_and_says_nothing_to_a_terminal() -> None:
    card = read(b"A model\x1b[31m that \xe2\x80\xaesees " + b"far " * 1000)
    assert card.summary is not None
    assert len(card.summary) <= SUMMARY_MAX
    assert card.summary.isprintable()
    assert card.summary.endswith("\u2026")


@pytest.mark.parametrize("one", [b"[", b"![", b"<", b"<!--", b"[a](", b"*", b"<a ", b"`", b"<style>", b"x [a][b] "])
def test_a_card_that_is_made_to_be_slow_is_not(one: bytes) -> None:
    begin = time.process_time()
    read(one * (200_000 // len(one)))
    assert time.process_time() - begin < 2


def test_words_are_one_line_and_bounded() -> None:
    assert words(" a\n\tb\x00c ") == "a b c"
    assert words(None) == ""
    assert len(words("x" * 10_000, 50)) == 50
