"""OpenAI's SDK for Node (`node/openai.mjs`)."""

from collections.abc import Callable

import pytest

from tests.clients.node import INSTALL_S, Said
from tests.clients.stand_in import PICTURE, vector
from tests.process import Gateway

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one installs the packages
MODEL = "smollm2-135m-instruct"
SHIPPED = [f"local/{name}" for name in (MODEL, "all-minilm-l6-v2", "tiny-shapes", "tiny-3d")]
CALLS = [("add", '{"a": 6, "b": 7}'), ("multiply", '{"a": 6, "b": 7}')]


@pytest.fixture(scope="module")
def said(node: Callable[[str], Said]) -> Said:
    return node("openai")


@pytest.mark.feature("openai (Node)", "chat")
def test_an_answer_is_whole(said: Said) -> None:
    answer = said["chat"]
    [choice] = answer["choices"]
    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.feature("openai (Node)", "stream")
def test_a_stream_is_the_answer_in_pieces(said: Said) -> None:
    *chunks, last = said["stream"]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == said["chat"]["choices"][0]["message"]["content"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert len({(chunk["id"], chunk["model"]) for chunk in said["stream"]}) == 1


@pytest.mark.feature("openai (Node)", "stream")
def test_the_stream_helper_gathers_the_answer(said: Said) -> None:
    helped = said["streamHelper"]
    assert helped["text"] == helped["final"] != ""
    assert helped["finish"] == "length"


@pytest.mark.feature("openai (Node)", "object")
def test_an_object_fits_its_schema(said: Said) -> None:
    dish = said["object"]
    assert dish["course"] in {"starter", "main", "dessert"}
    assert 1 <= dish["portions"] <= 9


@pytest.mark.feature("openai (Node)", "streamed object")
def test_a_streamed_object_is_the_same(said: Said) -> None:
    assert said["streamedObject"] == said["object"]


@pytest.mark.feature("openai (Node)", "tools")
def test_the_tool_runner_calls_both_tools_and_reads_their_results(said: Said) -> None:
    assert said["tools"]["text"] == "The tool says: 42"
    check_conversation(said["tools"])


@pytest.mark.feature("openai (Node)", "streamed tools")
def test_the_streaming_tool_runner_does_the_same(said: Said) -> None:
    assert said["streamedTools"]["text"] == "The tool says: 42"
    assert said["streamedTools"]["pieces"] == 4
    check_conversation(said["streamedTools"])


def check_conversation(ran: Said) -> None:
    _, asked, *results, _ = ran["messages"]
    calls = asked["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == CALLS
    assert [(m["tool_call_id"], m["content"]) for m in results] == list(
        zip((c["id"] for c in calls), ["13", "42"], strict=True)
    )


@pytest.mark.feature("openai (Node)", "image input")
def test_a_picture_reaches_the_model(said: Said) -> None:
    assert said["seen"] == "I see 1: data:image/png"


@pytest.mark.feature("openai (Node)", "embeddings")
def test_embeddings_are_the_same_packed_and_plain(said: Said) -> None:
    vectors = [vector("one"), vector("two")]
    assert [row["embedding"] for row in said["embeddings"]["packed"]] == vectors
    assert [row["embedding"] for row in said["embeddings"]["plain"]] == vectors
    assert [row["embedding"] for row in said["embeddings"]["short"]] == [vector("one", 3)]
    assert said["embeddings"]["usage"]["prompt_tokens"] == 2


@pytest.mark.feature("openai (Node)", "images")
def test_a_picture_is_made(said: Said) -> None:
    assert said["image"] == PICTURE


@pytest.mark.feature("openai (Node)", "image edits")
def test_uploaded_pictures_are_edited(said: Said) -> None:
    assert said["edit"] == PICTURE


@pytest.mark.feature("openai (Node)", "responses")
def test_a_response_is_whole(said: Said) -> None:
    response = said["response"]
    assert (response["object"], response["model"], response["status"]) == ("response", MODEL, "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output_text"] == response["output"][0]["content"][0]["text"] != ""
    assert response["usage"]["output_tokens"] == 8
    assert said["responseObject"]["course"] in {"starter", "main", "dessert"}


@pytest.mark.feature("openai (Node)", "responses")
def test_a_response_calls_tools_and_the_next_reads_their_results(said: Said) -> None:
    assert [(call["name"], call["arguments"]) for call in said["responseTools"]["calls"]] == CALLS
    assert said["responseTools"]["text"] == "The tool says: multiply done"


@pytest.mark.feature("openai (Node)", "streamed responses")
def test_a_streamed_response_is_the_same_in_pieces(said: Said) -> None:
    events = said["streamedResponse"]["events"]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == said["response"]["output_text"] == said["streamedResponse"]["final"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.incomplete")


@pytest.mark.feature("openai (Node)", "kept responses")
def test_a_response_is_kept_until_it_is_deleted(said: Said) -> None:
    kept = said["kept"]
    assert kept["made"] == kept["found"] != ""
    assert [item["content"][0]["text"] for item in kept["items"]] == ["Say hello."]
    assert (kept["gone"]["name"], kept["gone"]["status"]) == ("NotFoundError", 404)


@pytest.mark.feature("openai (Node)", "models")
def test_models_are_listed_and_described(said: Said) -> None:
    assert said["models"]["ids"] == ["auto", *SHIPPED]
    assert said["models"]["one"]["id"] == f"local/{MODEL}"


@pytest.mark.feature("openai (Node)", "errors")
def test_errors_have_their_class_and_their_code(said: Said) -> None:
    errors = said["errors"]
    kind = {"type": "invalid_request_error"}
    assert errors["missing"] == kind | {
        "name": "NotFoundError", "status": 404, "code": "model_not_found", "param": None
    }  # fmt: skip
    assert errors["empty"] == kind | {
        "name": "BadRequestError", "status": 400, "code": "empty_array", "param": "messages"
    }  # fmt: skip
    assert errors["streamed"] == errors["empty"]


@pytest.mark.feature("openai (Node)", "headers")
def test_headers_are_at_hand(said: Said) -> None:
    assert said["headers"]["text"]
    assert said["headers"]["request_id"] == "node-own-id"
    assert said["headers"]["model"] == f"local/{MODEL}"


@pytest.mark.feature("openai (Node)", "leaving")
def test_a_stream_that_is_left_is_stopped(said: Said, local_gateway: Gateway) -> None:
    assert said["leaving"] is True
    local_gateway.wait_for("request_finished", 5, request_id="node-leaves", status=499)
