"""The program that makes one GGUF of a BERT that sentence-transformers published as safetensors.

    python -P bert.py FOLDER FILE.gguf [SHA256 of the weights]

Writes FILE whole or not at all, and the same bytes each time; where another process makes it already, waits for that
one.  Leaves with status 0, or prints why not, in words fit for a client.  Only the weights, the vocabulary and two
JSON files are read; nothing of the folder is run.  The end of stdin means: leave.

Source: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py (BertModel)
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType, TokenType
from gguf.quants import quantize
from safetensors import safe_open

WEIGHTS = "model.safetensors"
PASSING = 3
"""The status it leaves with where the same files may do another time: the disk is full, say."""
_CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_is_unused = re.compile(r"\[unused\d+\]").fullmatch

_TENSORS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_TENSORS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EXACT = frozenset({"position_embd", "token_types"})
"""Matrices that are small and that the engine reads as they are."""
_layer = re.compile(r"encoder\.layer\.(\d+)\.(.+)").fullmatch


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The folder's own lock, so that nothing is left behind; it ends with the process.
        fcntl.flock(os.open(target.parent, os.O_RDONLY), fcntl.LOCK_EX)
        if not target.exists():
            make(folder, target, sys.argv[3] if len(sys.argv) > 3 else None)
    except Unfit as e:
        sys.stdout.write(str(e))
        raise
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        sys.stdout.write("the disk is full" if full else f"its files cannot be read or written ({e.strerror})")
        traceback.print_exc()
        sys.exit(PASSING)


class Unfit(Exception):
    """The files are not what they should be; the message says how, in words fit for a client."""


def make(folder: Path, target: Path, sha256: str | None = None) -> None:
    """Write the GGUF.  Raises Unfit, OSError."""
    if sha256 is not None:
        with (folder / WEIGHTS).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise Unfit("its weights are not the ones that were published")
    part = target.with_name(f".{target.name}.part")
    writer = GGUFWriter(part, "bert")
    try:
        _describe(writer, folder, target.stem)
        _add_tensors(writer, folder / WEIGHTS)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _describe(writer: GGUFWriter, folder: Path, name: str) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise Unfit("its files are those of another architecture")
    pooling: dict[str, Any] = json.loads((folder / "1_Pooling" / "config.json").read_bytes())
    writer.add_name(name)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN if pooling["pooling_mode_mean_tokens"] else PoolingType.CLS)
    # Not splitlines: some of the words are line ends to Unicode.
    _describe_words(writer, (folder / "vocab.txt").read_text("utf-8").removesuffix("\n").split("\n"))
    writer.add_token_type_count(config["type_vocab_size"])


def _describe_words(writer: GGUFWriter, words: list[str]) -> None:
    """llama.cpp marks what begins a word, BERT what goes on with one."""
    kinds = [
        TokenType.CONTROL if word in _CONTROL else TokenType.UNUSED if _is_unused(word) else TokenType.NORMAL
        for word in words
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_list(
        [
            word if kind != TokenType.NORMAL else word[2:] if word.startswith("##") else f"\u2581{word}"
            for word, kind in zip(words, kinds, strict=True)
        ]
    )
    writer.add_token_types(kinds)
    pad, unknown, begin, end, mask = (words.index(word) for word in _CONTROL)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_sep_token_id(end)
    writer.add_mask_token_id(mask)


def _add_tensors(writer: GGUFWriter, weights: Path) -> None:
    with safe_open(weights, "np") as file:
        for given in file.keys():  # noqa: SIM118  it is no mapping
            name, _, kind = given.removeprefix("bert.").rpartition(".")
            layer = _layer(name)
            ours = _LAYER_TENSORS.get(layer[2]) if layer else _TENSORS.get(name)
            if ours is None:
                continue  # the pooler, which sentence vectors are not made with, and the positions' numbers
            numbers = file.get_tensor(given).astype(np.float32)
            full_name = f"blk.{layer[1]}.{ours}.{kind}" if layer else f"{ours}.{kind}"
            if numbers.ndim == 1 or ours in _EXACT:
                writer.add_tensor(full_name, numbers)
            else:
                kept = GGMLQuantizationType.Q8_0
                writer.add_tensor(full_name, quantize(numbers, kept), raw_dtype=kept)


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
