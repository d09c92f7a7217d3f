"""How much is tried, and from where chance comes.

In `make test`: a few hundred inputs, the same ones every time.  With SOAK=1: ten thousand, from a
seed that is printed, and taken from FUZZ_SEED to see the same again.
"""

import os
import random
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

FULL = os.environ.get("SOAK") == "1"
SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
FULL_TIMEOUT_S = 3600
CHANCE = st.integers(0, 2**63 - 1).map(random.Random)
"""Even chances: `st.randoms` prefers extremes, and three in four inputs would not get past the first check."""

Test = Callable[..., None]


def tried(few: int, many: int, **inputs: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Run a test with so many inputs: `few` ones that never change, or, in full, `many` new ones."""
    chosen = settings(
        max_examples=many if FULL else few,
        derandomize=not FULL,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink) if FULL else (Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    def given(test: Test) -> Test:
        run: Test = chosen(hypothesis.given(**inputs)(test))
        if FULL:
            run = hypothesis.seed(SEED)(run)
        return pytest.mark.timeout(FULL_TIMEOUT_S)(run) if FULL else run

    return given
