"""Which client does what through the gateway: `docs/compatibility.md`, made from a run of these tests.

A test says what it shows with `@pytest.mark.feature(client, feature)`; a feature that several tests show
works when all of them pass.  The marks are read from the modules, so that the table can be held
against them in a run of any part of the suite.
"""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = ROOT / "docs" / "compatibility.md"

FEATURES = {
    "chat": "a whole answer, with its usage and its finish reason",
    "stream": "the same in pieces",
    "async": "the asynchronous half of a client that has two",
    "tools": "tools are called, several at once, and their results read",
    "streamed tools": "the same in a stream",
    "object": "an answer that fits a schema, parsed into the client's own class",
    "streamed object": "the same in a stream",
    "reasoning": "a model's thinking, apart from its answer",
    "image input": "a picture in a message",
    "embeddings": "vectors, of one text and of many",
    "images": "a picture from a prompt",
    "image edits": "a picture from a picture, uploaded as a form",
    "responses": "OpenAI's Responses API",
    "streamed responses": "the same in a stream",
    "kept responses": "`previous_response_id`, retrieving, listing the input, deleting",
    "token count": "Anthropic's `count_tokens`",
    "models": "the list of models",
    "errors": "a refusal becomes the client's own class of error",
    "headers": "the request's id and the gateway's headers, where the client shows them",
    "leaving": "a client that stops reading stops the generation",
}
"""Column → what a tick in it means."""

CLIENTS = {
    "openai (Python)": ("requirements/dev.txt", "openai"),
    "openai (Node)": ("tests/clients/node/package-lock.json", "openai"),
    "AI SDK, openai-compatible": ("tests/clients/node/package-lock.json", "@ai-sdk/openai-compatible"),
    "AI SDK, openai": ("tests/clients/node/package-lock.json", "@ai-sdk/openai"),
    "AI SDK, anthropic": ("tests/clients/node/package-lock.json", "@ai-sdk/anthropic"),
    "anthropic (Python)": ("requirements/dev.txt", "anthropic"),
    "anthropic (TypeScript)": ("tests/clients/node/package-lock.json", "@anthropic-ai/sdk"),
    "langchain-openai": ("requirements/dev.txt", "langchain-openai"),
    "langchain-anthropic": ("requirements/dev.txt", "langchain-anthropic"),
    "pydantic-ai": ("requirements/dev.txt", "pydantic-ai-slim"),
    "instructor": ("requirements/clients.txt", "instructor"),
    "llm": ("requirements/clients.txt", "llm"),
}
"""Row → the lock that names its version, and the package's name there."""

Feature = tuple[str, str]
"""A client and what it does."""

ELSEWHERE: dict[str, Mapping[str, Feature]] = {
    "test_openai_sdk.py": {
        "test_an_answer_is_whole": ("openai (Python)", "chat"),
        "test_a_stream_is_the_answer_in_pieces": ("openai (Python)", "stream"),
        "test_an_answer_arrives_asynchronously_too": ("openai (Python)", "async"),
        "test_a_schema_makes_an_object": ("openai (Python)", "object"),
        "test_the_sdks_stream_helper_parses_an_object": ("openai (Python)", "streamed object"),
        "test_parallel_tool_calls_are_streamed_whole": ("openai (Python)", "streamed tools"),
        "test_models_are_listed_and_described": ("openai (Python)", "models"),
        "test_raw_responses_say_who_answered": ("openai (Python)", "headers"),
        "test_streams_that_are_closed_early_free_their_slots": ("openai (Python)", "leaving"),
    },
    "test_openai_errors.py": {
        "test_an_unknown_model_is_not_found": ("openai (Python)", "errors"),
        "test_a_bad_request_names_the_field": ("openai (Python)", "errors"),
        "test_a_bad_key_is_an_authentication_error": ("openai (Python)", "errors"),
    },
    "test_langchain.py": {
        "test_invoke_answers": ("langchain-openai", "chat"),
        "test_stream_answers_in_pieces": ("langchain-openai", "stream"),
        "test_astream_answers_in_pieces": ("langchain-openai", "async"),
        "test_structured_output_fits_the_class": ("langchain-openai", "object"),
        "test_bound_tools_are_called_and_their_results_read": ("langchain-openai", "tools"),
        "test_streamed_tool_calls_join_to_the_same": ("langchain-openai", "streamed tools"),
        "test_an_unknown_model_is_an_error_of_the_sdk": ("langchain-openai", "errors"),
    },
}
"""File → test → what it shows, for files that are marked from here."""


def marked(name: str) -> set[Feature]:
    """The features that the marks of a test file name, those on parameters included."""
    module = importlib.import_module(f"tests.clients.{name.removesuffix('.py')}")
    marks = [mark for thing in vars(module).values() for mark in getattr(thing, "pytestmark", ())]
    for mark in [mark for mark in marks if mark.name == "parametrize"]:
        marks += [inner for values in mark.args[1] for inner in getattr(values, "marks", ())]
    return {mark.args for mark in marks if mark.name == "feature"} | set(ELSEWHERE.get(name, {}).values())


def shown() -> set[Feature]:
    """Every feature that a test here shows."""
    return {feature for path in HERE.glob("test_*.py") for feature in marked(path.name)}


def version(client: str) -> str:
    """The version that the tests' lock holds of a client."""
    lock, package = CLIENTS[client]
    text = (ROOT / lock).read_text()
    if lock.endswith(".json"):
        return str(json.loads(text)["packages"][f"node_modules/{package}"]["version"])
    found = re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
    assert found, f"{lock} does not pin {package}"
    return found[1]


def render(passed: Mapping[Feature, bool]) -> str:
    """The page."""
    signs = {True: "✔", False: "✘", None: "–"}
    rows = [
        [f"{client} {version(client)}", *(signs[passed.get((client, feature))] for feature in FEATURES)]
        for client in CLIENTS
    ]
    table = [["client", *FEATURES], ["---", *(":-:" for _ in FEATURES)], *rows]
    meanings = [f"* **{feature}**: {meaning}" for feature, meaning in FEATURES.items()]
    return "\n".join(
        [
            "# Compatibility",
            "",
            "Made by `make compatibility` from a run of the tests in `tests/clients`, where each of these clients,",
            "unchanged and in the version named, talks to a gateway process: one with the embedded model, one",
            "in front of stand-ins for OpenAI's and Anthropic's APIs. Do not edit.",
            "",
            "✔ passed · ✘ failed · – not tried: the client has no such thing, or no test of it is here",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            *meanings,
            "",
        ]
    )


def read(text: str) -> dict[Feature, bool]:
    """What a page says, as `render` takes it."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    _, *features = cells(lines[0])
    found: dict[Feature, bool] = {}
    for line in lines[2:]:
        name, *signs = cells(line)
        client = name.rpartition(" ")[0]
        found |= {(client, f): sign == "✔" for f, sign in zip(features, signs, strict=True) if sign != "–"}
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
