"""How a model is run and what that takes: the ladder in words, the estimate, and what is remembered."""

from typing import Any

import pytest
from msgspec.structs import replace

from backends.local import devices, planning
from backends.local.engine import Engine, Name
from backends.local.planning import Plan, engine_of, plan
from backends.local.settings import Adapter, ModelSettings, Settings
from backends.local.worker import StudioSpec, TextSpec
from backends.ports import Local, Traits
from compat.canonical.model import Model

GIB = 2**30
ENGINE = Engine(name="xllamacpp", parallel=True, health_path="/health", pulse_path="/slots", counts_usage=True)
LOCAL = Local(
    name="m",
    path="m.gguf",
    traits=Traits(kv_bytes_per_token=23_040, layers=30, width=576, vocabulary=49_152, modified_ns=1),
    model=Model(name="m", backend="local", context_length=8192, size_bytes=98_362_432),
)


@pytest.fixture(autouse=True)
def a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "machine_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(devices, "may_be", lambda: False)


def planned(local: Local = LOCAL, rung: int = 0, engine: Engine = ENGINE, **settings: Any) -> Plan:
    found = plan(local, Settings(**settings), engine, None, rung)
    assert found is not None
    return found


def text(plan: Plan) -> TextSpec:
    assert isinstance(plan.spec, TextSpec)
    return plan.spec


def ladder(local: Local = LOCAL, **settings: Any) -> list[Plan]:
    plans: list[Plan] = []
    while (found := plan(local, Settings(**settings), ENGINE, None, len(plans))) is not None:
        plans.append(found)
    return plans


def test_a_context_is_what_the_model_has_and_the_configuration_allows() -> None:
    own = {"m": ModelSettings(context_max=1024)}
    for settings, context in (
        (Settings(), 8192),
        (Settings(context_max=4096), 4096),
        (Settings(context_max=4096, models=own), 1024),
        (Settings(context_max=16384), 8192),
    ):
        assert settings.bounded(LOCAL).model.context_length == context
        assert text(planned(context_max=settings.context_max, models=settings.models)).context == context
    picture = replace(LOCAL, format="onnx", model=replace(LOCAL.model, context_length=None, modality="image"))
    assert Settings().bounded(picture) == picture


def test_each_rung_says_what_it_gives_up_and_takes_less() -> None:
    plans = ladder()
    assert [one.step for one in plans] == [
        None,
        "1 request at a time instead of 4",
        "a context of 4096 tokens instead of 8192",
        "a context of 2048 tokens instead of 4096",
        "keys and values in 8 bits instead of 16",
        "keys and values in 4 bits instead of 8",
    ]
    needs = [one.need_bytes for one in plans]
    assert needs == sorted(needs, reverse=True)
    assert len({one.key for one in plans}) == len(plans)


def test_nothing_is_given_up_that_is_not_there() -> None:
    encoder = replace(
        LOCAL,
        traits=replace(LOCAL.traits, kv_bytes_per_token=0),
        model=replace(LOCAL.model, modality="embedding", context_length=512),
    )
    assert [one.step for one in ladder(encoder, slots=1)] == [None]
    assert [one.step for one in ladder(slots=1, context_max=3000, kv_type="q8_0")] == [
        None,
        "keys and values in 4 bits instead of 8",
    ]


def test_with_a_gpu_its_layers_are_the_last_to_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "may_be", lambda: True)
    assert [(one.step, text(one).gpu_layers) for one in ladder(slots=1, context_max=2048, kv_type="q4_0")] == [
        (None, -1),
        ("15 layers on the GPU instead of 30", 15),
        ("no layers on the GPU", 0),
    ]
    assert len(ladder(slots=1, context_max=2048, kv_type="q4_0", gpu_layers=0)) == 1


def test_slots_are_given_up_before_they_take_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "machine_bytes", lambda: 2 * GIB)
    assert text(planned()).slots == 2
    assert text(planned(engine=replace(ENGINE, parallel=False))).slots == 1


def test_a_models_own_settings_come_first() -> None:
    own = ModelSettings(
        context_max=4096, slots=2, threads=3, gpu_layers=7, kv_type="q8_0", projector="p", adapters=(Adapter(path="a"),)
    )
    spec = text(planned(models={"m": own}))
    assert (spec.context, spec.slots, spec.threads, spec.gpu_layers, spec.kv_type) == (4096, 2, 3, 7, "q8_0")
    assert (spec.projector, spec.adapters) == ("p", own.adapters)


def test_a_projector_that_was_found_is_left_where_the_engine_shows_no_pictures() -> None:
    local = replace(LOCAL, projector="eye")
    assert text(planned(local)).projector == "eye"
    assert text(planned(local, engine=replace(ENGINE, sees=False))).projector is None


def test_what_was_measured_is_known_for_this_file_run_this_way_only() -> None:
    first = planned()

    class Known:
        def known(self, key: str) -> int | None:
            return GIB if key == first.key else None

        def measured(self, key: str, size_bytes: int) -> None:
            raise AssertionError("planning measures nothing")

    def asked(local: Local = LOCAL, **settings: Any) -> tuple[int, bool]:
        found = plan(local, Settings(**settings), ENGINE, Known())
        assert found is not None
        return found.need_bytes, found.measured

    assert asked() == (GIB, True)
    assert asked(replace(LOCAL, traits=replace(LOCAL.traits, modified_ns=2))) == (first.need_bytes, False)
    assert asked(kv_type="q8_0")[1] is False
    assert asked(slots=2)[1] is False


MEASURED_MIB: list[tuple[Name, dict[str, Any], int]] = [
    ("xllamacpp", {"context_max": 2048, "slots": 1}, 200),
    ("xllamacpp", {"context_max": 2048, "slots": 4}, 338),
    ("xllamacpp", {"context_max": 8192, "slots": 1}, 335),
    ("xllamacpp", {"context_max": 8192, "slots": 4}, 878),
    ("xllamacpp", {"context_max": 8192, "slots": 4, "kv_type": "q8_0"}, 540),
    ("xllamacpp", {"context_max": 8192, "slots": 4, "kv_type": "q4_0"}, 361),
    ("xllamacpp", {"context_max": 2048, "slots": 1, "n_batch": 512}, 211),
    ("llama_server", {"context_max": 2048, "slots": 1}, 194),
    ("llama_server", {"context_max": 8192, "slots": 4}, 874),
    ("llama_cpp_python", {"context_max": 2048, "slots": 1}, 237),
    ("llama_cpp_python", {"context_max": 8192, "slots": 1}, 373),
]
"""What the embedded model's process was found to take (resident set, after a request in every slot)."""


@pytest.mark.parametrize(("name", "settings", "mib"), MEASURED_MIB)
def test_the_estimate_is_within_15_percent_of_what_was_measured(name: Name, settings: dict[str, Any], mib: int) -> None:
    need = planned(engine=replace(ENGINE, name=name), **settings).need_bytes
    assert need / 2**20 == pytest.approx(mib, rel=0.15)


@pytest.mark.parametrize(
    ("format_", "modality", "name"),
    [
        ("diffusers", "image", "diffusers"),
        ("diffusers", "3d", "shap_e"),
        ("onnx", "image", "onnx"),
        ("field", "3d", "field"),
    ],
)
def test_pictures_and_meshes_have_engines_of_their_own(format_: Any, modality: Any, name: str) -> None:
    local = replace(LOCAL, format=format_, model=replace(LOCAL.model, modality=modality, size_bytes=GIB))
    found = planned(local)
    assert isinstance(found.spec, StudioSpec)
    assert (found.spec.engine, found.spec.slots, engine_of(local, ENGINE).name) == (name, 1, name)
    assert found.need_bytes > GIB
    assert plan(local, Settings(), ENGINE, None, 1) is None
