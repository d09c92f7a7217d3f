"""Instructor (`apart/extract.py`)."""

from collections.abc import Callable

import pytest

from tests.clients.apart import INSTALL_S, Said

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one makes the environment
PIE = {"name": "Pie", "portions": 3}


@pytest.fixture(scope="module")
def said(apart: Callable[[str], Said]) -> Said:
    return apart("extract")


@pytest.mark.feature("instructor", "object")
def test_a_schema_makes_an_object_of_the_embedded_model(said: Said) -> None:
    assert said["by_schema"]["course"] in {"starter", "main", "dessert"}
    assert isinstance(said["by_schema"]["vegetarian"], bool)


@pytest.mark.feature("instructor", "object")
def test_a_tool_makes_an_object(said: Said) -> None:
    assert said["by_tool"] == PIE


@pytest.mark.feature("instructor", "object")
def test_json_mode_makes_json(said: Said) -> None:
    assert said["by_json"] == {"name": "something", "taste": "something"}


@pytest.mark.feature("instructor", "responses")
def test_a_tool_of_a_response_makes_an_object(said: Said) -> None:
    assert said["by_responses"] == PIE


@pytest.mark.feature("instructor", "streamed object")
def test_an_object_grows_while_it_streams(said: Said) -> None:
    assert said["partial"]["steps"] > 1
    assert said["partial"]["last"] == PIE


@pytest.mark.feature("instructor", "streamed object")
def test_several_objects_come_from_one_stream(said: Said) -> None:
    assert said["several"] == [PIE]


@pytest.mark.feature("instructor", "object")
def test_an_object_that_does_not_validate_is_asked_for_again(said: Said) -> None:
    assert said["asked_again"] == {"attempts": 3, "asked": [1, 3, 5]}


@pytest.mark.feature("instructor", "async")
def test_the_asynchronous_client_does_the_same(said: Said) -> None:
    assert said["asynchronously"] == PIE


@pytest.mark.feature("instructor", "chat")
def test_the_whole_answer_is_at_hand(said: Said) -> None:
    assert said["raw"]["dish"] == said["by_schema"]
    assert said["raw"]["model"] == "smollm2-135m-instruct"
    assert said["raw"]["tokens"] > 0


@pytest.mark.feature("instructor", "errors")
def test_an_unknown_model_is_an_error_of_the_sdk(said: Said) -> None:
    assert said["refused"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
