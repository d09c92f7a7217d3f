"""Work is cut into portions of about half a second, whatever the engine's speed turns out to be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.local.portion import FIRST_TOKENS, GROWTH, PORTION_S, TEXTS_MAX, portions


def cut(sizes: list[int], tokens_per_s: float) -> list[slice]:
    """The portions for an engine that is always as fast as this."""
    made, times = [], [0.0]
    for portion in portions(sizes, lambda: times[-1]):
        made.append(portion)
        times.append(times[-1] + sum(sizes[portion]) / tokens_per_s)
    return made


@given(st.lists(st.integers(1, 5000), max_size=600), st.floats(1, 1e6))
def test_each_text_is_in_one_portion(sizes: list[int], tokens_per_s: float) -> None:
    made = cut(sizes, tokens_per_s)
    assert [n for portion in made for n in range(portion.start, portion.stop)] == list(range(len(sizes)))
    assert all(0 < portion.stop - portion.start <= TEXTS_MAX for portion in made)


@pytest.mark.parametrize("tokens_per_s", [200.0, 2_000.0, 20_000.0])
def test_they_take_half_a_second_once_the_speed_is_known(tokens_per_s: float) -> None:
    sizes = [20] * 4_000
    made = cut(sizes, tokens_per_s)
    took = [sum(sizes[portion]) / tokens_per_s for portion in made[4:-1]]
    full = [portion.stop - portion.start == TEXTS_MAX for portion in made[4:-1]]
    assert all(
        0.8 * PORTION_S < seconds < 1.1 * PORTION_S for seconds, most in zip(took, full, strict=True) if not most
    )
    assert took


def test_the_first_is_small_and_none_grows_too_fast() -> None:
    sizes = [50] * 1_000
    made = [sum(sizes[portion]) for portion in cut(sizes, 1e9)]
    assert made[0] <= FIRST_TOKENS
    assert all(after <= before * GROWTH for before, after in pairwise(made))


def test_a_text_that_is_too_large_for_one_goes_alone() -> None:
    assert cut([10, 9_000, 10], 100.0)[1] == slice(1, 2)
