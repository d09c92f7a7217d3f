"""The command line's parser: what is wrong is told below the usage of its own command, with what was meant."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Those of its commands are of this kind too."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Nothing is left for whoever is above: the usage shown would be theirs."""
        asked, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [name for action in self._actions for name in action.option_strings]
            words = rest[0].partition("=")[0]
            meant = _meant(words, known) if words.startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return asked, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is not None and value not in choices:
            known = [str(one) for one in choices]
            meant = _meant(str(value), known) or f"; there is {', '.join(known)}"
            raise argparse.ArgumentError(action, f"'{value}' is unknown{meant}")


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
