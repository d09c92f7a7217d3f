"""What is suggested to those who ask for a model that there is none of."""

import pytest

from compat.canonical.principal import Principal
from gateway.auth.principal import LOCAL, Grant
from gateway.config import load
from gateway.estate import build
from gateway.routing.suggestion import meant

KNOWN = ("local/smollm2-135m-instruct", "local/all-minilm-l6-v2", "local/qwen3-8b", "local/qwen3-0.6b", "auto", "g")


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("smollm2", "local/smollm2-135m-instruct"),
        ("local/smollm2", "local/smollm2-135m-instruct"),
        ("local/SmolLM2-135M-Instruct", "local/smollm2-135m-instruct"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "local/smollm2-135m-instruct"),
        ("elsewhere/smollm-135m-instruct", "local/smollm2-135m-instruct"),
        ("qwen3", "local/qwen3-8b"),
        ("auot", "auto"),
        ("gpt-5", None),
        ("", None),
        ("local/", None),
        ("x" * 300, None),
    ],
)
def test_the_nearest_is_meant(asked: str, near: str | None) -> None:
    assert meant(asked, KNOWN) == near


@pytest.mark.parametrize(
    ("grant", "hint"),
    [
        (LOCAL, True),
        (Grant(principal=Principal(id="x"), models=("local/*",)), True),
        (Grant(principal=Principal(id="x"), models=("local/tiny-*", "other")), False),
        (Grant(principal=Principal(id="x"), backends=frozenset({"other"})), False),
    ],
)
def test_nobody_is_told_of_what_is_not_theirs(grant: Grant, hint: bool) -> None:
    said = build(load(None, {})).router.unknown("smollm2", grant).message
    assert ("local/smollm2-135m-instruct" in said) == hint
