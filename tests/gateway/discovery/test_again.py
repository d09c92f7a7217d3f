"""What is found once is kept, and laid over with what is registered, until folders are looked at again."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import decode
from gateway.discovery import headers
from gateway.estate import lay, scan
from gateway.findings import faults
from tests.gateway.discovery import found, write


def test_folders_are_looked_at_once_and_what_is_gone_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "models" / "one.gguf")
    tree: dict[str, Any] = {"data_dir": str(tmp_path / "data"), "backends": {"local": {"kind": "local"}}}
    tree["backends"]["local"]["model_dirs"] = [str(tmp_path / "models")]
    config = decode(tree, {})
    scanned = scan(config)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.estate.discover", None)  # nobody looks
        shipped = lay(config, scanned)["local"].keys() - {"one"}
        assert lay(config, scanned)["local"].keys() == {"one", *shipped}
        one.unlink()
        write(tmp_path / "models" / "two.gguf")
        assert lay(config, scanned)["local"].keys() == shipped
    assert lay(config, scan(config))["local"].keys() == {"two", *shipped}


def test_whoever_starts_with_many_new_files_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            assert event == "looking_at_models"
            told.append(fields)

    monkeypatch.setattr(headers, "MANY", 2)
    monkeypatch.setattr(headers, "TELL_S", 0.0)
    monkeypatch.setattr(headers, "logger", Log)
    (tmp_path / "data").mkdir()
    config = decode(
        {
            "data_dir": str(tmp_path / "data"),
            "backends": {"local": {"kind": "local", "model_dirs": [str(tmp_path / "models")]}},
        },
        {},
    )
    for n in range(4):
        write(tmp_path / "models" / f"m{n}.gguf")
    scan(config)
    assert told[-1] == {"done": 4, "of": 4}
    told.clear()
    scan(config)
    assert told == []


@pytest.mark.parametrize(
    "defaults",
    [
        {"n": 99}, {"n": 5}, {"seed": 10**400}, {"n_predict": -5}, {"cache_prompt": "banana"}, {"mirostat": 1.5},
        {"model": "x"}, {"stream": True}, {"messages": []}, {"prompt": "x"}, {"repeat_last_n": -2}, {"ignore_eos": 1},
        {"thinking_budget_tokens": 1.5}, {"xtc_probability": "x"}, {"json_schema": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_defaults_that_no_request_could_have_are_told_of_by_name(tmp_path: Path, defaults: dict[str, Any]) -> None:
    write(tmp_path / "one.gguf")
    [fault] = faults(found(tmp_path)["one"], defaults)
    assert fault.startswith(f"{next(iter(defaults))}: ")
    good = {"n": 4, "seed": 7, "n_predict": -1, "cache_prompt": False, "mirostat": 2, "top_n_sigma": 1.5}
    assert faults(found(tmp_path)["one"], good) == []
