"""What is found in the model folders, and what is refused there."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import structlog

from backends.local.settings import ModelSettings
from backends.ports import Local
from gateway.discovery import discover


def write(path: Path, architecture: str = "llama", width: int = 64, **more: Any) -> Path:
    """A small sound GGUF file; `pooling` and `role` as the format's own keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_uint32(f"{architecture}.context_length", 4096)
    writer.add_uint32(f"{architecture}.block_count", 2)
    writer.add_uint32(f"{architecture}.embedding_length", width)
    writer.add_uint32(f"{architecture}.attention.head_count", 4)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    if "pooling" in more:
        writer.add_uint32(f"{architecture}.pooling_type", more["pooling"])
    if "role" in more:
        writer.add_string("general.type", more["role"])
    if architecture == "clip":
        writer.add_uint32("clip.vision.projection_dim", width)
    writer.add_tensor("w", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pipeline(folder: Path, kind: str = "StableDiffusionPipeline", *, onnx: bool = False, **parts: Any) -> Path:
    folder.mkdir(parents=True)
    index = {"_class_name": kind, "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | parts))
    for part in ("unet", "text_encoder", "vae_decoder"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text("{}")
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(bytes(100))
        if onnx:
            (folder / part / "model.onnx").write_bytes(bytes(10))
    return folder


def found(root: Path, **settings: ModelSettings) -> dict[str, Local]:
    """What is in this folder alone."""
    shipped = discover("local", [], root, {})
    return {
        name: local for name, local in discover("local", [str(root)], root, settings).items() if name not in shipped
    }


def reports(root: Path, **settings: ModelSettings) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as logs:
        found(root, **settings)
    return [dict(log) for log in logs if log["event"].startswith("model_")]


def test_a_file_is_what_its_header_says(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "Writes-Q8_0.gguf")
    write(tmp_path / "embeds.gguf", "bert", pooling=1)
    write(tmp_path / "ranks.gguf", "bert", pooling=4)
    write(tmp_path / "adapter.gguf", role="adapter")
    models = found(tmp_path)
    assert {name: local.model.modality for name, local in models.items()} == {
        "writes-q8_0": "text",
        "embeds": "embedding",
        "ranks": "rerank",
    }
    traits = models["writes-q8_0"].traits
    assert (traits.architecture, traits.layers, traits.width, traits.vocabulary) == ("llama", 2, 64, 3)
    assert traits.kv_bytes_per_token == 2 * 4 * (16 + 16) * 2
    assert traits.modified_ns == (tmp_path / "sub" / "Writes-Q8_0.gguf").stat().st_mtime_ns
    assert models["embeds"].traits.kv_bytes_per_token == 0


def test_a_model_in_parts_is_one_model_and_needs_all_of_them(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"big-0000{n}-of-00003.gguf") for n in (1, 2, 3)]
    model = found(tmp_path)["big"].model
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    parts[1].unlink()
    assert found(tmp_path) == {}
    assert reports(tmp_path)[0] | {"log_level": ""} == {
        "event": "model_incomplete", "file": parts[0].name, "missing": [parts[1].name], "log_level": "",
    }  # fmt: skip


def test_a_projector_goes_with_the_model_whose_words_it_has(tmp_path: Path) -> None:
    for name in ("gemma-3-4b-it-Q4_K_M", "gemma-3-12b-it-Q4_K_M", "qwen2.5-vl-3b-Q4_K_M"):
        write(tmp_path / f"{name}.gguf")
    write(tmp_path / "mmproj-gemma-3-4b-it-f16.gguf", "clip")
    write(tmp_path / "mmproj-Qwen2.5-VL-3B-f16.gguf", "clip")
    models = found(tmp_path)
    assert {name: local.projector and Path(local.projector).name for name, local in models.items()} == {
        "gemma-3-4b-it-q4_k_m": "mmproj-gemma-3-4b-it-f16.gguf",
        "gemma-3-12b-it-q4_k_m": None,
        "qwen2.5-vl-3b-q4_k_m": "mmproj-Qwen2.5-VL-3B-f16.gguf",
    }
    assert "vision" in models["gemma-3-4b-it-q4_k_m"].model.capabilities
    assert "vision" not in models["gemma-3-12b-it-q4_k_m"].model.capabilities
    assert models["gemma-3-4b-it-q4_k_m"].traits.projector_bytes > 0


def test_a_projector_without_a_name_goes_with_the_only_model_or_with_those_it_fits(tmp_path: Path) -> None:
    write(tmp_path / "alone" / "one.gguf", width=64)
    write(tmp_path / "alone" / "mmproj-F16.gguf", "clip", width=768)
    write(tmp_path / "both" / "small.gguf", width=64)
    write(tmp_path / "both" / "large.gguf", width=128)
    write(tmp_path / "both" / "mmproj-model-f16.gguf", "clip", width=128)
    seeing = {name for name, local in found(tmp_path).items() if local.projector}
    assert seeing == {"one", "large"}


def test_settings_give_a_model_its_own_defaults_and_projector(tmp_path: Path) -> None:
    write(tmp_path / "one.gguf")
    projector = write(tmp_path / "elsewhere" / "eye.gguf", "clip")
    own = ModelSettings(defaults={"temperature": 0.1}, projector=str(projector))
    local = found(tmp_path, one=own)["one"]
    assert (local.defaults, local.projector) == ({"temperature": 0.1}, str(projector))
    assert "vision" in local.model.capabilities
    assert [report["model"] for report in reports(tmp_path, typo=own)] == ["typo"]


def test_a_pipeline_is_a_folder(tmp_path: Path) -> None:
    pipeline(tmp_path / "Stable", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    pipeline(tmp_path / "graphs", onnx=True, unet=["optimum.onnxruntime.modeling_diffusion", "ORTModelUnet"])
    pipeline(tmp_path / "models--openai--shap-e" / "snapshots" / "a1b2", "ShapEPipeline", unet=["shap_e", "X"])
    models = found(tmp_path)
    assert {name: (local.format, local.model.modality, local.model.size_bytes) for name, local in models.items()} == {
        "stable": ("diffusers", "image", 300),
        "graphs": ("onnx", "image", 30),
        "shap-e": ("diffusers", "3d", 300),
    }


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("unet/diffusion_pytorch_model.bin", "", "could run code"),
        ("weights.ckpt", "", "could run code"),
        ("pipeline.py", "", "could run code"),
        ("unet/config.json", '{"auto_map": {"AutoModel": "x.Y"}}', "auto_map"),
        ("unet/config.json", "[", "not a JSON object"),
        ("model_index.json", '{"unet": ["os", "system"]}', "comes from 'os'"),
        ("model_index.json", " " * (1 << 20) + "{}", "too large"),
    ],
)
def test_a_pipeline_that_could_run_code_is_refused_and_named(
    tmp_path: Path, file: str, content: str, reason: str
) -> None:
    folder = pipeline(tmp_path / "evil")
    (folder / file).write_text(content)
    assert found(tmp_path) == {}
    assert reason in reports(tmp_path)[0]["reason"]


def test_a_pipeline_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "empty")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert "no weights in safetensors" in reports(tmp_path)[0]["reason"]


def test_what_cannot_be_read_harms_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<I", 3))
    cut = write(tmp_path / "cut.gguf")
    os.truncate(cut, cut.stat().st_size - 64)
    assert set(found(tmp_path)) == {"good"}
    assert {report["file"] for report in reports(tmp_path)} == {"bad.gguf", "cut.gguf"}


def test_nothing_outside_the_folder_is_taken(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "secret.gguf")
    folder = pipeline(tmp_path / "outside" / "drawn")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.gguf").symlink_to(outside)
    (inside / "drawn").symlink_to(folder, target_is_directory=True)
    assert found(inside) == {}
