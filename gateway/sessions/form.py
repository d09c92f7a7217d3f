"""What may be asked for of a session, with refusals that name the field and the cure."""

import unicodedata
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from compat.canonical.error import InvalidRequest
from compat.nativetask import Parameters
from gateway.keeping import ContextPolicy

TITLE_MAX, MODEL_MAX, SYSTEM_MAX = 300, 300, 262_144
"""Characters."""
METADATA_BYTES, METADATA_DEPTH = 16_384, 8
PARAMETERS_BYTES = 32_768
STATE_BYTES, STATE_DEPTH = 65_536, 16
MESSAGES_MAX, IMAGES_MAX = 1000, 16
"""In one request, and in one message."""


class NewSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session, to which nothing has been said yet unless `messages` do."""

    title: str | None = None
    """Null: it is made of the first words."""
    system: str | None = None
    """The system prompt of every turn."""
    model: str | None = None
    """The model of turns that name none."""
    parameters: Parameters | None = None
    """Of turns that say nothing else; each modality takes those that it has."""
    metadata: dict[str, Any] | None = None
    """The client's own: any JSON object of up to 16 KiB."""
    state: dict[str, Any] | None = None
    """What a provider gave, to be brought back to it with the next turn."""
    context: ContextPolicy | None = None
    """What is done when it becomes too long for its model; null: as configured."""
    messages: list[dict[str, Any]] = []
    """What was said already, the oldest first: OpenAI's chat messages, or each as {role, text, images}."""


class SessionChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays; null clears."""

    title: str | UnsetType | None = UNSET
    system: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    parameters: Parameters | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    state: dict[str, Any] | UnsetType | None = UNSET
    context: ContextPolicy | UnsetType | None = UNSET
    head: str | UnsetType = UNSET
    """The answer to go on from: one of the `alternatives` of a message, by its id; with what followed it."""


class NewMessages(Struct, frozen=True, forbid_unknown_fields=True):
    messages: list[dict[str, Any]]
    """The oldest first: OpenAI's chat messages, or each as {role, text, images}."""


class Branching(Struct, frozen=True, forbid_unknown_fields=True):
    message_id: str
    """The last message that the new session begins with."""
    title: str | None = None


class Simple(Struct, frozen=True, forbid_unknown_fields=True):
    """A message in the words of this API."""

    role: Literal["user", "assistant", "system", "developer"]
    text: str = ""
    images: list[str] = []
    """`https:` or `data:` URLs, or ids of artifacts."""


def checked(form: NewSession | SessionChanges) -> dict[str, Any]:
    """The fields of a Session that a form sets.  Raises InvalidRequest."""
    fields = {name: getattr(form, name) for name in form.__struct_fields__ if name not in ("messages", "head")}
    fields = {name: value for name, value in fields.items() if value is not UNSET}
    if "title" in fields:
        fields["title"] = entitled(fields["title"])
        fields["titled"] = fields["title"] is not None
    if fields.get("system") is not None:
        fields["system"] = text("system", fields["system"], SYSTEM_MAX) or None
    if fields.get("model") is not None:
        fields["model"] = line("model", fields["model"], MODEL_MAX)
    if "parameters" in fields:
        fields["parameters"] = _parameters(fields["parameters"])
    if "metadata" in fields:
        fields["metadata"] = within("metadata", fields["metadata"] or {}, METADATA_BYTES, METADATA_DEPTH)
    if "state" in fields:
        fields["state"] = within("state", fields["state"] or {}, STATE_BYTES, STATE_DEPTH)
    return fields


def entitled(given: str | None) -> str | None:
    """A title as it is kept; None for an empty one.  Raises InvalidRequest."""
    return None if given is None or not given.strip() else line("title", given.strip(), TITLE_MAX)


def text(name: str, given: str, most: int) -> str:
    """Raises InvalidRequest where it is too long, or holds what no database takes."""
    if len(given) > most:
        raise wrong(name, f"at most {most} characters")
    if "\x00" in given:
        raise wrong(name, "a text without NUL characters")
    return given


def within(name: str, given: dict[str, Any], most: int, depth: int) -> dict[str, Any]:
    """Raises InvalidRequest where it is larger, in bytes of JSON, or nests deeper."""
    if len(msgspec.json.encode(given)) > most:
        raise wrong(name, f"at most {most} bytes of JSON")
    if _depth(given) > depth:
        raise wrong(name, f"objects and arrays nested at most {depth} deep")
    return given


def wrong(name: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{name}': expected {expected}.", param=name, code="invalid_value")


def _parameters(given: Parameters | None) -> dict[str, Any]:
    said = {} if given is None else {n: v for n in given.__struct_fields__ if (v := getattr(given, n)) is not None}
    if len(msgspec.json.encode(said)) > PARAMETERS_BYTES:
        raise wrong("parameters", f"at most {PARAMETERS_BYTES} bytes of JSON")
    return said


def line(name: str, given: str, most: int) -> str:
    """A text of one line.  Raises InvalidRequest."""
    # Zl and Zp are line ends too; format characters stay, for the sake of emoji.
    if not given or len(given) > most or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in given):
        raise wrong(name, f"one line of 1 to {most} characters")
    return given


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)
