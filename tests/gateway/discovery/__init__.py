"""Model folders as people have them, made of small sound files."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from backends.local.settings import ModelSettings
from backends.ports import Local
from gateway.discovery import discover
from gateway.discovery.problem import Problem


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


def safetensors(path: Path, numbers: int = 10) -> Path:
    """A small sound file of so many numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4 * numbers))
    return path


def pipeline(folder: Path, kind: str = "StableDiffusionPipeline", *, onnx: bool = False, **parts: Any) -> Path:
    folder.mkdir(parents=True)
    index = {"_class_name": kind, "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | parts))
    for part in ("unet", "text_encoder", "vae_decoder"):
        safetensors(folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text("{}")
        if onnx:
            (folder / part / "model.onnx").write_bytes(bytes(10))
    return folder


def sentences(folder: Path, **config: Any) -> Path:
    """What sentence-transformers makes of a BERT, without its numbers."""
    safetensors(folder / "model.safetensors", 3200)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "vocab.txt").write_text("[PAD]\n")
    said = {"model_type": "bert", "hidden_act": "gelu", "num_hidden_layers": 2, "hidden_size": 32}
    said |= {"max_position_embeddings": 128, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(said | config))
    return folder


def found(root: Path, **settings: ModelSettings) -> dict[str, Local]:
    """What is in this folder alone."""
    shipped = discover("local", [], root, {})
    return {
        name: local for name, local in discover("local", [str(root)], root, settings).items() if name not in shipped
    }


def told(root: Path) -> list[Problem]:
    """What is said of this folder."""
    problems: list[Problem] = []
    discover("local", [str(root)], root, {}, problems)
    return problems


def kinds(root: Path) -> dict[str, str]:
    """What is said of this folder: the kinds, by the names of the files."""
    return {os.path.relpath(problem.path, root): problem.kind for problem in told(root)}
