"""Titles made of first words."""

import pytest

from gateway.sessions.title import LENGTH_MAX, first_words, title_of


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Write a poem about the sea. Make it short.", "Write a poem about the sea."),
        ("\n\n  ## **Plan** for `main.py`\nmore", "Plan for main.py"),
        ("1. [Read](https://x.test/y) this", "Read this"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("<b>bold</b> & more", "bold & more"),
        ("what is snake_case_name?", "what is snake_case_name?"),
        ("2 * 3 = 6?", "2 * 3 = 6?"),
        ("Hi! How are you? Fine", "Hi! How are you?"),
        ("海は青いですか。空もです", "海は青いですか。"),
        ("a\x00b\u202ec\x1b[0m", "a b c [0m"),
        ("   \n---\n***\n", None),
        ("", None),
    ],
)
def test_the_first_sentence_without_markup(text: str, title: str | None) -> None:
    assert first_words(text) == title


def test_a_long_one_is_cut_at_a_word() -> None:
    title = first_words("supercalifragilistic " * 20) or ""
    assert title == "supercalifragilistic supercalifragilistic…"
    assert len(first_words("x" * 5000) or "") == LENGTH_MAX


def test_only_what_a_user_says_counts() -> None:
    said = [
        {"id": "1", "type": "message", "role": "system", "content": [{"type": "input_text", "text": "You are"}]},
        {"id": "2", "type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"id": "3", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello there"}]},
    ]
    assert title_of(said) == "Hello there"
    assert title_of(said[:2]) is None
