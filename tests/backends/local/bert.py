"""BERTs for tests: the embedded one, what it should say of a text, and a tiny one of noise that reranks."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from backends.ports import Local, Traits
from compat.canonical.model import Model
from gateway import embedded

Array = np.ndarray[Any, np.dtype[Any]]


def minilm(data_dir: Path) -> Local:
    """The embedded model, whose file is made in this folder."""
    return embedded.models("local", data_dir)["all-minilm-l6-v2"]


@dataclass
class Reference:
    """BERT as its paper has it, in 32 bits: slow, and obviously right."""

    folder: Path

    def __post_init__(self) -> None:
        self.weights = load_file(self.folder / "model.safetensors")
        self.config = json.loads((self.folder / "config.json").read_bytes())
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def embed(self, text: str) -> Array:
        """The unit vector of a text: the mean over its tokens."""
        ids = self.tokenizer.encode(text).ids
        table = [self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
        x = self._norm(table[0][ids] + table[1][: len(ids)] + table[2][0], "embeddings.LayerNorm")
        for n in range(self.config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{n}")
        mean = x.mean(axis=0)
        out: Array = mean / np.linalg.norm(mean)
        return out

    def _layer(self, x: Array, at: str) -> Array:
        heads = self.config["num_attention_heads"]
        q, k, v = (
            self._linear(x, f"{at}.attention.self.{name}").reshape(len(x), heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), -1)
        x = self._norm(x + self._linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = self._linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + _erf(inner / math.sqrt(2))) / 2
        return self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _linear(self, x: Array, at: str) -> Array:
        out: Array = x @ self.weights[f"{at}.weight"].T + self.weights[f"{at}.bias"]
        return out

    def _norm(self, x: Array, at: str) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.config["layer_norm_eps"])
        out: Array = x * self.weights[f"{at}.weight"] + self.weights[f"{at}.bias"]
        return out


def _erf(x: Array) -> Array:
    """The error function, to 2e-7 (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    rest = np.zeros_like(t)
    for factor in factors:
        rest = (rest + factor) * t
    out: Array = np.sign(x) * (1 - rest * np.exp(-(x**2)))
    return out


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    "red",
    "blue",
    "boat",
    "house",
    "the",
]
WIDTH, INNER, HEADS, LAYERS, CONTEXT = 32, 64, 2, 2, 128


def reranker(folder: Path) -> Local:
    """A cross-encoder in llama.cpp's format whose numbers are noise, always the same."""
    path = folder / "noise-reranker.gguf"
    draw = np.random.default_rng(7)
    writer = GGUFWriter(path, "bert")
    writer.add_name("noise-reranker")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_list([word if word.startswith("[") else f"\u2581{word}" for word in WORDS])
    writer.add_token_types([TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(WORDS) - 5))
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    for name, shape in _shapes().items():
        numbers = draw.normal(0, 0.4, shape).astype(np.float32)
        writer.add_tensor(name, numbers + np.float32("norm.weight" in name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = Model(name=path.stem, backend="local", modality="rerank", capabilities=("rerank",), context_length=CONTEXT)
    return Local(name=path.stem, path=str(path), model=model, traits=Traits(architecture="bert", vocabulary=len(WORDS)))


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(WORDS), WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
        "cls.weight": (WIDTH, WIDTH),
        "cls.bias": (WIDTH,),
        "cls.output.weight": (1, WIDTH),
        "cls.output.bias": (1,),
    }
    sizes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH),
        "attn_v": (WIDTH, WIDTH),
        "attn_output": (WIDTH, WIDTH),
    }
    sizes |= {"ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    for n in range(LAYERS):
        for name, size in sizes.items():
            shapes |= {f"blk.{n}.{name}.weight": size, f"blk.{n}.{name}.bias": size[:1]}
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.{n}.{name}.weight": (WIDTH,), f"blk.{n}.{name}.bias": (WIDTH,)}
    return shapes
