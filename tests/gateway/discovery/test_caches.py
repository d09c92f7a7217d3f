"""Models in the caches of Hugging Face, Ollama and LM Studio are served from where they lie."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import openai
import pytest

from backends.local.settings import Cache
from backends.ports import Local
from gateway import embedded
from gateway.discovery import caches, discover
from gateway.discovery.problem import Problem
from tests.gateway.discovery import pipeline, sentences, write
from tests.process import gateway

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home folder, with nothing said in the environment."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def adopted(*adopt: Cache, folders: Iterable[Path] = (), problems: list[Problem] | None = None) -> dict[str, Local]:
    data = Path("/nonexistent")
    found = discover("local", map(str, folders), data, {}, problems, adopt=adopt)
    return {name: local for name, local in found.items() if name not in discover("local", [], data, {})}


def cached(hub: Path, repo: str, commit: str, made: Path, *, main: bool = False) -> Path:
    """Put a file into Hugging Face's cache as its library does: a blob, and a link to it."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(made.read_bytes() + made.name.encode()).hexdigest()
    link = folder / "snapshots" / commit / made.name
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    made.rename(blob)
    link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return link


def test_what_lies_in_hugging_faces_cache_has_its_repository_and_commit(home: Path, tmp_path: Path) -> None:
    hub = home / ".cache" / "huggingface" / "hub"
    cached(hub, "org/Tiny-GGUF", COMMITS[0], write(tmp_path / "Tiny-Q8_0.gguf"))
    newer = cached(hub, "org/Tiny-GGUF", COMMITS[1], write(tmp_path / "Tiny-Q8_0.gguf", width=128), main=True)
    cached(hub, "org/Tiny-GGUF", COMMITS[0], write(tmp_path / "Tiny-Q4_0.gguf"))
    pipeline(hub / "models--org--Draws" / "snapshots" / COMMITS[0])
    sentences(hub / "models--org--Vectors" / "snapshots" / COMMITS[0])
    assert not huggingface_hub.scan_cache_dir(hub).warnings
    problems: list[Problem] = []
    models = adopted("huggingface", problems=problems)
    assert {name: (local.model.source, local.model.version) for name, local in models.items()} == {
        "tiny-q8_0": ("huggingface:org/Tiny-GGUF", COMMITS[1]),
        "tiny-q4_0": ("huggingface:org/Tiny-GGUF", COMMITS[0]),
        "draws": ("huggingface:org/Draws", COMMITS[0]),
        "vectors": ("huggingface:org/Vectors", COMMITS[0]),
    }
    assert models["tiny-q8_0"].path == str(newer)
    assert (models["vectors"].path, problems) == (models["vectors"].path, [])
    assert "/models/made/vectors-" in models["vectors"].path


def test_a_link_out_of_hugging_faces_cache_is_not_followed(home: Path, tmp_path: Path) -> None:
    hub = home / ".cache" / "huggingface" / "hub"
    link = hub / "models--org--evil" / "snapshots" / COMMITS[0] / "evil.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(write(tmp_path / "secret.gguf"))
    problems: list[Problem] = []
    assert adopted("huggingface", problems=problems) == {}
    assert [problem.kind for problem in problems] == ["outside"]


def test_another_program_models_of_other_kinds_are_no_problem(home: Path) -> None:
    sentences(home / ".cache/huggingface/hub/models--org--speech/snapshots" / COMMITS[0], model_type="whisper")
    problems: list[Problem] = []
    assert (adopted("huggingface", problems=problems), problems) == ({}, [])


def blob(store: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(content)
    return f"sha256:{digest}"


def layers(store: Path, **contents: bytes) -> dict[str, Any]:
    """A manifest as Ollama writes it, with its files in the store."""
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": blob(store, b"{}")},
        "layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": blob(store, content), "size": len(content)}
            for kind, content in contents.items()
        ],
    }


def manifest(store: Path, name: str, content: Any, root: str = "manifests") -> Path:
    path = store / root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content).encode())
    return path


def test_what_ollama_has_pulled_is_named_as_there_and_set_as_there(home: Path, tmp_path: Path) -> None:
    store, made = home / ".ollama" / "models", write(tmp_path / "x.gguf").read_bytes()
    eye = write(tmp_path / "eye.gguf", "clip").read_bytes()
    said = {"temperature": 0.6, "top_p": 0.95, "stop": ["<|end|>"], "num_ctx": 2048, "num_predict": 100, "num_gpu": 1}
    params = json.dumps({**said, "seed": "no number", "mirostat": True}).encode()
    tiny = layers(store, model=made, params=params, template=b"{{ .Prompt }}", license=b"MIT")
    manifest(store, "registry.ollama.ai/library/Tiny/latest", tiny)
    manifest(store, "registry.ollama.ai/library/tiny/1b-q8_0", layers(store, model=made, projector=eye))
    manifest(store, "registry.ollama.ai/someone/tiny/latest", layers(store, model=made))
    manifest(store, "hf.co/org/repo/Q8_0", layers(store, model=made))
    models = adopted("ollama")
    assert {name: local.model.source for name, local in models.items()} == {
        "tiny": "ollama:Tiny:latest",
        "tiny-1b-q8_0": "ollama:tiny:1b-q8_0",
        "someone-tiny": "ollama:someone/tiny:latest",
        "repo-q8_0": "ollama:hf.co/org/repo:Q8_0",
    }
    tiny_model = models["tiny"]
    assert tiny_model.path == str(store / "blobs" / f"sha256-{hashlib.sha256(made).hexdigest()}")
    assert tiny_model.defaults == {"temperature": 0.6, "top_p": 0.95, "stop": ["<|end|>"], "max_tokens": 100}
    assert (tiny_model.model.context_length, models["someone-tiny"].model.context_length) == (2048, 4096)
    assert (models["tiny-1b-q8_0"].projector or "").startswith(str(store / "blobs"))
    assert "vision" in models["tiny-1b-q8_0"].model.capabilities


def test_ollamas_newer_store_and_lists_for_several_engines_are_read(home: Path, tmp_path: Path) -> None:
    store, made = home / ".ollama" / "models", write(tmp_path / "x.gguf").read_bytes()
    child = {**layers(store, model=made), "runner": "ollama", "format": "gguf"}
    reference = {"mediaType": child["mediaType"], "digest": blob(store, json.dumps(child).encode()), "runner": "ollama"}
    other = {**layers(store, tensor=b"x"), "runner": "mlx"}
    both = {"schemaVersion": 2, "mediaType": "application/vnd.ollama.manifest.list.v2+json"}
    digest = blob(store, json.dumps({**both, "manifests": [other, reference]}).encode())
    link = store / "manifests-v2" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(store / "blobs" / digest.replace(":", "-"), link.parent))
    manifest(store, "registry.ollama.ai/library/tiny/latest", "an older one, which does not count")
    manifest(store, "registry.ollama.ai/library/apple/latest", other)
    problems: list[Problem] = []
    assert set(adopted("ollama", problems=problems)) == {"tiny"}
    assert problems == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layers": 7}, "not what it should be"),
        ({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc"}]}, "its hash"),
        ({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64}]}, "not here"),
    ],
)
def test_a_manifest_that_lies_is_told_of(home: Path, change: dict[str, Any], reason: str) -> None:
    store = home / ".ollama" / "models"
    manifest(store, "registry.ollama.ai/library/bad/latest", layers(store) | change)
    problems: list[Problem] = []
    assert adopted("ollama", problems=problems) == {}
    assert reason in problems[0].reason


def test_what_only_ollama_can_put_together_is_told_of(home: Path, tmp_path: Path) -> None:
    store, made = home / ".ollama" / "models", write(tmp_path / "x.gguf").read_bytes()
    manifest(store, "registry.ollama.ai/library/tuned/latest", layers(store, model=made, adapter=b"lora"))
    manifest(store, "registry.ollama.ai/library/cut/latest", layers(store, model=made[:-64]))
    problems: list[Problem] = []
    assert adopted("ollama", problems=problems) == {}
    assert sorted(problem.kind for problem in problems) == ["truncated", "unreadable"]


def test_what_lies_in_lm_studios_folder_has_its_publisher(home: Path, tmp_path: Path) -> None:
    write(home / ".lmstudio" / "models" / "someone" / "Tiny-GGUF" / "Tiny-Q8_0.gguf")
    assert adopted("lmstudio")["tiny-q8_0"].model.source == "lmstudio:someone/Tiny-GGUF"
    write(tmp_path / "moved" / "models" / "a" / "b" / "other.gguf")
    (home / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'moved'}\n")
    assert set(adopted("lmstudio")) == {"other"}


def test_a_name_that_is_taken_gets_its_publisher_before_it_or_is_told_of(home: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine" / "tiny.gguf")
    hub, studio = home / ".cache" / "huggingface" / "hub", home / ".lmstudio" / "models"
    for repo in ("one/tiny", "two/tiny"):
        cached(hub, repo, COMMITS[0], write(tmp_path / "tiny.gguf"))
    write(studio / "pub" / "a" / "tiny.gguf")
    write(studio / "pub" / "b" / "tiny.gguf")
    problems: list[Problem] = []
    models = adopted("huggingface", "lmstudio", folders=[mine.parent], problems=problems)
    assert set(models) == {"tiny", "one-tiny-tiny", "two-tiny-tiny", "pub-tiny"}
    assert models["tiny"].path == str(mine)
    assert models["one-tiny-tiny"].model.id == "local/one-tiny-tiny"
    assert [(problem.kind, Path(problem.path).parent.name) for problem in problems] == [("duplicate", "b")]


def test_the_same_files_adopted_and_named_as_a_folder_are_one_model(home: Path) -> None:
    studio = home / ".lmstudio" / "models"
    write(studio / "pub" / "a" / "tiny.gguf")
    problems: list[Problem] = []
    assert set(adopted("lmstudio", folders=[studio], problems=problems)) == {"tiny"}
    assert problems == []


def test_adopted_models_answer_from_where_they_lie(home: Path, tmp_path: Path) -> None:
    shipped = embedded.models("local", tmp_path)
    text, vectors = Path(shipped["smollm2-135m-instruct"].path), Path(shipped["all-minilm-l6-v2"].made_from or "")
    store, hub = tmp_path / "ollama", tmp_path / "hub"
    pulled = layers(store, params=b'{"temperature": 0, "num_predict": 5, "stop": ["<|im_end|>"]}')
    digest = f"sha256-{hashlib.sha256(text.read_bytes()).hexdigest()}"
    (store / "blobs" / digest).symlink_to(shutil.copyfile(text, store / "weights"))
    pulled["layers"].append({"mediaType": "application/vnd.ollama.image.model", "digest": digest})
    manifest(store, "registry.ollama.ai/library/tiny/latest", pulled)
    shutil.copytree(vectors, hub / "models--org--Words" / "snapshots" / COMMITS[0])
    before = sorted(path for path in tmp_path.rglob("*"))
    local = {"kind": "local", "threads": 1, "slots": 1, "context_max": 512, "adopt": ["huggingface", "ollama"]}
    environ = {"OLLAMA_MODELS": str(store), "HF_HUB_CACHE": str(hub)}
    (tmp_path / "gateway").mkdir()
    with gateway(tmp_path / "gateway", {"backends": {"local": local}}, environ) as running:
        sdk = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        said = sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Count to ten."}])
        assert said.usage is not None
        assert said.usage.completion_tokens == 5
        words = ["a cat", "a kitten", "a tax form"]
        one, like, unlike = (row.embedding for row in sdk.embeddings.create(model="words", input=words).data)
        assert np.dot(one, like) > np.dot(one, unlike)
        [listed] = [model for model in sdk.models.list() if model.id == "local/words"]
        assert listed.model_dump()["source"] == "huggingface:org/Words"
    assert sorted(path for path in tmp_path.rglob("*") if "gateway" not in path.parts) == before


def test_caches_are_where_their_own_programs_look(home: Path) -> None:
    every: tuple[Cache, ...] = ("huggingface", "ollama", "lmstudio")
    assert caches.roots(every) == {
        "huggingface": home / ".cache/huggingface/hub",
        "ollama": home / ".ollama/models",
        "lmstudio": home / ".lmstudio/models",
    }
    said = {"HOME": "/h", "OLLAMA_MODELS": "'/o'", "HF_HOME": "/hf", "XDG_CACHE_HOME": "/x"}
    assert caches.roots(every, said) == {
        "huggingface": Path("/hf/hub"),
        "ollama": Path("/o"),
        "lmstudio": Path("/h/.lmstudio/models"),
    }
    assert caches.roots(["huggingface"], {"HF_HUB_CACHE": "~/c", **said})["huggingface"] == Path("/h/c")
    assert caches.roots(["huggingface"], {"XDG_CACHE_HOME": "/x"})["huggingface"] == Path("/x/huggingface/hub")
    assert caches.roots([]) == {}
