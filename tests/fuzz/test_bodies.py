"""Bodies: whatever they hold, the answer is one, or an error that says so."""

from random import Random

from tests.fuzz import bodies
from tests.fuzz.ask import judge
from tests.fuzz.plan import CHANCE, tried
from tests.fuzz.stage import SECRETS, Stage


@tried(150, 5000, chance=CHANCE)
def test_json_bodies(running_stage: Stage, chance: Random) -> None:
    ask = bodies.ask(chance)
    judge(ask, running_stage.ask(ask), SECRETS)
