"""The short forms of the scenes: nothing is lost, nothing is left behind.  In full: `make load`, `make soak`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load.downloads import SHORT, downloads
from tests.load.plan import QUICK
from tests.load.pool import pool
from tests.load.result import Figure, Progress, Result, markdown, slope, text
from tests.load.scenes import play, scenes
from tests.load.stage import Stage, provider, stage

SCENES = scenes("all", QUICK)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("load")
    with provider(folder) as port, stage(folder / "gateway", port, QUICK) as running:
        yield running


@pytest.mark.parametrize("name", SCENES)
def test_every_target_is_kept(here: Stage, name: str) -> None:
    result = play(SCENES[name], here, Progress(), QUICK)
    assert not result.missed


def test_more_local_models_than_memory_holds_serve_a_crowd(tmp_path: Path) -> None:
    result = pool(tmp_path, 60, Progress())
    assert not result.missed


def test_a_download_survives_kills_and_holds_up_no_chat(tmp_path: Path) -> None:
    with provider(tmp_path) as port:
        result = downloads(tmp_path / "downloads", port, SHORT, Progress())
    assert not result.missed


def test_a_missed_target_is_told() -> None:
    result = Result("r", [Figure("errors", 0, most=0), Figure("gap", 300, "ms", most=250, note="slow"), Figure("x", 1)])
    assert result.missed == ["r: gap: 300 ms, target ≤ 250; slow"]
    assert "MISSED" in text([result])
    assert "| **missed** slow |" in markdown([result])


def test_a_slope_is_told_from_noise() -> None:
    assert slope([0, 1000, 2000, 3000], [10, 12, 14, 16]) * 1000 == pytest.approx(2)
    assert slope([5, 5], [1, 9]) == 0
