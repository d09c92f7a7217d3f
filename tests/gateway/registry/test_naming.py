"""What models may be called, and who has a name already."""

import pytest

from compat.canonical.error import Conflict, InvalidRequest
from gateway.registry.naming import Names, check_alias, check_free, check_name


@pytest.mark.parametrize("name", ["m", "Qwen2.5-7B", "org/model:free", "ein modell", "é" * 200])
def test_a_model_may_be_called_what_can_be_printed(name: str) -> None:
    check_name(name, "name")


@pytest.mark.parametrize(
    "name",
    [
        "",
        " m",
        "/m",
        "m/",
        "a//b",
        "a/../b",
        ".",
        "m\n",
        "m\x00",
        "x" * 201,
        "m*",
        "search",
        "import",
        "a/load",
        "update",
    ],
)
def test_what_would_lead_elsewhere_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_name(name, "models[3].id")
    assert (refused.value.param, refused.value.code) == ("models[3].id", "invalid_value")


@pytest.fixture
def names() -> Names:
    names = Names(["auto", "gpt-4*"], {"local", "up"})
    names.add("local/mine", ["my"])
    names.add("up/gpt-x")
    return names


@pytest.mark.parametrize("alias", ["auto", "gpt-4o", "my", "mine", "gpt-x"])
def test_an_alias_is_nobody_elses_name(names: Names, alias: str) -> None:
    with pytest.raises(Conflict, match="take another") as refused:
        check_alias(alias, "local/other", names, "aliases[0]")
    assert refused.value.param == "aliases[0]"


@pytest.mark.parametrize("alias", ["other", "up/anything", "a/load"])
def test_an_alias_leads_where_no_other_name_does(names: Names, alias: str) -> None:
    with pytest.raises(InvalidRequest):
        check_alias(alias, "local/other", names, "aliases[0]")


def test_ones_own_alias_may_be_said_again(names: Names) -> None:
    check_alias("my", "local/mine", names, "aliases[0]")
    check_alias("new", "local/mine", names, "aliases[0]")


def test_two_backends_may_have_models_of_one_name_but_no_configured_one(names: Names) -> None:
    check_free("up/mine", names, "id")
    for id_ in ("local/auto", "up/my"):
        with pytest.raises(Conflict):
            check_free(id_, names, "id")
