"""What is found in the model folders, and what is refused there."""

import os
import socket
import struct
from pathlib import Path

import pytest

from backends.local.settings import ModelSettings
from gateway.discovery import at, discover
from gateway.discovery.problem import Problem
from tests.gateway.discovery import found, kinds, pipeline, sentences, told, write


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
    [problem] = told(tmp_path)
    assert (problem.kind, problem.path) == ("incomplete", str(parts[0]))
    assert f"1 of its 3 parts are not here: {parts[1].name}" in problem.reason


def test_a_part_that_is_cut_off_takes_its_model_along(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"big-0000{n}-of-00003.gguf") for n in (1, 2, 3)]
    os.truncate(parts[2], parts[2].stat().st_size - 64)
    assert found(tmp_path) == {}
    assert kinds(tmp_path) == {parts[2].name: "truncated"}


def test_parts_without_their_first_are_told_of_once(tmp_path: Path) -> None:
    for n in (2, 3):
        write(tmp_path / f"big-0000{n}-of-00003.gguf")
    write(tmp_path / "vast-00001-of-99999.gguf")
    write(tmp_path / "odd-00009-of-00003.gguf")
    assert found(tmp_path) == {}
    assert kinds(tmp_path) == {
        "big-00002-of-00003.gguf": "incomplete",
        "vast-00001-of-99999.gguf": "unreadable",
        "odd-00009-of-00003.gguf": "unreadable",
    }


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


def test_a_pipeline_is_a_folder(tmp_path: Path) -> None:
    pipeline(tmp_path / "Stable", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    pipeline(tmp_path / "graphs", onnx=True, unet=["optimum.onnxruntime.modeling_diffusion", "ORTModelUnet"])
    pipeline(tmp_path / "models--openai--shap-e" / "snapshots" / "a1b2", "ShapEPipeline", unet=["shap_e", "X"])
    size = (tmp_path / "Stable" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    models = found(tmp_path)
    assert models["stable"].model.parameters == 30
    assert {name: (local.format, local.model.modality, local.model.size_bytes) for name, local in models.items()} == {
        "stable": ("diffusers", "image", 3 * size),
        "graphs": ("onnx", "image", 30),
        "shap-e": ("diffusers", "3d", 3 * size),
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
    [problem] = told(tmp_path)
    assert reason in problem.reason
    assert problem.kind == ("unsafe" if reason not in ("not a JSON object", "too large") else "unreadable")


def test_a_pipeline_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "empty")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    [problem] = told(tmp_path)
    assert "no weights in safetensors" in problem.reason


def test_what_cannot_be_read_harms_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<I", 3))
    cut = write(tmp_path / "cut.gguf")
    os.truncate(cut, cut.stat().st_size - 64)
    assert set(found(tmp_path)) == {"good"}
    assert kinds(tmp_path) == {"bad.gguf": "unreadable", "cut.gguf": "truncated"}


def test_nothing_outside_the_folder_is_taken(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "secret.gguf")
    folder = pipeline(tmp_path / "outside" / "drawn")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.gguf").symlink_to(outside)
    (inside / "drawn").symlink_to(folder, target_is_directory=True)
    assert found(inside) == {}
    assert kinds(inside) == {"link.gguf": "outside", "drawn": "outside"}


def test_a_pipeline_of_which_a_part_lies_elsewhere_is_not_served(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "inside" / "drawn")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    assert found(tmp_path / "inside") == {}
    assert kinds(tmp_path / "inside") == {"drawn/unet/diffusion_pytorch_model.safetensors": "outside"}


def test_a_link_inside_the_folder_is_a_second_name(tmp_path: Path) -> None:
    write(tmp_path / "store" / "one.gguf")
    (tmp_path / "other.gguf").symlink_to("store/one.gguf")
    (tmp_path / "again").symlink_to("store")
    (tmp_path / "round").symlink_to(".")
    assert set(found(tmp_path)) == {"one", "other"}
    assert told(tmp_path) == []


def test_what_is_no_file_is_told_of_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path / "good.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")  # whoever opens it waits for ever
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.gguf"))
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "self.gguf").symlink_to("self.gguf")
    (tmp_path / "gone.gguf").symlink_to("nothing.gguf")
    assert set(found(tmp_path)) == {"good"}
    assert kinds(tmp_path) == {
        "pipe.gguf": "special",
        "s.gguf": "special",
        "empty.gguf": "empty",
        "self.gguf": "unreadable",
        "gone.gguf": "unreadable",
    }
    listener.close()
    problems: list[Problem] = []
    assert at("local", tmp_path / "pipe.gguf", problems=problems) is None
    assert [(Path(problem.path).name, problem.kind) for problem in problems] == [("pipe.gguf", "special")]


def test_names_that_nobody_could_ask_for_are_told_of_in_words_that_can_be_sent(tmp_path: Path) -> None:
    made = write(tmp_path / "good.gguf").read_bytes()
    for name in (b"two\nlines.gguf", b"latin-\xe9.gguf", b"bell\x07.gguf"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(made)
    assert set(found(tmp_path)) == {"good"}
    problems = told(tmp_path)
    assert {problem.kind for problem in problems} == {"unreadable"}
    assert sorted(Path(problem.path).name for problem in problems) == [
        "bell\\x07.gguf", "latin-\\xe9.gguf", "two\\nlines.gguf",
    ]  # fmt: skip


def test_two_of_one_name_are_one_model_and_a_report(tmp_path: Path) -> None:
    write(tmp_path / "a" / "same.gguf")
    write(tmp_path / "b" / "same.gguf")
    assert found(tmp_path)["same"].path == str(tmp_path / "a" / "same.gguf")
    assert kinds(tmp_path) == {"b/same.gguf": "duplicate"}
    # A folder named twice is no second model.
    problems: list[Problem] = []
    discover("local", [str(tmp_path / "a"), str(tmp_path / "a")], tmp_path, {}, problems)
    assert problems == []


def test_what_may_still_be_growing_is_not_told_of_where_it_is_looked_at_again(tmp_path: Path) -> None:
    cut = write(tmp_path / "cut.gguf")
    os.truncate(cut, cut.stat().st_size - 64)
    problems: list[Problem] = []
    discover("local", [str(tmp_path)], tmp_path, {}, problems, patient=True)
    assert problems == []
    os.utime(cut, (cut.stat().st_mtime - 10, cut.stat().st_mtime - 10))
    discover("local", [str(tmp_path)], tmp_path, {}, problems, patient=True)
    assert [problem.kind for problem in problems] == ["truncated"]


def test_ten_thousand_files_are_no_trouble(tmp_path: Path) -> None:
    for n in range(10_000):
        (tmp_path / f"{n}.txt").touch()
    write(tmp_path / "one.gguf")
    assert set(found(tmp_path)) == {"one"}


def test_safetensors_are_made_into_gguf_where_they_are_sentence_vectors_and_told_of_where_not(tmp_path: Path) -> None:
    sentences(tmp_path / "Mini-Vectors")
    sentences(tmp_path / "other-bert", hidden_act="relu")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(bytes(10))
    [local] = found(tmp_path).values()
    assert (local.name, local.made_from) == ("mini-vectors", str(tmp_path / "Mini-Vectors"))
    assert (local.model.modality, local.model.context_length, local.model.parameters) == ("embedding", 128, 3200)
    assert kinds(tmp_path) == {"other-bert": "unreadable", "pickled": "unsafe"}


def test_one_model_is_found_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path / "gemma-3-4b.gguf")
    write(tmp_path / "other.gguf")
    write(tmp_path / "mmproj-gemma-3-4b-f16.gguf", "clip")
    local = at("local", tmp_path / "gemma-3-4b.gguf", name="eye")
    assert local is not None
    assert (local.name, local.model.id, local.model.parameters) == ("eye", "local/eye", 256)
    assert local.projector == str(tmp_path / "mmproj-gemma-3-4b-f16.gguf")
    assert at("local", pipeline(tmp_path / "drawn"), name="x") is not None
    problems: list[Problem] = []
    assert at("local", tmp_path / "nothing.gguf", problems=problems) is None
    assert at("local", sentences(tmp_path / "words"), problems=problems) is None
    assert [problem.kind for problem in problems] == ["unreadable"]


def test_one_model_with_a_link_out_of_its_root_is_refused(tmp_path: Path) -> None:
    root, away = tmp_path / "models", tmp_path / "away"
    write(away / "secret.gguf")
    write(away / "mmproj-eye.gguf", "clip")
    write(root / "eye.gguf")
    good = write(root / "blobs" / "good")
    (root / "good.gguf").symlink_to(good)
    (root / "out.gguf").symlink_to(away / "secret.gguf")
    (root / "mmproj-eye.gguf").symlink_to(away / "mmproj-eye.gguf")
    (root / "folder").mkdir()
    (root / "folder" / "m.gguf").symlink_to(away / "secret.gguf")
    (root / "way").symlink_to(away)
    for name in ("out.gguf", "folder", "way", "way/secret.gguf", "../away/secret.gguf"):
        problems: list[Problem] = []
        assert at("local", root / name, problems=problems, inside=[tmp_path / "x", root]) is None, name
        assert [problem.kind for problem in problems] == ["outside"], name
    assert at("local", root / "good.gguf", inside=[root]) is not None
    seeing = at("local", root / "eye.gguf", problems=(problems := []), inside=[root])
    assert seeing is not None
    assert (seeing.projector, [problem.kind for problem in problems]) == (None, ["outside"])
    # Where nothing is said of roots, links are followed.
    assert at("local", root / "out.gguf") is not None
