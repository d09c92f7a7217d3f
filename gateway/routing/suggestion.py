"""Which model may have been meant by a name that there is none of."""

import difflib
from collections.abc import Iterable

LIKE = 0.6
SHOWN = 100
"""Characters of a name that are looked at."""


def meant(name: str, known: Iterable[str]) -> str | None:
    """The name of those known that is nearest; None where none is near.

    One is near that begins with what was asked for, or is spelled much like it; case, a backend before it and the
    `.gguf` of a file behind it make no difference.
    """
    asked = _plain(name[:SHOWN])
    if not asked:
        return None
    plain = {_plain(one): one for one in sorted(known, reverse=True)}
    begun = [one for one in plain if one.startswith(asked) or (asked.startswith(one) and 2 * len(one) > len(asked))]
    begun.sort(key=lambda one: abs(len(one) - len(asked)))
    near = difflib.get_close_matches(asked, plain, n=1, cutoff=LIKE)
    nearest = begun[:1] or near
    return plain[nearest[0]] if nearest else None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gguf").rpartition("/")[2]
