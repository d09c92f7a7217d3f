"""Heads: whatever they say, the answer is one, or an error that says so, or, to what is no request, none."""

from random import Random

from tests.fuzz import heads
from tests.fuzz.ask import judge
from tests.fuzz.plan import CHANCE, tried
from tests.fuzz.stage import SECRETS, Stage


@tried(60, 1000, chance=CHANCE)
def test_methods_and_targets(running_stage: Stage, chance: Random) -> None:
    ask = heads.asked_elsewhere(chance)
    judge(ask, running_stage.ask(ask), SECRETS)


@tried(60, 1300, chance=CHANCE)
def test_headers(running_stage: Stage, chance: Random) -> None:
    ask = heads.asked_oddly(chance)
    judge(ask, running_stage.ask(ask), SECRETS)


@tried(60, 1000, chance=CHANCE)
def test_lengths_and_lines(running_stage: Stage, chance: Random) -> None:
    ask = heads.asked_falsely(chance)
    judge(ask, running_stage.ask(ask), SECRETS)
