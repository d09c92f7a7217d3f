"""The bodies that generating endpoints read, and every parameter in them as JSON Schema.

The types are those of the structs that read them, the ranges and words those that `compat` checks them against; what
they mean is in `gateway.schema.words`.  Both /openapi.json and /v1/schema are written from here.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from compat import mesh, native, nativetask
from compat.anthropic import envelope as anthropic
from compat.anthropic import messages
from compat.anthropic.body import MessagesRequest
from compat.canonical.model import Modality
from compat.canonical.request import Dialect, Envelope, Request
from compat.openai import chat, completions, embeddings, images, limits, llamafield, rerank, responses
from compat.openai.limits import Limits
from gateway.schema.words import WORDS, Word

REFS = "#/components/schemas/{name}"

Json = dict[str, Any]


class Body(Struct, frozen=True, kw_only=True, eq=False):
    """What one endpoint reads, for one modality."""

    path: str
    dialect: Dialect
    modality: Modality
    struct: type[Struct]
    peek: Callable[[bytes], Envelope]
    parse: Callable[[Envelope], Request]
    start: Json
    """The least that can be asked."""
    required: tuple[str, ...] = ()
    """Besides those that the struct has no default for."""
    limits: Limits = {}
    words: Mapping[str, tuple[str, ...]] = {}
    """What texts may be, where a table says it."""
    more: Mapping[str, tuple[str, ...]] = {}
    """Fields that pass through unread, and what they may be in JSON; see `KINDS` of the dialects."""
    lent: tuple[str, ...] = ()
    """Fields that pass through unread, and are the native dialect's parameters of the same name."""
    parts: Mapping[str, str] = {}
    """Objects of the body whose fields are parameters: the field, and its struct."""
    takes: frozenset[str] | None = None
    """Of the parameters in `parameters`, those of this modality; None: there is no such object."""

    @property
    def name(self) -> str:
        """Of the body among the document's schemas."""
        return self.struct.__name__


_SAY = [{"role": "user", "content": "Say hello."}]
_PICTURE = WORDS["images"].examples[0]


def _passing(kinds: Mapping[str, tuple[str, ...]], struct: type[Struct]) -> dict[str, tuple[str, ...]]:
    """What is looked at and not read, in a text dialect; engines of local models have more."""
    read = frozenset(struct.__struct_encode_fields__)
    return {name: kind for name, kind in {**llamafield.KINDS, **kinds}.items() if name not in read}


def _drawn(modality: str, struct: type[Struct]) -> tuple[str, ...]:
    """The parameters of a modality that a dialect has no field of its own for."""
    return tuple(sorted(nativetask.TAKES[modality] - frozenset(struct.__struct_encode_fields__)))


def _native(modality: Modality, given: Json) -> Body:
    return Body(
        path="/v1/generate",
        dialect="native",
        modality=modality,
        struct=native.Generate,
        peek=native.peek,
        parse=native.parse_request,
        start={"input": given, "modality": modality},
        # A parameter is one thing for all modalities: `seed` has no range, for texts may have any.
        limits={"parameters.n": images.LIMITS["n"]},
        parts={"input": "Input", "parameters": "Parameters"},
        takes=nativetask.TAKES[modality],
    )


# A table already, whose rows are written out: so that the type checker holds each reader to its type, and whoever looks
# for what reads a path finds it by searching.
BODIES = (
    Body(
        path="/v1/chat/completions",
        dialect="chat",
        modality="text",
        struct=chat.ChatRequest,
        peek=chat.peek,
        parse=chat.parse_request,
        start={"messages": _SAY},
        limits=limits.CHAT,
        words={"reasoning_effort": limits.EFFORTS, "verbosity": limits.VERBOSITIES},
        more=_passing(chat.KINDS, chat.ChatRequest),
    ),
    Body(
        path="/v1/completions",
        dialect="completions",
        modality="text",
        struct=completions.CompletionRequest,
        peek=completions.peek,
        parse=completions.parse_request,
        start={"prompt": "Say hello."},
        limits=limits.COMPLETIONS,
        more=_passing(completions.KINDS, completions.CompletionRequest),
    ),
    Body(
        path="/v1/responses",
        dialect="responses",
        modality="text",
        struct=responses.ResponsesRequest,
        peek=responses.peek,
        parse=responses.parse_request,
        start={"input": "Say hello."},
        limits=limits.RESPONSES,
        words={"truncation": responses.TRUNCATIONS},
    ),
    Body(
        path="/v1/messages",
        dialect="messages",
        modality="text",
        struct=MessagesRequest,
        peek=anthropic.peek,
        parse=messages.parse_request,
        start={"messages": _SAY, "max_tokens": 64},
        required=("max_tokens",),
    ),
    Body(
        path="/v1/embeddings",
        dialect="embeddings",
        modality="embedding",
        struct=embeddings.EmbeddingsRequest,
        peek=embeddings.peek,
        parse=embeddings.parse_request,
        start={"input": "Hello."},
        limits=limits.EMBEDDINGS,
        words={"encoding_format": embeddings.ENCODINGS},
    ),
    Body(
        path="/v1/rerank",
        dialect="rerank",
        modality="rerank",
        struct=rerank.RerankBody,
        peek=rerank.peek,
        parse=rerank.parse_request,
        start={"query": "What makes honey?", "documents": ["Bees do.", "Wasps do not."]},
        limits=limits.RERANK,
    ),
    Body(
        path="/v1/images/generations",
        dialect="images",
        modality="image",
        struct=images.ImagesRequest,
        peek=images.peek,
        parse=images.parse_request,
        start={"prompt": "A lighthouse."},
        limits=images.LIMITS,
        words={"response_format": images.PLACES},
        lent=_drawn("image", images.ImagesRequest),
    ),
    Body(
        path="/v1/images/edits",
        dialect="image_edits",
        modality="image",
        struct=images.ImageEditRequest,
        peek=images.peek_edit,
        parse=images.parse_edit,
        start={"prompt": "At night.", "images": _PICTURE},
        required=("images",),
        limits=images.LIMITS,
        words={"response_format": images.PLACES},
        lent=_drawn("image", images.ImageEditRequest),
    ),
    Body(
        path="/v1/3d/generations",
        dialect="3d",
        modality="3d",
        struct=mesh.MeshBody,
        peek=mesh.peek,
        parse=mesh.parse_request,
        start={"prompt": "A chair."},
        limits=mesh.LIMITS,
        lent=_drawn("3d", mesh.MeshBody),
    ),
    _native("text", {"prompt": "Say hello."}),
    _native("image", {"prompt": "A lighthouse."}),
    _native("3d", {"prompt": "A chair."}),
    _native("embedding", {"prompt": "Hello."}),
)


@cache
def components() -> dict[str, Json]:
    """The schemas of all bodies by their names, and of what is in them, every parameter described."""
    _, found = msgspec.json.schema_components(dict.fromkeys(body.struct for body in BODIES), ref_template=REFS)
    lent = found["Parameters"]["properties"]
    for body in {body.struct: body for body in BODIES}.values():
        whole = found[body.name]
        properties = whole["properties"]
        for name, kinds in body.more.items():
            properties[name] = _of_kinds(name, kinds, body)
        for name in body.lent:
            properties.setdefault(name, dict(lent[name]))
        whole["properties"] = {name: _said(name, given, body) for name, given in properties.items()}
        whole["required"] = [*whole["required"], *(name for name in body.required if name not in whole["required"])]
        for part, struct in body.parts.items():
            inner = found[struct]["properties"]
            found[struct]["properties"] = {n: _said(f"{part}.{n}", given, body) for n, given in inner.items()}
    return found


@cache
def parameters(body: Body) -> dict[str, Json]:
    """The parameters of a body by the names that errors call them by, those inside its objects as OBJECT.NAME."""
    known = components()
    out = dict(known[body.name]["properties"])
    for part, struct in body.parts.items():
        del out[part]
        for name, schema in known[struct]["properties"].items():
            if part != "parameters" or body.takes is None or name in body.takes:
                out[f"{part}.{name}"] = schema
    return out


def word(body: Body, name: str) -> Word:
    """Raises KeyError for a parameter that nothing is said of: a test sees to it that there is none."""
    bare = name.rpartition(".")[2]
    keys = (f"{body.dialect}.{name}", f"{body.dialect}.{bare}", bare)
    return WORDS[next((key for key in keys if key in WORDS), name)]


def _of_kinds(name: str, kinds: tuple[str, ...], body: Body) -> Json:
    """The schema of a field of which only its kind is looked at."""
    whole = isinstance(body.limits.get(name, (0.0, None))[0], int) or name in llamafield.LIMITS
    types = ["integer" if kind == "number" and whole else kind for kind in kinds]
    return {"type": [*types, "null"], "default": None}


def _said(name: str, given: Json, body: Body) -> Json:
    """A parameter's schema with what else is known of it."""
    out = _flat(given)
    least, most = body.limits.get(name, (None, None))
    out |= {} if least is None else {"minimum": least}
    out |= {} if most is None else {"maximum": most}
    if (words := body.words.get(name)) is not None:
        out["enum"] = [*words, None] if "null" in out.get("type", ()) else list(words)
    about = word(body, name)
    if "default" in out and about.default is not None:
        out["default"] = about.default
    return out | {"description": about.text} | ({"examples": list(about.examples)} if about.examples else {})


def _flat(given: Json) -> Json:
    """The same schema, where it is of one type or null in one piece."""
    choices = given.get("anyOf")
    if choices is None:
        return {**given}
    others = [one for one in choices if one != {"type": "null"}]
    if len(others) != 1 or "$ref" in others[0] or len(others) == len(choices):
        return {**given}
    (only,) = others
    rest = {name: value for name, value in given.items() if name != "anyOf"}
    out = {**only, **rest}
    if "enum" in only:
        out |= {"type": ["string", "null"], "enum": [*only["enum"], None]}
    else:
        out["type"] = [only["type"], "null"]
    return out
