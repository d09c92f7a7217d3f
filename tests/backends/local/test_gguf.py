"""The GGUF reader on the real file, and on files that lie."""

import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.local import gguf
from tests.backends.local.bench import model_path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, dimensions: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


def file(*parts: bytes, keys: int = 0, tensors: int = 0, version: int = 3, data: int = 0) -> bytes:
    """A file of these parts, claiming so many keys and tensors."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)
    return head + bytes(-len(head) % 32 + data)


def read(tmp_path: Path, content: bytes) -> gguf.Header:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return gguf.read(path)


def test_the_embedded_model_says_what_it_is_in_under_25_ms() -> None:
    gguf.read(model_path())
    began = time.process_time()  # others may keep this machine busy
    header = gguf.read(model_path())
    took_s = time.process_time() - began
    assert header.architecture == "llama"
    assert header.name == "Smollm2 135M 8k Lc100K Mix1 Ep2"
    assert header.context_length == 8192
    assert header.quantization == "Q4_1"
    assert header.parameters == 134_515_008
    assert header.size_bytes == 98_362_432
    assert header.kv_bytes_per_token == 23_040
    assert (header.chat_template, header.tools, header.embeds, header.truncated) == (True, False, False, False)
    assert took_s < 0.025


def test_a_file_cut_in_its_tensors_is_truncated(tmp_path: Path) -> None:
    assert read(tmp_path, model_path().read_bytes()[:9_000_000]).truncated
    whole = file(tensor("w", (32, 2), kind=8), tensors=1, data=68)
    assert not read(tmp_path, whole).truncated
    assert read(tmp_path, whole[:-1]).truncated


def test_a_type_that_is_not_known_takes_a_bit_for_each_number_at_least_and_is_told_of(tmp_path: Path) -> None:
    content = file(tensor("w", (1024,), kind=99), tensors=1, data=128)
    assert (read(tmp_path, content).truncated, read(tmp_path, content).unsure) == (False, True)
    assert read(tmp_path, content[:-1]).truncated


def test_a_header_longer_than_what_is_read_at_a_time_is_read(tmp_path: Path) -> None:
    words = [text("w" * (n % 60)) for n in range(60_000)]
    keys = [
        key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(words)) + b"".join(words)),
        key("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, len(words)) + bytes(4 * len(words))),
        key("tokenizer.chat_template", 8, text("x" * 3_000_000)),
        key("general.architecture", 8, text("llama")),
    ]
    assert sum(map(len, keys)) > 4 * gguf.READ_BYTES
    header = read(tmp_path, file(*keys, keys=len(keys)))
    assert (header.architecture, header.vocabulary, header.chat_template) == ("llama", 60_000, True)


def test_a_file_that_becomes_shorter_while_it_is_read_is_cut_off_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(model_path().read_bytes()[:9_000_000])
    read_at = os.pread

    def pread(file: int, size: int, at: int) -> bytes:
        if at:
            os.truncate(path, at)
        return read_at(file, size, at)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(ValueError, match="cut off"):
        gguf.read(path)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="regular"):
            gguf.read(path)


def test_a_file_cut_in_its_header_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    head = model_path().read_bytes()[:4096]
    for length in range(0, 4096, 97):
        with pytest.raises(ValueError, match=r"GGUF|empty"):
            read(tmp_path, head[:length])


def test_keys_of_every_kind_are_read(tmp_path: Path) -> None:
    keys = [
        key("general.architecture", 8, text("qwen3")),
        key("qwen3.context_length", 10, struct.pack("<Q", 40_960)),
        key("qwen3.block_count", 4, struct.pack("<I", 2)),
        key("qwen3.attention.head_count_kv", 9, struct.pack("<IQ2i", 5, 2, 1, 3)),
        key("qwen3.attention.key_length", 4, struct.pack("<I", 128)),
        key("qwen3.attention.value_length", 4, struct.pack("<I", 64)),
        key("tokenizer.chat_template", 8, text("{% if tools %}…{% endif %}")),
        key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 5000) + text("t") * 5000),
        key("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 5000) + bytes(20_000)),
        key("general.file_type", 4, struct.pack("<I", 15)),
    ]
    header = read(tmp_path, file(*keys, keys=len(keys)))
    assert (header.architecture, header.context_length, header.quantization) == ("qwen3", 40_960, "Q4_K_M")
    assert header.kv_bytes_per_token == (1 + 3) * (128 + 64) * 2
    assert (header.tools, header.thinks) == (True, False)


@pytest.mark.parametrize(
    "template", ["{% if enable_thinking %}", "<think>\n", "{{ message.reasoning_content }}", "<|channel|>"]
)
def test_a_template_with_a_place_for_thoughts_is_known(tmp_path: Path, template: str) -> None:
    keys = [key("general.architecture", 8, text("qwen3")), key("tokenizer.chat_template", 8, text(template))]
    assert read(tmp_path, file(*keys, keys=len(keys))).thinks


def test_a_model_that_pools_makes_embeddings(tmp_path: Path) -> None:
    assert read(tmp_path, file(key("general.architecture", 8, text("bert")), keys=1)).embeds


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(100),
        file(version=1),
        file(keys=2**63),
        file(tensors=2**40),
        file(keys=3),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**64 - 1) + bytes(64),
        file(key("k", 8, struct.pack("<Q", 2**63)), keys=1),
        file(key("k", 9, struct.pack("<IQ", 10, 2**60)), keys=1),
        file(key("k", 9, struct.pack("<IQ", 8, 2**25)), keys=1),
        file(key("k", 9, struct.pack("<IQ", 9, 2) + struct.pack("<IQ", 9, 1) * 2), keys=1),
        file(key("k", 99, b""), keys=1),
        file(key("general.alignment", 4, struct.pack("<I", 0)), keys=1),
        file(tensor("w", (2**40, 2**40)), tensors=1),
        file(tensor("w", (1,) * 9), tensors=1),
        file(key("general.alignment", 6, struct.pack("<f", float("nan"))), keys=1),
        file(key("general.alignment", 4, struct.pack("<I", 48)), keys=1),
        file(tensor("a", (32,), offset=0), tensor("b", (32,), offset=64), tensors=2, data=1000),
    ],
)
def test_a_file_that_lies_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"GGUF|empty"):
        read(tmp_path, content)
    assert time.process_time() - began < 1


def test_a_vocabulary_without_end_is_stepped_over_for_a_while_only(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for texts in (gguf.TEXTS_MAX, gguf.TEXTS_MAX + 1):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key("k", 9, struct.pack("<IQ", 8, texts)))
        os.truncate(path, 60 << 20)
        began = time.process_time()
        if texts > gguf.TEXTS_MAX:
            with pytest.raises(ValueError, match="texts"):
                gguf.read(path)
        else:
            gguf.read(path)
        assert time.process_time() - began < 1


HEAD = file(
    key("general.architecture", 8, text("llama")),
    key("llama.context_length", 4, struct.pack("<I", 2048)),
    key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2000) + text("t") * 2000),
    tensor("w", (32, 2), kind=8),
    keys=3,
    tensors=1,
    data=68,
)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 3000), value=st.binary(min_size=1, max_size=9))
def test_any_damage_ends_in_a_header_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes
) -> None:
    content = bytearray(HEAD)
    content[at : at + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content)
    try:
        gguf.read(path)
    except ValueError:
        return


@pytest.mark.parametrize("count", [63, 64, 65, 1000])
def test_texts_of_every_length_are_stepped_over(tmp_path: Path, count: int) -> None:
    words = [text("x" * (n % 60 if n % 7 else n)) for n in range(count)]
    many = key("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, count) + b"".join(words))
    whole = file(many, key("general.architecture", 8, text("llama")), keys=2)
    assert read(tmp_path, whole).architecture == "llama"
    with pytest.raises(ValueError, match="cut off"):
        read(tmp_path, whole[: whole.index(b"general.architecture") - 20])
