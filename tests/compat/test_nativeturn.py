"""Native requests as items, and a session's items as what a model is told."""

from itertools import count
from typing import Any

import pytest

from compat import nativeturn
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Produced
from compat.canonical.message import Media, Message, Reasoning, Stored, Text, ToolCall, ToolResult
from compat.nativetask import Input
from compat.openai.responses_item import Item, parse_items

PICTURE = Media(mime="image/png", data=b"png")


def ids() -> Any:
    numbers = count()
    return lambda prefix: f"{prefix}_{next(numbers)}"


def items(**given: Any) -> list[Item]:
    return nativeturn.items_of(Input(**given), ids())


def user(text: str, *places: str) -> Item:
    [item] = items(prompt=text, images=list(places))
    return item


def made(id_: str, kind: str = "image") -> Item:
    return {"type": "artifact", "id": id_, "kind": kind, "mime": "image/png", "bytes": 3, "sha256": "0"}


def test_a_prompt_with_pictures_is_one_message() -> None:
    [item] = items(prompt="See?", images=["art_1", "https://x.test/y.png"])
    assert (item["role"], item["content"][0]) == ("user", {"type": "input_text", "text": "See?"})
    assert list(nativeturn.places_of([item])) == ["art_1", "https://x.test/y.png"]
    [moved] = nativeturn.moved([item], {"art_1": "artifact:art_1"})
    assert list(nativeturn.places_of([moved])) == ["artifact:art_1", "https://x.test/y.png"]
    assert list(nativeturn.places_of([item])) == ["art_1", "https://x.test/y.png"], "the other stays as it was"


def test_chat_messages_come_back_as_they_were() -> None:
    wire: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See?"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": "Wait.",
            "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "sig"}],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "A cat."},
    ]
    assert nativeturn.parse_shown(items(messages=wire), {"u": PICTURE}) == (
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(role="user", parts=(Text(text="See?"), PICTURE)),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="Hm.", signature="sig"),
                Text(text="Wait."),
                ToolCall(id="c1", name="look", arguments="{}"),
            ),
        ),
        Message(role="tool", parts=(ToolResult(id="c1", parts=(Text(text="A cat."),)),)),
    )


def test_files_and_sounds_stay_in_their_items() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}
    [message] = parse_items(items(messages=[{"role": "user", "content": [sound, file]}]))
    assert message.parts == (
        Media(mime="audio/wav", data=b"\0\0\0"),
        Media(mime="application/pdf", data=b"\0\0\0", name="a.pdf"),
    )


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "input.prompt"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "input.messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}], "images": ["art_1"]}, "input.images"),
    ],
)
def test_what_cannot_be_said_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        items(**given)
    assert refused.value.param == param


def test_what_was_made_is_seen_with_what_the_user_says_next() -> None:
    line = [user("a cat"), made("art_1"), user("Bigger.")]
    first, note, last = nativeturn.parse_shown(nativeturn.shown(line, lambda _: True), {"artifact:art_1": PICTURE})
    assert first.parts == (Text(text="a cat"),)
    assert (note.role, note.parts) == ("assistant", (Text(text="[image art_1: a cat]"),))
    assert (last.role, last.parts) == ("user", (PICTURE, Text(text="Bigger.")))


def test_of_several_there_is_one_note() -> None:
    line = [user("cats"), made("art_1"), made("art_2", "mesh"), user("And?")]
    messages = nativeturn.parse_shown(nativeturn.shown(line, lambda _: False), {})
    assert [message.role for message in messages] == ["user", "assistant", "user"]
    assert messages[1].parts == (Text(text="[image art_1: cats]\n[mesh art_2: cats]"),)


def test_a_picture_that_is_not_seen_is_spoken_of() -> None:
    [message] = nativeturn.parse_shown(nativeturn.shown([user("See?", "artifact:art_9")], lambda _: False), {})
    assert message.parts == (Text(text="See?"), Text(text="[image art_9]"))


def test_what_a_provider_keeps_is_no_artifact_of_ours() -> None:
    stored = Stored(id="art_1", url="u", expires_at=0.0, size_bytes=3, sha256="0")
    kept = Produced(media=Media(mime="image/png", data=b"png", extra={"stored": stored}))
    mesh = Produced(media=Media(mime="model/gltf-binary", url="https://x.test/m"))
    found = nativeturn.made([kept, mesh], ids())
    assert [item["kind"] for item in found] == ["image", "mesh"]
    assert nativeturn.made_ids(found) == ["art_1"]
    assert nativeturn.made_ids(found, "mesh") == []


def test_a_transcript_is_in_plain_words() -> None:
    wire = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "Rain."},
    ]
    assert nativeturn.transcript([*items(messages=wire), made("art_1")]) == (
        "user: Weather?\nassistant calls look: {}\ntool: Rain.\nassistant: [image art_1: Weather?]"
    )
