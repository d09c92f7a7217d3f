"""What a provider is sent besides a body: the configuration's headers, and the client's own of its dialect."""

from collections.abc import Mapping

_LISTS = frozenset({"anthropic-beta", "openai-beta"})
"""Each names features, and the client's are asked for besides the configured ones."""


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """By their names in lower case, so that a later one replaces an earlier one however it is written."""
    return {name.lower(): value for name, value in headers.items()}


def spoken(own: dict[str, str], said: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Our headers with those that a client said in the dialect of this prefix; names in lower case."""
    headers = own.copy()
    for name, value in said.items():
        if name.startswith(prefix):
            headers[name] = f"{own[name]},{value}" if name in _LISTS and own.get(name) else value
    return headers
