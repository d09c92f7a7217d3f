"""JSON bodies: sound requests of every endpoint, changed a little, a lot, and beyond JSON."""

import gzip
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.claude import fixture as anthropic
from tests.fuzz.ask import JSON, Ask, Header, Key, misbehaves
from tests.fuzz.stage import MISBEHAVING
from tests.http import chat
from tests.wire import fixture as openai


class Verbatim:
    """Text that stands in a body as it is."""

    def __init__(self, text: bytes) -> None:
        self.text = text


class Object(list[list[Any]]):
    """A JSON object as pairs, which may repeat a name."""


def tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Object([[name, tree(inner)] for name, inner in value.items()])
    if isinstance(value, list):
        return [tree(inner) for inner in value]
    return value


def render(value: Any) -> bytes:
    if isinstance(value, Verbatim):
        return value.text
    if isinstance(value, Object):
        return b"{%s}" % b",".join(b"%s:%s" % (render(name), render(inner)) for name, inner in value)
    if isinstance(value, list):
        return b"[%s]" % b",".join(render(inner) for inner in value)
    return json.dumps(value, ensure_ascii=False).encode()


_TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {"at": {}}}}
_SCHEMA = {"name": "answer", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
_CHAT = chat(
    "up/answer",
    n=1,
    tools=[{"type": "function", "function": _TOOL}, {"type": "custom", "custom": {"name": "free"}}],
    tool_choice={"type": "function", "function": {"name": "look"}},
    response_format={"type": "json_schema", "json_schema": _SCHEMA},
    reasoning_effort="low",
    logprobs=True,
    top_logprobs=2,
    logit_bias={"50256": -100},
    metadata={"a": "b"},
    stream_options={"include_usage": True},
)
_LEGACY = chat("up/answer", functions=[_TOOL], function_call={"name": "look"})
SEEDS: dict[bytes, list[Any]] = {
    b"/v1/chat/completions": [
        tree(one)
        for one in (_CHAT, _LEGACY, json.loads(openai("request.json")), json.loads(anthropic("request_chat.json")))
    ],
    b"/v1/completions": [
        tree(
            {
                "model": "m",
                "prompt": ["a", "b"],
                "max_tokens": 5,
                "suffix": "z",
                "echo": True,
                "logprobs": 2,
                "best_of": 1,
            }
        ),
        tree({"model": "m", "prompt": [[1, 2], [3]], "stop": ["x"], "n": 2, "logit_bias": {"1": 2}}),
        tree({"model": "m", "prompt": "once", "stream_options": {"include_usage": True}, "temperature": 0}),
    ],
    b"/v1/embeddings": [
        tree({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 4, "user": "u"}),
        tree({"model": "m", "input": [[1, 2], [3]], "encoding_format": "float"}),
    ],
    b"/v1/rerank": [
        tree({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}),
    ],
    b"/v1/responses": [
        tree(json.loads(openai("responses_request.json"))),
        tree({"model": "m", "input": "Hello.", "store": True, "previous_response_id": "resp_0"}),
        tree({"model": "m", "input": [{"role": "user", "content": "x"}], "text": {"format": {"type": "json_object"}}}),
    ],
    b"/v1/images/generations": [
        tree({"model": "m", "prompt": "a heron", "n": 1, "size": "1024x1024", "quality": "high", "partial_images": 1}),
        tree({"model": "m", "prompt": "a heron", "response_format": "b64_json", "style": "vivid", "user": "u"}),
    ],
    b"/v1/images/edits": [
        tree(
            {
                "model": "m",
                "prompt": "more",
                "images": [{"image_url": "data:image/png;base64,iVBORw0KGgo="}],
                "mask": None,
            }
        )
    ],
    b"/v1/messages": [
        tree(json.loads(anthropic(name)))
        for name in ("request.json", "request_documents.json", "request_chat.messages.json")
    ],
    b"/v1/messages/count_tokens": [tree(json.loads(anthropic("request.json")))],
    b"/v1/generate": [
        tree(
            {
                "model": "m",
                "input": {"prompt": "x"},
                "parameters": {"temperature": 0.2, "max_tokens": 20, "stop": ["z"]},
            }
        ),
        tree(
            {
                "model": "m",
                "input": {
                    "messages": [{"role": "user", "content": "x"}],
                    "images": ["data:image/png;base64,iVBORw0KGgo="],
                },
                "modality": "text",
                "state": {},
                "selection_mode": "auto",
            }
        ),
    ],
}
MODELS = ("up/answer", "claude/text", "fake/fake", "speaks/spoken", "all-answer", "auto")

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 5e-324, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30,
    "", " ", "a", "null", "-1", "\x00", "\u2028", "\U0001f600", "x" * 5000, "{{", "%s%n", "../../etc/passwd",
    "function", "text", "image_url", "tool", "assistant", "system", "json_schema", "auto", "none", "required",
    "ephemeral",
    "data:", "data:image/png;base64,", "data:image/png;base64,!!!", "data:,x", "http://[::1", "https://", "file:///x",
    "http://127.0.0.1:9/x", "iVBORw0KGgo=", "resp_0", "gpt-5", "claude/thinking", "up/", "/", "nobody/x", "*",
    [], {}, [[]], [None], [{}], [1, "a", None], {"": 0}, {"type": "text"}, {"type": None}, {"a": {"b": [{}]}},
    {"type": "object", "properties": {"$ref": "#"}}, {"$ref": "#/$defs/x"}, {"role": "user"}, {"type": "function"},
    Verbatim(b"NaN"), Verbatim(b"Infinity"), Verbatim(b"-Infinity"), Verbatim(b"1e999"), Verbatim(b"-1e999"),
    Verbatim(b"01"), Verbatim(b"+1"), Verbatim(b"1."), Verbatim(b"0x1"), Verbatim(b"1" * 400), Verbatim(b"1" * 5000),
    Verbatim(b"0." + b"1" * 400), Verbatim(b"1e-5000"), Verbatim(b'"\\ud800"'), Verbatim(b'"\\udc00\\ud800"'),
    Verbatim(b'"\\ud83d\\ude00"'), Verbatim(b'"\\u0000"'), Verbatim(b'"\\x"'), Verbatim(b'"\xff\xfe"'),
    Verbatim(b'"\xed\xa0\x80"'), Verbatim(b'"\n"'), Verbatim(b"'a'"), Verbatim(b"undefined"), Verbatim(b""),
    Verbatim(b"/**/1"), Verbatim(b"[1,]"), Verbatim(b"[" * 62 + b"]" * 62), Verbatim(b"[" * 5000),
    Verbatim(b"[" * 5000 + b"]" * 5000), Verbatim(b'{"a":' * 60 + b"1" + b"}" * 60), Verbatim(b'{"a":' * 3000),
)  # fmt: skip

_WHOLE = (
    b"", b" ", b"null", b"true", b"0", b'"x"', b"[]", b"[{}]", b"{}", b"{", b"}", b"\x00", b"\xff", b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"a":' * 100_000, b'"' * 9, b"{}{}", b"{} x", b'{"model"}', b'{"":""}',
    b'{"messages":[],"messages":[{}]}', b"a=b&c=d", b"--x\r\n\r\n--x--\r\n", b"[]" * 20_000, b"\\" * 5000,
    b'"\\' * 5000,
)  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, int]]:
    """Where a value may be changed: the pair or list that holds it, and its index there."""
    if isinstance(value, Object):
        for pair in value:
            yield pair, 1
            yield from _places(pair[1])
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield value, n
            yield from _places(inner)


def _objects(value: Any) -> Iterator[Object]:
    if isinstance(value, Object):
        yield value
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner[1] if isinstance(value, Object) else inner)


def _copy(value: Any) -> Any:
    if isinstance(value, Object):
        return Object([[name, _copy(inner)] for name, inner in value])
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


_POOL = [holder[n] for seeds in SEEDS.values() for seed in seeds for holder, n in _places(seed)]
"""Every value of every seed: what is right in one place is wrong in another."""
_NAMES = sorted({pair[0] for seeds in SEEDS.values() for seed in seeds for one in _objects(seed) for pair in one})


def _put(body: Object, name: str, value: Any) -> None:
    body[:] = [[name, value], *(pair for pair in body if pair[0] != name)]


def mutate(body: Object, chance: Random) -> None:
    """One change somewhere in a body."""
    holder, at = chance.choice(list(_places(body)) or [([None], 0)])
    match chance.randrange(8):
        case 0 | 1:
            holder[at] = tree(chance.choice(JUNK))
        case 2:
            holder[at] = _copy(chance.choice(_POOL))
        case 3:
            owner = chance.choice(list(_objects(body)))
            if owner:
                del owner[chance.randrange(len(owner))]
        case 4:
            owner = chance.choice(list(_objects(body)))
            owner.append([chance.choice(_NAMES), _copy(chance.choice(_POOL))])
        case 5:
            owner = chance.choice(list(_objects(body)))
            if owner:
                pair = chance.choice(owner)
                owner.append([pair[0], tree(chance.choice(JUNK))])
        case 6:
            holder[at] = [holder[at]] if chance.random() < 0.5 else Object([["type", holder[at]]])
        case 7 if chance.random() < 0.2:
            _put(body, "n", Verbatim(b"9" * 5000))  # Python refuses to read so many digits
        case _:
            if isinstance(holder[at], list) and not isinstance(holder[at], Object) and holder[at]:
                holder[at] = holder[at] * chance.choice((0, 2, 3, 40))


def spoil(body: bytes, chance: Random) -> bytes:
    """One change to a body's bytes."""
    at = chance.randrange(len(body) + 1)
    match chance.randrange(8):
        case 0:
            return body[:at]
        case 1:
            return (
                body[:at] + chance.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xf4\x90\x80\x80")) + body[at:]
            )
        case 2:
            return b"\xef\xbb\xbf" + body
        case 3:
            return body.decode("utf-8", "replace").encode("utf-16" if at % 2 else "utf-32")
        case 4:
            return body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
        case 5:
            return body + chance.choice((b"x", b"{}", b"\n\n", b"\x00", body))
        case 6:
            return chance.choice(_WHOLE)
        case _:
            return body[at:] + body[:at]


def compress(body: bytes, chance: Random) -> tuple[bytes, tuple[Header, ...]]:
    """Compressed, more or less."""
    packed = gzip.compress(body, 1)
    coding = chance.choice((b"gzip", b"deflate", b"br", b"identity", b"gzip, gzip", b"x-gzip"))
    match chance.randrange(4):
        case 0:
            packed = packed[: chance.randrange(len(packed))]
        case 1:
            packed = gzip.compress(bytes(chance.choice((10_000, 3_000_000))), 9)
        case 2:
            packed = body
    return packed, ((b"content-encoding", coding),)


def ask(chance: Random) -> Ask:
    """A request with a JSON body that may be anything but sound."""
    target = chance.choice(sorted(SEEDS))
    body = _copy(chance.choice(SEEDS[target]))
    model = chance.choice(MODELS) if chance.random() < 0.9 else "up/" + chance.choice(MISBEHAVING)
    _put(body, "model", model)
    if chance.random() < 0.4:
        _put(body, "stream", True)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        mutate(body, chance)
    data, headers = render(body), [JSON]
    if chance.random() < 0.15:
        data = spoil(data, chance)
    if chance.random() < 0.05 and not misbehaves(data):
        data, coding = compress(data, chance)
        headers += coding
    if target.startswith(b"/v1/messages") and chance.random() < 0.7:
        headers += [(b"anthropic-version", b"2023-06-01")]
    if chance.random() < 0.05:
        headers += [(b"x-gateway-strict", b"true"), (b"x-gateway-explain", b"true")]
    locked = chance.random() < 0.3
    return Ask(target=target, headers=tuple(headers), body=data, locked=locked, key=Key.GOOD if locked else Key.NONE)
