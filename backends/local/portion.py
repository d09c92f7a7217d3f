"""Cuts many texts into portions of work that take an engine about half a second each.

An engine notices late that whoever asked it for vectors or scores has gone: it then has no more to do than the
rest of a portion.
"""

from collections.abc import Callable, Iterator, Sequence

PORTION_S = 0.5
TEXTS_MAX = 256
"""In one portion."""
FIRST_TOKENS = 512
"""In the first, before it is known how fast the engine is."""
GROWTH = 4.0
"""How many times larger, or smaller, one may be than the one before."""


def portions(sizes: Sequence[int], clock: Callable[[], float]) -> Iterator[slice]:
    """Where each portion begins and ends.

    sizes: of the texts, in tokens, about.
    clock: in seconds; what passes between two portions is what the first of them took.
    """
    begin, budget = 0, float(FIRST_TOKENS)
    while begin < len(sizes):
        end, size = begin + 1, sizes[begin]
        while end < min(len(sizes), begin + TEXTS_MAX) and size + sizes[end] <= budget:
            size += sizes[end]
            end += 1
        since = clock()
        yield slice(begin, end)
        took = max(clock() - since, 1e-3)
        budget = max(1.0, size) * min(max(PORTION_S / took, 1 / GROWTH), GROWTH)
        begin = end
