"""Models that cannot be run until somebody mends them: told in words, not tried in vain, and noticed when mended."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from gguf import GGUFWriter

from backends.local import LocalBackend, Settings, connect, inspection
from backends.local.settings import Adapter, ModelSettings
from backends.local.verdict import verdict
from backends.ports import Local, Ports
from compat.canonical.error import EngineFailed, GatewayError, InsufficientMemory, ModelUnavailable
from compat.canonical.model import Model
from tests.backends.local.bench import call, model_path, smollm
from tests.backends.local.painting import disc, png, shapes, started, told, wish


def house(local: Local, **settings: object) -> LocalBackend:
    given = Settings(**{"threads": 1, "context_max": 512, **settings})  # type: ignore[arg-type]
    return connect("local", given, Ports(catalogue=lambda: {local.name: local}))


async def refused(backend: LocalBackend, model: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await backend.load(model, call())
    return caught.value


def strange(path: Path) -> Local:
    """A GGUF of an architecture that there is not."""
    writer = GGUFWriter(path, "nonesuch")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Local(name="smol", path=str(path), model=Model(name="smol", backend="local"))


async def test_an_unknown_architecture_is_named_and_loaded_again_only_when_its_file_is_another(tmp_path: Path) -> None:
    backend = house(strange(tmp_path / "strange.gguf"))
    try:
        for _ in range(3):
            error = await refused(backend, "smol")
            assert isinstance(error, ModelUnavailable)
            assert "does not know its architecture 'nonesuch'" in error.message
            assert str(tmp_path) not in error.message
        told = backend.standing("smol")
        assert (told["status"], told["failure"]["retry_at"], told["failure"]["failures"]) == ("failed", None, 1)
        shutil.copy(model_path(), tmp_path / "strange.gguf")
        await backend.load("smol", call())
        assert backend.standing("smol")["failure"] is None
    finally:
        await backend.aclose()


async def test_a_file_that_is_gone_is_missed_and_one_that_is_back_is_found(tmp_path: Path) -> None:
    path = tmp_path / "smol.gguf"
    local = Local(name="smol", path=str(path), model=Model(name="smol", backend="local"))
    backend = house(local)
    try:
        for _ in range(2):
            error = await refused(backend, "smol")
            assert isinstance(error, ModelUnavailable)
            assert error.message == "A file of model 'smol' is not there."
        assert backend.pool.status("smol") == "failed"
        assert backend.counts()["crashes"] == 0
        os.symlink(model_path(), path)
        await backend.load("smol", call())
    finally:
        await backend.aclose()


async def test_an_adapter_that_is_not_there_is_missed(tmp_path: Path) -> None:
    adapters = (Adapter(path=str(tmp_path / "none.gguf")),)
    backend = house(smollm(), models={"smol": ModelSettings(adapters=adapters)})
    try:
        error = await refused(backend, "smol")
        assert isinstance(error, ModelUnavailable)
        assert error.message == "A file that adapters of model 'smol' names is not there."
    finally:
        await backend.aclose()


async def test_what_is_not_installed_is_told_before_there_is_a_thought_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = house(shapes(), memory_max="1MiB")
    try:
        monkeypatch.setattr(inspection, "lacking", lambda _: "pip install 'pluggably[image]'")
        error = await refused(backend, "shapes")
        assert isinstance(error, ModelUnavailable)
        assert error.message.endswith("which is not installed here: pip install 'pluggably[image]'.")
        # Installed meanwhile, it is found; and a picture's model has no context to be lowered.
        monkeypatch.setattr(inspection, "lacking", lambda _: None)
        error = await refused(backend, "shapes")
        assert isinstance(error, InsufficientMemory)
        assert error.message.endswith("(memory_max). Raise memory_max, or take a smaller model.")
    finally:
        await backend.aclose()


async def test_what_an_engine_fails_at_is_written_down_for_operators(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that loads and cannot be computed: what should read pictures wants something else."""
    folder = tmp_path / "shapes"
    shutil.copytree(shapes().path, folder)
    shutil.copy(folder / "vae_decoder" / "model.onnx", folder / "vae_encoder" / "model.onnx")
    async with started(shapes(path=folder)) as backend:
        with caplog.at_level(logging.WARNING), pytest.raises(EngineFailed) as caught:
            await told(backend, wish(size="64x64", images=(png(disc()),)))
        assert not caught.value.retryable
        (record,) = [one for one in caplog.records if one.message == "engine_failed"]
        fields = vars(record)
        assert (fields["backend"], fields["model"], fields["code"]) == ("local", "shapes", "engine_failed")
        assert fields["log"].startswith("Traceback")
        assert backend.pool.status("shapes") == "ready"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("error loading model: unknown model architecture: 'zork'", "the engine does not know its architecture 'zork'"),
        ("gguf: GGUFv1 is no longer supported, please", "the engine does not read its version of GGUF"),
        ("check_tensor_dims: tensor 'output.weight' not found", "its file lacks the tensor 'output.weight'"),
        ("tensor 'a.b' data is not within the file bounds, model is corrupted", "its file is corrupt or incomplete"),
        ("failed to load lora adapter '/srv/secret/a.gguf'", "one of its adapters cannot be used with it"),
        (
            "ModuleNotFoundError: No module named 'sentencepiece'",
            "the Python package 'sentencepiece' is not installed here",
        ),
        ("unknown model architecture: '/srv/secret'", None),
        ("failed to load model '/srv/secret.gguf'", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_only_known_words_of_an_engine_are_told(line: str, words: str | None) -> None:
    assert verdict(["loading …", line]) == words
