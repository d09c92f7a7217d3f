"""A request without what only its own dialect, or not every provider, understands."""

from compat.canonical.message import Media, Message, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.plain import plain, without
from compat.canonical.request import Sampling, TextRequest, Tool


def asked(*parts: Part, **fields: object) -> TextRequest:
    return TextRequest(model="m", messages=(Message(role="user", parts=parts),), dialect="messages", **fields)  # type: ignore[arg-type]


def given(*parts: Part) -> tuple[Part, ...]:
    return plain(asked(*parts), "chat")[0].messages[0].parts


def test_its_own_dialect_is_left_alone() -> None:
    request = asked(Media(mime="text/plain", data=b"x", extra={"novelty": 1}), tools=(Opaque(type="t", body={}),))
    assert plain(request, "messages") == (request, ())


def test_documents_of_words_are_words() -> None:
    words = Media(mime="text/plain", data=b"Grass is green.", name="Facts", extra={"context": "Checked."})
    assert given(words) == (Text(text="Facts\n\nChecked.\n\nGrass is green."),)
    assert given(Media(mime="text/csv", data=b"\xff,b")) == (Text(text="\ufffd,b"),)
    pdf = Media(mime="application/pdf", data=b"%PDF-", extra={"context": "A report."})
    assert given(pdf) == (Text(text="A report."), Media(mime="application/pdf", data=b"%PDF-", name="document.pdf"))


def test_what_a_part_says_stands_where_it_stood() -> None:
    found = Opaque(type="search_result", body={"cache_control": {}}, said=(Text(text="a"), Text(text="b")))
    assert given(Text(text="1"), found, Text(text="2")) == tuple(Text(text=t) for t in ("1", "a", "b", "2"))
    result = ToolResult(id="t", parts=(Text(text="1"), found))
    assert given(result) == (ToolResult(id="t", parts=(Text(text="1"), Text(text="a"), Text(text="b"))),)


def test_an_object_says_what_is_in_it() -> None:
    tools = (Tool(name="f", parameters={"type": "object"}), Tool(name="g", parameters={}))
    request = plain(asked(Text(text="x"), tools=tools), "chat")[0]
    assert [tool.parameters for tool in request.tools if isinstance(tool, Tool)] == [
        {"type": "object", "properties": {}},
        {},
    ]


def test_what_a_provider_refuses_is_left_out_and_named() -> None:
    thought, call = Reasoning(text="Hm."), ToolCall(id="a", name="f", arguments="{}")
    turns = (Message(role="assistant", parts=(thought, call)), Message(role="assistant", parts=(thought,)))
    request = TextRequest(model="m", messages=turns, sampling=Sampling(top_k=5, top_p=0.5))
    assert without(request, ()) == (request, ())
    bare, lost = without(request, {"top_k", "reasoning_content"})
    assert bare.messages == (Message(role="assistant", parts=(call,)),)
    assert bare.sampling == Sampling(top_p=0.5)
    assert lost == ("top_k", "reasoning_content")
    assert without(bare, {"top_k", "reasoning_content"}) == (bare, ())
