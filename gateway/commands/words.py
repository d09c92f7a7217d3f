"""What the gateway says to clients of its API, in the words of the command line: it names fields and routes."""

import re
from collections.abc import Callable
from re import Match

_ROUTES = {
    "GET /v1/jobs": "jobs list",
    "GET /v1/keys": "keys list",
    "GET /v1/models/search": "models search",
    "GET /v1/models": "models list",
    "PATCH /v1/models/{id}": "models set",
    "POST /v1/models/download": "models download",
    "POST /v1/models": "models register",
    "POST /v1/storage/cleanup": "storage clean",
}
_FIELDS = {
    "aliases": "--alias",
    "defaults": "--default",
    "hidden": "--hide",
    "id": "MODEL",
    "model_id": "MODEL",
    "pinned": "--pin",
    "repo": "REPO",
    "source.file": "--file",
    "source.repo": "--repo",
    "tags": "--tag",
}
"""Those that are not called as their option is."""
_OPTIONS = frozenset(
    {"backend", "commit", "file", "limit", "modality", "name", "path", "priority", "quantization", "revision"}
    | {"status", "summary", "tag"}
)


def _field(found: Match[str]) -> str:
    name, rest = found["field"], found["rest"] or ""
    option = _FIELDS.get(name) or (f"--{name}" if name in _OPTIONS else None)
    if option is None:
        return found[0]
    inside = f" {rest[1:]}" if rest.startswith(".") else ""
    return f"{found['before']}{option}{inside}"


def _route(found: Match[str]) -> str:
    return f"`pluggably {_ROUTES[found[0]]}`"


_HINTS: list[tuple[re.Pattern[str], str | Callable[[Match[str]], str]]] = [
    (re.compile(rf"(?:{'|'.join(map(re.escape, _ROUTES))})(?![\w/{{])"), _route),
    (re.compile(r"POST /v1/jobs/\{id\}/(pause|resume|cancel)"), r"`pluggably jobs \1`"),
    (re.compile(r"\b(force|files)=true\b"), r"--\1"),
    (re.compile(r"Send it in the header 'Authorization', after 'Bearer'\."), "Put it in a variable, and name that with "
     "--key-env."),
    (re.compile(r"name the 'repo' instead"), "name the repository, ORG/NAME, instead"),
    (re.compile(r"'(\w+)' goes with 'repo': a registered model has its own"), r"--\1 goes with a repository, ORG/NAME: "
     "a registered model has its own"),
    (re.compile(r"(?P<before>Invalid value for |Missing required parameter: )"
                r"'(?P<field>source\.(?:repo|file)\b|[a-z_]+)(?P<rest>[.\[][^']*)?'"), _field),
    (re.compile(r"(?P<before>\b(?:another|by|without|leave|local) )"
                r"'(?P<field>name|file|quantization|backend)(?P<rest>)'"), _field),
]  # fmt: skip
"""What is known of messages, and what a command says instead; what is not known stays as it is."""


def spoken(message: str) -> str:
    """A message of the gateway, for somebody at a command line."""
    for pattern, instead in _HINTS:
        message = pattern.sub(instead, message)
    return message
