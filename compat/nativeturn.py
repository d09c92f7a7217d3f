"""Native requests as turns of a session: what is given as items, and a session's items as what a model is told.

Items are those of the Responses API (`compat.openai.responses_item`), and what was made:
`{"type": "artifact", "id", "kind", "mime", …}`.  A picture that was given stands in its item as `artifact:ID`, once it
is kept; until then as the client named it.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Produced
from compat.canonical.message import Media, Message, Part, Reasoning, Stored, Text, ToolCall, ToolResult
from compat.canonical.model import Modality
from compat.canonical.request import Envelope
from compat.mesh import prompt
from compat.nativetask import Input
from compat.openai.part import parse_message, url_of_media
from compat.openai.responses_item import Item, NewId, parse_items, seal

ARTIFACT_URL = "artifact:"
PROMPT_MAX = 200
"""Characters of a prompt that stand for the picture it made."""
_READ = {
    "message": ("role", "content"),
    "reasoning": ("summary", "content", "encrypted_content"),
    "function_call": ("call_id", "name", "arguments"),
    "custom_tool_call": ("call_id", "name", "input"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call_output": ("call_id", "output"),
}
"""What a model is told of an item, by its type; of other types, all."""
_write = msgspec.json.Encoder().encode


def items_of(given: Input, new_id: NewId) -> list[Item]:
    """What is said in a request, as items whose pictures stand as they were named.  Raises InvalidRequest."""
    pictures = [_picture(place) for place in given.images or ()]
    if given.prompt is not None or not given.messages:
        text = [] if given.prompt is None else [{"type": "input_text", "text": prompt(given.prompt, "input.prompt")}]
        if not text and not pictures:
            raise missing("input.prompt")
        return [_message(new_id, "user", [*text, *pictures])]
    items = [
        item
        for n, wire in enumerate(given.messages or ())
        for item in _items(wire, parse_message(_unread(wire), f"input.messages[{n}]"), new_id)
    ]
    if pictures:
        last = items[-1]
        if last["type"] != "message" or last["role"] != "user":
            raise InvalidRequest(
                "Pictures in 'input.images' go with the last of 'input.messages', which must be a user's.",
                param="input.images",
                code="invalid_value",
            )
        items[-1] = last | {"content": [*last["content"], *pictures]}
    return items


def places_of(items: Iterable[Item]) -> Iterator[str]:
    """Where the pictures that were given are, as they stand in the items."""
    for part in _parts(items):
        if part.get("type") == "input_image" and (place := _place(part)) is not None:
            yield place


def moved(items: Sequence[Item], places: Mapping[str, str]) -> list[Item]:
    """The items with their pictures elsewhere.

    places: where they are by where they were; those that are not in it stay.
    """
    if not places:
        return list(items)

    def move(parts: Any) -> Any:
        if not isinstance(parts, list):
            return parts
        return [
            part | {"image_url": places[part["image_url"]]}
            if part.get("type") == "input_image" and _place(part) in places
            else part
            for part in parts
        ]

    return [item | {name: move(item[name]) for name in ("content", "output") if name in item} for item in items]


def artifact_id(place: str) -> str | None:
    """The artifact that stands at a place."""
    return place.removeprefix(ARTIFACT_URL) if place.startswith(ARTIFACT_URL) else None


def made(produced: Iterable[Produced], new_id: NewId) -> list[Item]:
    """Items of what was made; of what its provider keeps, only where that is."""
    items: list[Item] = []
    for one in produced:
        stored: Stored | None = one.media.extra.get("stored")
        kind = "image" if one.media.mime.startswith("image/") else "mesh"
        item: Item = {"type": "artifact", "kind": kind, "mime": one.media.mime}
        if stored is None:
            item |= {"id": new_id("item"), "url": one.media.url}
        else:
            item |= {"id": stored.id, "bytes": stored.size_bytes, "sha256": stored.sha256}
        if one.media.name is not None:
            item["name"] = one.media.name
        if one.revised_prompt is not None:
            item["revised_prompt"] = one.revised_prompt
        items.append(item)
    return items


def made_ids(items: Iterable[Item], kind: str | None = None) -> list[str]:
    """The artifacts that were made, in their order; without those that their providers keep."""
    wanted = [item for item in items if item["type"] == "artifact" and kind in (None, item.get("kind"))]
    return [item["id"] for item in wanted if "sha256" in item]


def shown(items: Iterable[Item], sees: Callable[[str], bool]) -> list[Item]:
    """What a model is told: what was made as a note, or as a picture in what the user says next.

    sees: whether the model is shown the picture of an artifact, by its id; it is told of the others.
    """
    told: list[Item] = []
    waiting: list[Item] = []
    notes: list[str] = []
    asked = ""

    def note() -> None:
        if notes:
            told.append(_said("assistant", [{"type": "output_text", "text": "\n".join(notes)}]))
            notes.clear()

    for item in items:
        if item["type"] == "artifact":
            about = f": {asked}" if asked else ""
            notes.append(f"[{item.get('kind', 'file')} {item['id']}{about}]")
            if item.get("kind") == "image" and sees(item["id"]):
                waiting.append(_picture(f"{ARTIFACT_URL}{item['id']}"))
            continue
        note()
        plain = _plain(item, sees)
        if item["type"] == "message" and item["role"] == "user":
            asked = " ".join(filter(None, map(_text, plain["content"])))[:PROMPT_MAX]
            plain = plain | {"content": [*waiting, *plain["content"]]}
            waiting = []
        told.append(plain)
    note()
    if waiting:
        told.append(_said("user", waiting))
    return told


def parse_shown(items: Iterable[Item], pictures: Mapping[str, Media]) -> tuple[Message, ...]:
    """What `shown` tells, as messages; what cannot be told in them is left out.

    pictures: by where they stand; a URL that is not in it is the provider's to fetch.
    """
    return tuple(replace(m, parts=tuple(_seen(p, pictures) for p in m.parts)) for m in parse_items(items, past=True))


def rebuilt(
    asked: Envelope,
    told: Sequence[Item],
    *,
    model: str,
    modality: Modality,
    parameters: Mapping[str, Any],
    state: Mapping[str, Any],
) -> Envelope:
    """The request as it is really sent, for whoever routes it and reckons how long it is; pictures by their places."""
    own = {name: raw for name, raw in asked.fields.items() if name not in ("session_id", "message_id")}
    short = moved(told, {place: "data:" for place in places_of(told) if place.startswith("data:")})
    fields = own | {
        "modality": Raw(_write(modality)),
        "parameters": Raw(_write(parameters)),
        "state": Raw(_write(state)),
        "input": Raw(_write({"messages": short})),
    }
    return replace(asked, model=model, fields=fields, body=_write(fields))


def transcript(items: Iterable[Item]) -> str:
    """A conversation in plain words, to be summed up."""
    lines: list[str] = []
    for item in shown(items, lambda _: False):
        kind = item["type"]
        if kind == "message":
            lines.append(f"{item['role']}: {_words(item['content'])}")
        elif kind.endswith("_call"):
            lines.append(f"assistant calls {item.get('name', kind)}: {item.get('arguments', item.get('input', ''))}")
        elif kind.endswith("_output"):
            lines.append(f"tool: {_words(item.get('output'))}")
    return "\n".join(lines)


def _place(part: Item) -> str | None:
    place = part.get("image_url")
    return place if isinstance(place, str) else None


def _words(said: Any) -> str:
    if isinstance(said, str):
        return said
    texts = map(_text, said) if isinstance(said, list) else [None]
    return " ".join("[file]" if text is None else text for text in texts)


def _text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def _items(wire: Mapping[str, Any], message: Message, new_id: NewId) -> Iterator[Item]:
    spoken: list[Item] = []
    places = iter(_places(wire))
    kind = "output_text" if message.role == "assistant" else "input_text"
    for part in message.parts:
        match part:
            case Text(text=text, extra=extra):
                spoken.append({"type": kind, "text": text, **extra})
            case Media():
                spoken.append(_media(part, places))
            case Reasoning(text=text, signature=signature, redacted=redacted):
                thought: Item = {"id": new_id("rs"), "type": "reasoning", "summary": []}
                thought["content"] = [{"type": "reasoning_text", "text": text}] if text else []
                if (sealed := seal(signature, redacted)) is not None:
                    thought["encrypted_content"] = sealed
                yield thought
            case ToolCall():
                if spoken:
                    yield _message(new_id, message.role, spoken)
                    spoken = []
                call: Item = {"id": new_id("fc"), "type": "function_call", "call_id": part.id, "name": part.name}
                yield call | {"arguments": part.arguments, "status": "completed"}
            case ToolResult():
                output: Item = {"id": new_id("fco"), "type": "function_call_output", "call_id": part.id}
                texts = [inner for inner in part.parts if isinstance(inner, Text)]
                said: Any = "".join(text.text for text in texts)
                if len(texts) != len(part.parts):
                    said = [_inner(inner, places) for inner in part.parts if isinstance(inner, (Text, Media))]
                yield output | {"output": said, "status": "completed"}
    if spoken:
        yield _message(new_id, message.role, spoken)


def _inner(part: Text | Media, places: Iterator[str]) -> Item:
    return {"type": "input_text", "text": part.text} if isinstance(part, Text) else _media(part, places)


def _media(media: Media, places: Iterator[str]) -> Item:
    if media.url is not None:
        detail = media.extra.get("detail")
        return _picture(next(places)) | ({} if detail is None else {"detail": detail})
    assert media.data is not None, "one of the two is set"
    if media.mime.startswith("audio/"):
        data = base64.b64encode(media.data).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": media.mime.partition("/")[2]}}
    return {"type": "input_file", "file_data": url_of_media(media), "filename": media.name}


def _unread(wire: dict[str, Any]) -> dict[str, Any]:
    """A message whose pictures are not decoded yet: they are read once, from their items."""
    content = wire.get("content")
    if not isinstance(content, list):
        return wire
    return wire | {"content": [_unread_part(part) for part in content]}


def _unread_part(part: Any) -> Any:
    match part:
        case {"type": "image_url", "image_url": {"url": str()}}:
            return part | {"image_url": part["image_url"] | {"url": ARTIFACT_URL}}
        case {"type": "image_url", "image_url": str()}:
            return part | {"image_url": ARTIFACT_URL}
    return part


def _places(wire: Mapping[str, Any]) -> Iterator[str]:
    content = wire.get("content")
    for part in content if isinstance(content, list) else ():
        match part:
            case {"type": "image_url", "image_url": {"url": str(place)}}:
                yield place
            case {"type": "image_url", "image_url": str(place)}:
                yield place


def _message(new_id: NewId, role: str, content: list[Item]) -> Item:
    return {"id": new_id("msg"), "type": "message", "status": "completed", "role": role, "content": content}


def _picture(place: str) -> Item:
    return {"type": "input_image", "image_url": place, "detail": "auto"}


def _said(role: str, content: list[Item]) -> Item:
    return {"type": "message", "role": role, "content": content}


def _plain(item: Item, sees: Callable[[str], bool]) -> Item:
    """An item without what only clients are told."""
    if (names := _READ.get(item["type"])) is None:
        return item
    plain = {"type": item["type"]} | {name: item[name] for name in names if name in item}
    for name in ("content", "output"):
        if isinstance(plain.get(name), list):
            plain[name] = [_plain_part(part, sees) for part in plain[name]]
    return plain


def _plain_part(part: Item, sees: Callable[[str], bool]) -> Item:
    if part.get("type") == "input_image":
        id_ = artifact_id(str(part.get("image_url")))
        if id_ is not None and not sees(id_):
            return {"type": "input_text", "text": f"[image {id_}]"}
    return {name: value for name, value in part.items() if name not in ("annotations", "logprobs")}


def _parts(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        for name in ("content", "output"):
            parts = item.get(name)
            yield from (part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, dict))


def _seen(part: Part, pictures: Mapping[str, Media]) -> Part:
    match part:
        case Media(url=str(place)) if place in pictures:
            return replace(pictures[place], extra=part.extra, name=None)
        case ToolResult():
            inner = tuple(_seen(one, pictures) for one in part.parts)
            return replace(part, parts=inner)
    return part
