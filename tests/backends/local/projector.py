"""A tiny vision encoder of random numbers for the real model: it looks at pictures, and sees nothing in them.

So the way of a picture is driven for real, from the request through llama.cpp's mmproj into the model.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

SIDE, PATCH, WIDTH, INNER = 28, 14, 32, 64
MODEL_WIDTH = 576
"""Of SmolLM2-135M: what stands for one token inside it."""


def write_projector(path: Path) -> None:
    """Write one of the oldest kind, LLaVA's: a CLIP encoder of one layer and two matrices behind it."""
    writer, random = GGUFWriter(path, "clip"), np.random.default_rng(1)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    numbers = {"image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": INNER}
    for name, value in (numbers | {"projection_dim": MODEL_WIDTH, "block_count": 2, "attention.head_count": 2}).items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.02, shape).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    def add_linear(name: str, into: int, out: int) -> None:
        add(f"{name}.weight", out, into)
        add(f"{name}.bias", out)

    add("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    add("v.class_embd", WIDTH)
    add("v.position_embd.weight", (SIDE // PATCH) ** 2 + 1, WIDTH)
    add_norm("v.pre_ln")
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add_linear(f"v.blk.{layer}.{name}", WIDTH, WIDTH)
        for name in ("ln1", "ln2"):
            add_norm(f"v.blk.{layer}.{name}")
        add_linear(f"v.blk.{layer}.ffn_down", WIDTH, INNER)
        add_linear(f"v.blk.{layer}.ffn_up", INNER, WIDTH)
    add_norm("v.post_ln")
    add_linear("mm.0", WIDTH, MODEL_WIDTH)
    add_linear("mm.2", MODEL_WIDTH, MODEL_WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
