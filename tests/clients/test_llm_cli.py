"""Simon Willison's `llm`, configured by its `extra-openai-models.yaml`."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.clients.apart import INSTALL_S
from tests.clients.stand_in import PICTURE, vector
from tests.process import Gateway

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one makes the environment
FUNCTIONS = """
def add(a: int, b: int) -> int:
    return a + b

def multiply(a: int, b: int) -> int:
    return a * b
"""
Llm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def llm(
    apart_bin: Path, local_gateway: Gateway, stand_in_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Llm:
    """Runs the program with these arguments; its models are `small`, `big`, `reply` and `seer`."""
    models = [
        {"model_id": "small", "model_name": "auto", "api_base": f"{local_gateway.url}/v1", "supports_schema": True},
        *(
            {"model_id": name, "model_name": model, "api_base": f"{stand_in_gateway.url}/v1", **more}
            for name, model, more in (
                ("big", "auto", {"supports_tools": True, "supports_schema": True}),
                ("reply", "auto", {"supports_tools": True, "responses": True}),
                ("seer", "seer", {"vision": True}),
            )
        ),
        {"model_id": "missing", "model_name": "no-such-model", "api_base": f"{local_gateway.url}/v1"},
    ]
    home = tmp_path_factory.mktemp("llm")
    (home / "extra-openai-models.yaml").write_bytes(msgspec.yaml.encode(models))
    environ = {
        **os.environ,
        "LLM_USER_PATH": str(home),
        "LLM_LOAD_PLUGINS": "",
        "OPENAI_API_KEY": "local",
        "OPENAI_BASE_URL": f"{stand_in_gateway.url}/v1",
    }

    def run(*arguments: str, text: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [str(apart_bin / "llm"), *arguments],
            env=environ,
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.feature("llm", "chat")
@pytest.mark.feature("llm", "stream")
def test_a_prompt_is_answered_in_pieces_or_at_once(llm: Llm) -> None:
    options = ("-m", "small", "-o", "max_tokens", "8", "-o", "temperature", "0")
    at_once = llm(*options, "--no-stream", "Say hello.", "-u")
    in_pieces = llm(*options, "Say hello.", "-u")
    assert at_once.stdout == in_pieces.stdout != ""
    assert "Token usage: 33 input, 8 output" in in_pieces.stderr


@pytest.mark.feature("llm", "chat")
def test_a_conversation_goes_on(llm: Llm) -> None:
    llm("-m", "big", "Say hello.")
    assert llm("-c", "And again.").stdout.strip() == "Hello from a model that can call tools."


@pytest.mark.feature("llm", "streamed tools")
def test_functions_are_called_and_their_results_read(llm: Llm) -> None:
    done = llm("-m", "big", "--functions", FUNCTIONS, "--td", "Do add and multiply with 6 and 7.")
    assert done.stdout.strip() == "The tool says: 42"
    assert "add({'a': 6, 'b': 7})" in done.stderr


@pytest.mark.feature("llm", "tools")
def test_functions_are_called_without_a_stream_too(llm: Llm) -> None:
    done = llm("-m", "big", "--no-stream", "--functions", FUNCTIONS, "Do add and multiply with 6 and 7.")
    assert done.stdout.strip() == "The tool says: 42"


@pytest.mark.feature("llm", "object")
def test_a_schema_makes_an_object(llm: Llm) -> None:
    done = llm("-m", "big", "--no-stream", "--schema", "name, portions int", "Order 3 of 'Pie'.")
    assert json.loads(done.stdout) == {"name": "Pie", "portions": 3}


@pytest.mark.feature("llm", "streamed object")
def test_a_streamed_object_of_the_embedded_model_fits_its_schema(llm: Llm) -> None:
    done = llm("-m", "small", "-o", "max_tokens", "200", "--schema", "vegetarian bool", "Describe apple pie.")
    assert isinstance(json.loads(done.stdout)["vegetarian"], bool)


@pytest.mark.feature("llm", "responses")
def test_a_response_calls_functions(llm: Llm) -> None:
    done = llm("-m", "reply", "--no-stream", "--functions", FUNCTIONS, "Do add and multiply with 6 and 7.")
    assert done.stdout.strip() == "The tool says: 42"


@pytest.mark.feature("llm", "streamed responses")
def test_a_streamed_response_does_the_same(llm: Llm) -> None:
    done = llm("-m", "reply", "--functions", FUNCTIONS, "Do add and multiply with 6 and 7.")
    assert done.stdout.strip() == "The tool says: 42"


@pytest.mark.feature("llm", "image input")
def test_an_attached_picture_reaches_the_model(llm: Llm, tmp_path: Path) -> None:
    picture = tmp_path / "pixel.png"
    picture.write_bytes(base64.b64decode(PICTURE))
    assert llm("-m", "seer", "-a", str(picture), "What is this?").stdout.strip() == "I see 1: data:image/png"


@pytest.mark.feature("llm", "embeddings")
def test_its_own_embedding_models_are_answered_by_the_gateway(llm: Llm) -> None:
    assert json.loads(llm("embed", "-m", "3-small", "-c", "one").stdout) == vector("one")


@pytest.mark.feature("llm", "models")
def test_the_gateways_models_are_listed(llm: Llm, stand_in_gateway: Gateway) -> None:
    listed = llm("openai", "endpoint", f"{stand_in_gateway.url}/v1", "--models", "--key", "local").stdout.split()
    assert {"auto", "embedder", "painter"} <= set(listed)


@pytest.mark.feature("llm", "errors")
def test_an_unknown_model_is_said_to_be_one(llm: Llm) -> None:
    done = llm("-m", "missing", "Say hello.", check=False)
    assert done.returncode == 1
    assert "The model 'no-such-model' does not exist." in done.stderr
