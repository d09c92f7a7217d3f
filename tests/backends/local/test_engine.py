"""Which engine a configuration gets."""

import sys
from typing import Any

import pytest

from backends.local import Settings, connect
from backends.local.engine import Setting, choose, lacking
from backends.ports import Ports


def installed(*names: str) -> dict[str, Any]:
    return {
        "has_module": lambda module: module in names,
        "which": lambda program: f"/opt/{program}" if program in names else None,
    }


LLAMA_CPP_PYTHON = ("llama_cpp", "fastapi", "uvicorn", "starlette_context")


def test_auto_prefers_xllamacpp_then_the_native_server_then_llama_cpp_python() -> None:
    everything = ("xllamacpp", "llama-server", *LLAMA_CPP_PYTHON)
    assert choose("auto", **installed(*everything)).name == "xllamacpp"
    assert choose("auto", **installed(*everything[1:])).name == "llama_server"
    assert choose("auto", **installed(*everything[2:])).name == "llama_cpp_python"


def test_a_native_server_is_taken_by_its_name_or_path() -> None:
    engine = choose("llama_server", "my-server", **installed("my-server"))
    assert engine.binary == "/opt/my-server"


@pytest.mark.parametrize(
    ("setting", "cure"),
    [
        ("auto", "pip install xllamacpp"),
        ("xllamacpp", "pip install xllamacpp"),
        ("llama_cpp_python", r"pip install 'pluggably\[llama-cpp-python\]'"),
        ("llama_server", "PATH"),
    ],
)
def test_an_engine_that_is_not_there_names_the_field_and_the_cure(setting: Setting, cure: str) -> None:
    with pytest.raises(ValueError, match=f"^engine: .*{cure}"):
        choose(setting, **installed())


def test_a_wrong_path_of_the_native_server_is_reported_though_another_engine_is_there() -> None:
    with pytest.raises(ValueError, match=r"^llama_server: "):
        choose("auto", "nowhere", **installed("xllamacpp"))


def test_the_server_part_of_llama_cpp_python_must_be_there_too() -> None:
    with pytest.raises(ValueError, match="llama-cpp-python"):
        choose("llama_cpp_python", **installed("llama_cpp"))


def test_what_draws_says_what_it_lacks() -> None:
    everything = {"torch", "diffusers", "transformers", "accelerate"}
    assert lacking("diffusers", has_module=everything.__contains__) is None
    assert lacking("diffusers", has_module=(everything - {"torch"}).__contains__) == "pip install 'pluggably[image]'"
    assert lacking("onnx", has_module=set().__contains__) is None


def test_connecting_imports_no_engine() -> None:
    before = set(sys.modules)
    connect("local", Settings(), Ports())
    assert not {"xllamacpp", "llama_cpp"} & (set(sys.modules) - before)
