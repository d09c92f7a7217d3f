"""`docs/compatibility.md` is what the suite says, no more and no less."""

import ast

import pytest

from tests.clients import compatibility


@pytest.fixture(autouse=True)
def _committed(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-compatibility", default=False):
        pytest.skip("the table is being written")


def test_the_table_lists_the_features_that_the_suite_shows() -> None:
    listed = compatibility.read(compatibility.TABLE.read_text())
    assert set(listed) == compatibility.shown(), "run `make compatibility`"


def test_the_page_is_what_the_generator_makes_with_these_versions() -> None:
    page = compatibility.TABLE.read_text()
    assert page == compatibility.render(compatibility.read(page)), "run `make compatibility`"


def test_every_mark_names_a_row_and_a_column() -> None:
    for client, feature in compatibility.shown():
        assert client in compatibility.CLIENTS
        assert feature in compatibility.FEATURES


def test_every_row_and_every_column_is_shown_by_a_test() -> None:
    clients, features = zip(*compatibility.shown(), strict=True)
    assert set(clients) == set(compatibility.CLIENTS)
    assert set(features) == set(compatibility.FEATURES)


@pytest.mark.parametrize("name", compatibility.ELSEWHERE)
def test_the_tests_that_are_marked_from_outside_exist(name: str) -> None:
    tree = ast.parse((compatibility.HERE / name).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert set(compatibility.ELSEWHERE[name]) <= functions
