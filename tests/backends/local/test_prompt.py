"""Words become the same ids, whichever files a folder has."""

import json
from pathlib import Path

import pytest

from backends.local.studio.prompt import Prompts
from tests.backends.local.painting import FOLDER

TEXTS = ["", "a red circle on a white background", "A  ZEBRA, 12 dogs's café", "a green star " * 20]


def test_a_prompt_begins_ends_and_has_the_models_length() -> None:
    config = json.loads((FOLDER / "text_encoder" / "config.json").read_bytes())
    first, last = config["bos_token_id"], config["eos_token_id"]
    ids = Prompts(FOLDER / "tokenizer").read(*TEXTS)
    assert ids.shape == (4, config["max_position_embeddings"])
    assert set(ids[:, 0]) == {first}
    assert list(ids[0, 1:]) == [last] * (ids.shape[1] - 1)
    assert ids[3, -1] == last
    assert last not in ids[3, 1:-1]


def test_a_vocabulary_and_merges_read_like_the_ready_tokenizer(tmp_path: Path) -> None:
    ready = json.loads((FOLDER / "tokenizer" / "tokenizer.json").read_text())
    # Once written as pairs, once as words with a space between them.
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in ready["model"]["merges"]]
    special = {token["content"]: token["id"] for token in ready["added_tokens"]}
    (tmp_path / "vocab.json").write_text(json.dumps(ready["model"]["vocab"] | special))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = (FOLDER / "tokenizer" / "tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(config)
    assert (Prompts(tmp_path).read(*TEXTS) == Prompts(FOLDER / "tokenizer").read(*TEXTS)).all()


def test_files_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="tokenizer_config"):
        Prompts(tmp_path)
