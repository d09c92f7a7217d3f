"""Words as CLIP reads them: token ids of a fixed length, by a diffusers folder's own tokenizer files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_LENGTH = 77
"""What CLIP reads, where the files do not say."""


class Prompts:
    """The tokenizer of the model in a folder.  Raises OSError or ValueError when its files are missing or wrong."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        ready = folder / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(ready)) if ready.is_file() else _assembled(folder, config)
        # The older ones allow for more than the model reads, or for any number.
        length = min(int(config.get("model_max_length", _LENGTH)), _LENGTH)
        pad = _text(config.get("pad_token", "<|endoftext|>"))
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=self._tokenizer.token_to_id(pad) or 0, pad_token=pad)

    def read(self, *prompts: str) -> NDArray[np.int64]:
        """A row of ids for each prompt; what is too long is cut off."""
        return np.array([one.ids for one in self._tokenizer.encode_batch(list(prompts))], np.int64)


def _assembled(folder: Path, config: dict[str, Any]) -> Any:
    """CLIP's tokenizer from its vocabulary and merges, as most folders have it."""
    tokenizer = Tokenizer(
        models.BPE.from_file(
            str(folder / "vocab.json"),
            str(folder / "merges.txt"),
            end_of_word_suffix="</w>",
            unk_token=_text(config.get("unk_token", "<|endoftext|>")),
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    words = [_text(config.get(name, word)) for name, word in _ENDS.items()]
    first, last = ((word, tokenizer.token_to_id(word) or 0) for word in words)
    tokenizer.post_processor = processors.RobertaProcessing(last, first, False, False)
    return tokenizer


_ENDS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}


def _text(token: Any) -> str:
    """A special token's text; some files describe it at length."""
    return str(token["content"] if isinstance(token, dict) else token)
