"""Anthropic's list of models: read from a provider, and written a page at a time."""

from typing import Any

import pytest
from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from compat.anthropic.models import parse_models, render_model, render_page
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Model
from tests.claude import fixture

MODELS = [{"id": f"m{n}"} for n in range(5)]


def page(**query: str) -> dict[str, Any]:
    return render_page(MODELS, **{"limit": None, "after_id": None, "before_id": None, **query})


def test_a_model_is_as_the_sdk_knows_it() -> None:
    told = render_model(Model(name="m", backend="b", created=1_770_163_200, context_length=8192), "b/m")
    seen = ModelInfo.model_validate(told, strict=False)
    assert not seen.model_extra
    assert set(told) == set(ModelInfo.model_fields)
    assert (seen.id, seen.display_name, seen.max_input_tokens) == ("b/m", "m", 8192)
    assert told["created_at"] == "2026-02-04T00:00:00Z"


def test_what_a_model_can_do_is_told_in_the_catalogues_words() -> None:
    opus, haiku = parse_models(fixture("models.json"), "claude")
    assert opus.capabilities == ("batch", "vision", "thinking")
    assert (haiku.capabilities, haiku.context_length) == ((), 200_000)


def test_what_is_not_known_is_said_so() -> None:
    told = render_model(Model(name="m", backend="b"), "alias")
    assert (told["created_at"], told["max_input_tokens"], told["max_tokens"]) == ("1970-01-01T00:00:00Z", None, None)
    assert told["display_name"] == "alias"


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "01234", False),
        ({"limit": "2"}, "01", True),
        ({"limit": "5"}, "01234", False),
        ({"limit": "2", "after_id": "m1"}, "23", True),
        ({"limit": "2", "after_id": "m2"}, "34", False),
        ({"after_id": "m4"}, "", False),
        ({"limit": "2", "before_id": "m3"}, "12", True),
        ({"limit": "2", "before_id": "m2"}, "01", False),
        ({"before_id": "m0"}, "", False),
    ],
)
def test_pages(query: dict[str, str], ids: str, more: bool) -> None:
    body = page(**query)
    assert "".join(model["id"][1:] for model in body["data"]) == ids
    assert body["has_more"] is more
    assert (body["first_id"], body["last_id"]) == ((f"m{ids[0]}", f"m{ids[-1]}") if ids else (None, None))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"after_id": "gone"}, "after_id"),
        ({"before_id": "gone"}, "before_id"),
        ({"after_id": "m1", "before_id": "m3"}, "after_id"),
    ],
)
def test_a_query_that_means_nothing_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        page(**query)
    assert caught.value.param == param


@given(st.integers(0, 60), st.integers(1, 25), st.booleans())
def test_turning_pages_shows_each_model_once(count: int, limit: int, backwards: bool) -> None:
    models = [{"id": str(n)} for n in range(count)]
    seen: list[str] = []
    cursor: dict[str, str | None] = {"after_id": None, "before_id": None}
    if backwards:
        models.append({"id": "end"})
        cursor["before_id"] = "end"
    while True:
        body = render_page(models, limit=str(limit), **cursor)
        ids = [model["id"] for model in body["data"]]
        seen = ids + seen if backwards else seen + ids
        if not body["has_more"]:
            break
        cursor["before_id" if backwards else "after_id"] = body["first_id" if backwards else "last_id"]
    assert seen == [str(n) for n in range(count)]
