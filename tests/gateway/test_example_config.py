"""config.example.yaml is a promise: it loads, and it names every key there is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from backends import KINDS, settings_of
from backends.base import Timeouts
from backends.local.settings import ModelSettings
from gateway import config, settings
from gateway.routing.breaker import Rule

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.yaml.decode(EXAMPLE.read_bytes())
    return tree


def test_the_example_configuration_loads_as_it_is() -> None:
    loaded = config.load(EXAMPLE, {})
    assert set(loaded.backends) == {"local", "openai", "box2", "claude", "fake", "hf", "meshy", "scene"}


@pytest.mark.parametrize(
    ("path", "struct"),
    [
        ("", settings.File),
        ("server", settings.Server),
        ("server.tls", settings.Tls),
        ("database", settings.Database),
        ("auth", settings.Auth),
        ("limits", settings.Limits),
        ("limits.default", settings.Limit),
        ("breaker", Rule),
        ("telemetry", settings.Telemetry),
        ("models.smart", settings.ModelEntry),
        ("models.smart.timeouts", Timeouts),
        ("backends.local.models.qwen3-8b", ModelSettings),
    ],
)
def test_the_example_names_every_key_of_every_section(path: str, struct: type[Struct]) -> None:
    node = _tree()
    for part in filter(None, path.split(".")):
        node = node[part]
    assert set(struct.__struct_fields__) == set(node)


def test_the_example_names_every_key_of_a_configured_api_key() -> None:
    assert set(_tree()["auth"]["keys"][0]) == set(settings.Key.__struct_fields__)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_names_every_setting_of_every_kind_of_backend(kind: str) -> None:
    named = {key for entry in _tree()["backends"].values() if entry["kind"] == kind for key in entry} - {"kind"}
    own = set(type(settings_of(kind, {})).__struct_fields__)
    assert own == named - (set(settings.Terms.__struct_fields__) - own)


def test_the_example_names_every_setting_of_any_backend() -> None:
    assert set(settings.Terms.__struct_fields__) <= set(_tree()["backends"]["box2"])


def test_the_defaults_shown_in_the_example_are_the_defaults() -> None:
    tree = _tree()
    sections: dict[str, type[Struct]] = {
        "server": settings.Server,
        "limits": settings.Limits,
        "breaker": Rule,
        "telemetry": settings.Telemetry,
    }
    for section, struct in sections.items():
        shown = msgspec.convert(tree[section], struct)
        assert shown == struct()
    shown = settings_of(
        "local", {k: v for k, v in tree["backends"]["local"].items() if k not in ("kind", "model_dirs", "models")}
    )
    assert shown == settings_of("local", {})
    assert msgspec.convert(tree["models"]["smart"]["timeouts"], Timeouts) == Timeouts()


def test_the_readme_and_the_example_name_every_preset() -> None:
    from backends.presets import PRESETS

    text = EXAMPLE.read_text()
    assert [name for name in PRESETS if name not in text] == []
    assert f"{len(PRESETS)} presets" in (ROOT / "CHANGELOG.md").read_text()
