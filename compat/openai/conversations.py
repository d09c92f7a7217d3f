"""OpenAI's Conversations API: what is asked, and how a conversation and its items are shown.

A conversation is a session under another name.  Its items are those of the Responses API; what a session has beyond
them, pictures and meshes that were made, is shown as the nearest thing OpenAI's clients know.
Source: https://platform.openai.com/docs/api-reference/conversations
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Usage
from compat.nativeturn import ARTIFACT_URL as ARTIFACT_URL
from compat.nativeturn import artifact_id
from compat.openai.limits import check_metadata
from compat.openai.responses import ResponsesRequest, render_settings
from compat.openai.responses_item import Item, NewId, check_known, normalized, unsealed
from compat.openai.responses_usage import render_usage

ITEMS_MAX = 20
"""Items that may be added at a time."""
_SEEN = "message.input_image.image_url"
_REPLAYED = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
_STATED = frozenset({"message", "function_call", "function_call_output"})
"""The kinds whose `status` clients count on."""


class NewConversation(Struct):
    """A conversation that is to be."""

    items: list[Item] | None = None
    """What it begins with, 20 at most."""
    metadata: dict[str, Any] | None = None


class ConversationChange(Struct):
    metadata: dict[str, Any] | None = None
    """They take the place of the old."""


class NewItems(Struct):
    items: list[Item] | None = None
    """What is added at the end, 20 at a time."""


class Conversation(Struct, frozen=True):
    id: str
    object: Literal["conversation"]
    created_at: int
    """Seconds since 1970, UTC."""
    metadata: dict[str, Any]


class ConversationDeleted(Struct, frozen=True):
    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


class ConversationItems(Struct, frozen=True):
    """A page of items."""

    object: Literal["list"]
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool


def items_of(asked: NewConversation | NewItems, new_id: NewId) -> list[Item]:
    """What is to be added, normalized.  Raises InvalidRequest."""
    given = asked.items
    if isinstance(asked, NewItems):
        if given is None:
            raise missing("items")
        if not given:
            raise InvalidRequest("Invalid 'items': the array is empty.", param="items", code="empty_array")
    return _checked(given or [], new_id)


def metadata_of(asked: NewConversation | ConversationChange) -> dict[str, Any]:
    """Raises InvalidRequest."""
    if asked.metadata is None and isinstance(asked, ConversationChange):
        raise missing("metadata")
    check_metadata(asked.metadata)
    return asked.metadata or {}


def render_item(item: Item, include: Iterable[str], pictures: Mapping[str, str]) -> Item:
    """An item as it is shown.

    pictures: artifact id → data URL, of those whose contents are to be shown.
    """
    include = frozenset(include)
    if item["type"] == "artifact":
        return _made(item, pictures.get(item["id"]))
    shown = unsealed(item, include)
    if item["type"] in _STATED and shown.get("status") not in ("completed", "incomplete", "in_progress"):
        shown = shown | {"status": "completed"}
    content = item.get("content")
    if item["type"] != "message" or not isinstance(content, list):
        return shown
    return shown | {"content": [_shown_part(part, include, pictures) for part in content]}


def pictures_of(items: Iterable[Item]) -> Iterator[str]:
    """The ids of the artifacts that are pictures in these items, made or given; some more than once."""
    for item in items:
        if item["type"] == "artifact":
            if item.get("kind") == "image":
                yield item["id"]
            continue
        for name in ("content", "output"):
            parts = item.get(name)
            for part in parts if isinstance(parts, list) else ():
                if (id_ := artifact_of(part)) is not None:
                    yield id_


def artifact_of(part: Any) -> str | None:
    """The artifact that a part of an item's content stands for."""
    url = part.get("image_url") if isinstance(part, dict) and part.get("type") == "input_image" else None
    return artifact_id(url) if isinstance(url, str) else None


def told(items: Iterable[Item], pictures: Mapping[str, str]) -> list[Item]:
    """Items as a model is told of them: artifacts as pictures that it sees, or as notes.

    pictures: artifact id → data URL; those that are not in it are only spoken of.
    """
    return [_told(item, pictures) for item in items]


def whole_items(output: Any, new_id: NewId) -> list[Item]:
    """What a provider has answered, as items that can be kept: each with a type and an id."""
    items = [item for item in output if isinstance(item, dict) and isinstance(item.get("type"), str)]
    return [item if isinstance(item.get("id"), str) else item | {"id": new_id("item")} for item in items]


def replayable(output: Iterable[Item]) -> bool:
    """Whether `replay` can stream these again: what this gateway's own answers are made of."""
    return all(
        item["type"] in _REPLAYED and (item["type"] != "message" or all(map(_is_plain, item["content"])))
        for item in output
    )


def as_response(
    id_: str, created_at: float, status: str, model: str, usage: Usage, output: list[Item], conversation: str | None
) -> Item:
    """A turn that another API has made, as a response."""
    shown = "completed" if status == "completed" else "incomplete"
    return {
        "id": id_,
        "object": "response",
        "created_at": int(created_at),
        "status": shown,
        "background": False,
        "completed_at": int(created_at) if shown == "completed" else None,
        "error": None,
        "incomplete_details": None,
        **render_settings(ResponsesRequest()),
        "model": model,
        "output": output,
        "usage": render_usage(usage),
        "conversation": conversation and {"id": conversation},
    }


def _is_plain(part: Item) -> bool:
    notes = part.get("annotations", ())
    return part.get("type") == "output_text" and all(note.get("type") == "url_citation" for note in notes)


def _checked(given: list[Item], new_id: NewId) -> list[Item]:
    if len(given) > ITEMS_MAX:
        raise InvalidRequest(
            f"Invalid 'items': {len(given)} of them, and at most {ITEMS_MAX} can be added at a time.",
            param="items",
            code="array_above_max_length",
        )
    try:
        items = normalized(given, new_id)
    except InvalidRequest as e:
        if e.param is not None:
            name = "items" + e.param.removeprefix("input")
            e.message = e.message.replace(f"'{e.param}'", f"'{name}'")
            e.param = name
        raise
    for n, item in enumerate(items):
        if item["type"] in ("item_reference", "artifact"):
            at = f"items[{n}].type"
            raise InvalidRequest(
                f"Invalid value for '{at}': '{item['type']}'; give the item itself.", param=at, code="invalid_value"
            )
    check_known(items, "items")
    return items


def _made(item: Item, picture: str | None) -> Item:
    """What was made, as OpenAI's clients know it."""
    if item.get("kind") == "image":
        result = None if picture is None else picture.partition(",")[2]
        return {"id": item["id"], "type": "image_generation_call", "status": "completed", "result": result}
    content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": _note(item)}]
    return {"id": item["id"], "type": "message", "role": "assistant", "status": "completed", "content": content}


def _note(item: Item) -> str:
    what = {"image": "A picture", "mesh": "A 3D model"}.get(str(item.get("kind")), "A file")
    return f"[{what} was made: artifact {item['id']}, {item.get('mime')}, {item.get('bytes')} bytes]"


def _told(item: Item, pictures: Mapping[str, str]) -> Item:
    if item["type"] == "artifact":
        said: Item = {"id": item["id"], "type": "message", "status": "completed"}
        if (url := pictures.get(item["id"])) is None:
            return said | {"role": "assistant", "content": [_output_text(_note(item))]}
        # An assistant's message has no pictures in any dialect: the next one to look at it is the user.
        seen = [{"type": "input_text", "text": _note(item)}, _picture(url)]
        return said | {"role": "user", "content": seen}
    changed: Item = {}
    for name in ("content", "output"):
        parts = item.get(name)
        if isinstance(parts, list) and any(artifact_of(part) is not None for part in parts):
            changed[name] = [_told_part(part, pictures) for part in parts]
    return item | changed if changed else item


def _told_part(part: Item, pictures: Mapping[str, str]) -> Item:
    if (id_ := artifact_of(part)) is None:
        return part
    if (url := pictures.get(id_)) is not None:
        return part | {"image_url": url}
    return {"type": "input_text", "text": f"[A picture was given here: artifact {id_}]"}


def _shown_part(part: Item, include: frozenset[str], pictures: Mapping[str, str]) -> Item:
    id_ = artifact_of(part)
    return part if id_ is None or _SEEN not in include else part | {"image_url": pictures.get(id_, part["image_url"])}


def _picture(url: str) -> Item:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _output_text(text: str) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
