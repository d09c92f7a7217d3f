"""Amounts of bytes as people write them: `20GiB`, `500 MB`, `1048576`."""

import re

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_amount = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)").fullmatch


def parse(given: str | int) -> int:
    """In bytes.  Raises ValueError for what is no amount."""
    if isinstance(given, int):
        return given
    found = _amount(given.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"'{given}' is no amount; write bytes or 20GiB")
    return int(float(found[1]) * _UNITS[found[2]])
