"""Forms: whatever they hold, the answer is one, or an error that says so."""

from random import Random

from tests.fuzz import forms
from tests.fuzz.ask import judge
from tests.fuzz.plan import CHANCE, tried
from tests.fuzz.stage import SECRETS, Stage


@tried(60, 1300, chance=CHANCE)
def test_forms(running_stage: Stage, chance: Random) -> None:
    ask = forms.ask(chance)
    judge(ask, running_stage.ask(ask), SECRETS)
