"""A request of OpenAI's dialects for an engine that does not judge it as OpenAI would.

Engines on this machine answer what OpenAI refuses, fail at what it takes, and pass over fields in silence.
So a request is held to OpenAI's rules first, and what the engine has no place for is taken out by name.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Raw

from compat.body import decode_raw
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media
from compat.canonical.plain import telling
from compat.canonical.request import Envelope, TextRequest, Tool
from compat.openai import chat, completions, embeddings
from compat.openai.legacy import FIELDS

_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_UNHEARD = frozenset(
    {"audio", "metadata", "modalities", "prediction", "service_tier", "store", "verbosity", "web_search_options"}
)
"""Fields of a chat that engines pass over."""
_UNHEARD_TEXT = ("echo", "suffix", "best_of")
"""The same of a completion."""
_write = msgspec.json.Encoder().encode


def mentions_tools(asked: Envelope) -> bool:
    """Whether a chat request has tools, or may have calls or their results among its messages."""
    return any(_given(asked, name) for name in ("tools", "functions")) or b'"tool' in bytes(asked.fields["messages"])


def chooses(asked: Envelope) -> bool:
    """Whether a chat request wants of its tools what engines do not heed: a certain call, or tools of an older or
    another form."""
    if not _given(asked, "tools"):
        return _given(asked, "functions")
    choice = bytes(asked.fields.get("tool_choice", b"null"))
    return choice not in (b"null", b'"auto"', b'"none"') or b'"custom"' in bytes(asked.fields["tools"])


def _given(asked: Envelope, name: str) -> bool:
    return bytes(asked.fields.get(name, b"null")) not in (b"null", b"[]")


def fitted(asked: Envelope, capabilities: Collection[str]) -> tuple[Envelope, tuple[str, ...]]:
    """The request as the engine takes it, and the names of what that leaves out.  Raises InvalidRequest.

    capabilities: `tools` where the model's chat template has a place for them, `vision` where it can see.
    """
    match asked.dialect:
        case "completions":
            completions.check(asked)
            given = {name: decode_raw(asked.fields[name]) for name in _UNHEARD_TEXT if name in asked.fields}
            return asked, tuple(name for name in telling(given) if given[name] != 1 or name == "echo")
        case "embeddings":
            embeddings.parse_request(asked)
        case "chat":
            return _fitted_chat(asked, chat.parse_request(asked), capabilities)
    return asked, ()


def _fitted_chat(
    asked: Envelope, request: TextRequest, capabilities: Collection[str]
) -> tuple[Envelope, tuple[str, ...]]:
    _check_media(request, sees="vision" in capabilities)
    changed: dict[str, Raw | None] = {name: None for name in FIELDS if name in asked.fields}
    lost = [name for name in asked.fields if name in FIELDS]
    lost += [name for name in telling(request.extra) if name in _UNHEARD]
    if "tools" not in capabilities:
        # The model's chat template has no place for them.
        changed |= {name: None for name in _TOOLS if name in asked.fields}
        if bytes(asked.fields.get("tools", b"null")) not in (b"null", b"[]"):
            lost += [name for name in _TOOLS[:2] if name in asked.fields]
    else:
        _fit_tools(asked, request, changed, lost)
    if b'"refusal"' in bytes(asked.fields["messages"]):
        changed["messages"] = Raw(_write([_without_refusal(m) for m in decode_raw(asked.fields["messages"])]))
    if not changed:
        return asked, tuple(lost)
    fields = {name: changed.get(name, raw) for name, raw in asked.fields.items()}
    kept = {name: raw for name, raw in fields.items() if raw is not None}
    return msgspec.structs.replace(asked, fields=kept, body=_write(kept)), tuple(lost)


def _fit_tools(asked: Envelope, request: TextRequest, changed: dict[str, Raw | None], lost: list[str]) -> None:
    """Engines know functions only, and no choice among several of them."""
    raw = asked.fields.get("tools")
    given: list[dict[str, Any]] = decode_raw(raw) or [] if raw is not None else []
    allowed = {tool.name for tool in request.tools if isinstance(tool, Tool)}
    kept = [tool for tool in given if "function" in tool and tool["function"]["name"] in allowed]
    if any("custom" in tool for tool in given):
        lost.append("tools.custom")
    if len(kept) < len(given):
        changed["tools"] = Raw(_write(kept)) if kept else None
    choice = decode_raw(asked.fields["tool_choice"]) if "tool_choice" in asked.fields else None
    if (choice is not None and not kept) or (isinstance(choice, dict) and choice.get("type") != "function"):
        word = request.tool_choice
        plain = word if kept and word in ("auto", "required") else None
        changed["tool_choice"] = Raw(_write(plain)) if plain else None


def _check_media(request: TextRequest, *, sees: bool) -> None:
    """Raises InvalidRequest for what the model cannot look at, and for what its engine would have to fetch."""
    for n, message in enumerate(request.messages):
        for part in message.parts:
            if not isinstance(part, Media):
                continue
            if not sees or not part.mime.startswith("image/"):
                why = f"Invalid content type. '{part.mime}' is not supported by this model."
            elif part.data is None:
                why = "Pictures are not fetched for a local model: send them as data: URLs."
            else:
                continue
            raise InvalidRequest(why, param=f"messages[{n}].content", code="invalid_value")


def _without_refusal(message: dict[str, Any]) -> dict[str, Any]:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        texts = [{"type": "text", "text": p["refusal"]} if p.get("type") == "refusal" else p for p in content]
        return message | {"content": texts}
    if content is None and isinstance(refusal, str):
        return message | {"content": refusal}
    return message
