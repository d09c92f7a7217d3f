"""The items of OpenAI's Responses API: what a model is given and what it gives, in one kind of list.

Items are held as decoded JSON: they are stored, listed and handed on whole, unknown fields included.
`normalized` refuses what is not of the right shape and gives each the fields that OpenAI's lists show; `sound` mends
the shape of what was kept before; `parse_items` reads both as messages.
Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from compat.openai.custom import wrapped
from compat.openai.part import media_of_url

Item = dict[str, Any]
NewId = Callable[[str], str]
"""Prefix → a fresh id."""

_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "developer", "assistant": "assistant"}
_TEXTS = frozenset({"input_text", "output_text", "text"})
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_PREFIXES |= {"custom_tool_call": "ctc", "custom_tool_call_output": "ctco"}
_CALLS = {"function_call": ("call_id", "name", "arguments"), "custom_tool_call": ("call_id", "name", "input")}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_ALSO: dict[str, Item] = {"output_text": {"annotations": [], "logprobs": []}, "input_image": {"detail": "auto"}}
"""What OpenAI shows of these parts whether it was given or not."""
_QUIET = frozenset({"type", "text", "annotations", "logprobs"})
_TOLD = frozenset({"content", "summary"})
"""Where a reasoning item has its parts."""
_MODELS_OWN = frozenset({"mcp_list_tools", "mcp_approval_request", "compaction", "program"})
"""Besides the calls, what a model or its provider wrote; everything else of a foreign kind was for it to read."""
_KINDS = frozenset(
    {
        *_PREFIXES, *_MODELS_OWN, "apply_patch_call", "apply_patch_call_output", "code_interpreter_call",
        "computer_call", "computer_call_output", "file_search_call", "image_generation_call", "local_shell_call",
        "local_shell_call_output", "mcp_approval_response", "mcp_call", "shell_call", "shell_call_output",
        "tool_search_call", "tool_search_output", "web_search_call",
    }
)  # fmt: skip
"""The items that OpenAI knows."""
_PARTS = _TEXTS | {
    "computer_screenshot", "input_audio", "input_file", "input_image", "reasoning_text", "refusal", "summary_text"
}  # fmt: skip
"""And the parts of their content."""
_is_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch

_SIGNED, _REDACTED = "pluggably.s.", "pluggably.r."
"""How a signature, or a redacted block, of another dialect stands in `encrypted_content`: a client brings
back what it was given, and what another provider encrypted must not pass for a signature."""


def seal(signature: str | None, redacted: str | None) -> str | None:
    """The `encrypted_content` of a reasoning item; None when there is nothing to prove."""
    if redacted is not None:
        return _REDACTED + redacted
    return None if signature is None else _SIGNED + signature


def is_sealed_here(item: Item) -> bool:
    """Whether a reasoning item means nothing to OpenAI, since it was made by another dialect's provider."""
    sealed = item.get("encrypted_content")
    return item.get("type") == "reasoning" and (not isinstance(sealed, str) or sealed.startswith((_SIGNED, _REDACTED)))


def unsealed(item: Item, include: Iterable[str]) -> Item:
    """An item as a client sees it, which gets `encrypted_content` only if it asked."""
    if "encrypted_content" not in item or "reasoning.encrypted_content" in include:
        return item
    return {name: value for name, value in item.items() if name != "encrypted_content"}


def normalized(given: str | list[Item] | None, new_id: NewId) -> list[Item]:
    """The items of an `input`, whole as OpenAI would list them.  Raises InvalidRequest."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_normalized(item, f"input[{n}]", new_id) for n, item in enumerate(given)]


def check_known(items: Iterable[Item], at: str) -> None:
    """Refuse normalized items and parts of types that nobody knows.  Raises InvalidRequest."""
    for n, item in enumerate(items):
        if item["type"] not in _KINDS:
            raise _refused(f"{at}[{n}].type", item["type"][:100])
        for name in ("content", "output"):
            parts = item.get(name) if item["type"] == "message" or item["type"] in _OUTPUTS else None
            for i, part in enumerate(parts if isinstance(parts, list) else ()):
                if part["type"] not in _PARTS:
                    raise _refused(f"{at}[{n}].{name}[{i}].type", part["type"][:100])


def sound(item: Item) -> Item:
    """An item that was kept, in a shape in which all can read it: providers' need not be, nor what was not looked at
    when it came.  It has a type."""
    kind = item["type"]
    mended: Item = {}
    if kind == "message":
        if not isinstance(role := item.get("role"), str) or role not in _ROLES:
            mended["role"] = "assistant"
        spoken = mended.get("role", role) == "assistant"
        mended["content"] = _sound_parts(item.get("content"), "output_text" if spoken else "input_text")
    elif kind == "reasoning":
        mended = {name: _sound_parts(item[name], "reasoning_text") for name in _TOLD if item.get(name) is not None}
        mended.setdefault("summary", [])
    elif kind in _CALLS:
        mended = {name: "" for name in _CALLS[kind] if not isinstance(item.get(name), str)}
    elif kind in _OUTPUTS:
        if not isinstance(item.get("call_id"), str):
            mended["call_id"] = ""
        if not isinstance(output := item.get("output"), str):
            mended["output"] = _sound_parts(output, "input_text")
    return item | mended if mended else item


def parse_items(items: Iterable[Item], *, past: bool = False) -> tuple[Message, ...]:
    """Read normalized items as messages.  Raises InvalidRequest.

    past: what cannot be carried over is left out, as hosted tools' calls are: nobody can take it back.
    What a model said in one go is one message: the chat dialect wants a turn's calls together, and
    Anthropic wants its thinking before them.
    """
    messages: list[Message] = []
    said: list[Part] = []

    def close() -> None:
        if said:
            messages.append(Message(role="assistant", parts=tuple(said)))
            said.clear()

    for n, item in enumerate(items):
        at, kind = f"input[{n}]", item["type"]
        if kind == "message" and item["role"] != "assistant":
            parts, lost = _parse_parts(item["content"], f"{at}.content", past=past)
            said += lost
            close()
            if parts or not lost:
                messages.append(Message(role=item["role"], parts=parts))
        elif kind == "message":
            if said and isinstance(said[-1], Text):
                close()
            said += [_parse_spoken(part, f"{at}.content[{i}]", past=past) for i, part in enumerate(item["content"])]
        elif kind == "reasoning":
            said.append(parse_thought(item))
        elif kind == "function_call":
            said.append(ToolCall(id=item["call_id"], name=item["name"], arguments=item["arguments"]))
        elif kind == "custom_tool_call":
            said.append(ToolCall(id=item["call_id"], name=item["name"], arguments=wrapped(item["input"])))
        elif kind in _OUTPUTS:
            result, lost = _parse_output(item, at, past=past)
            said += lost
            close()
            messages.append(Message(role="tool", parts=(result,)))
        elif kind == "item_reference" and not past:
            raise InvalidRequest(f"Item with id '{item['id']}' not found.", param="input", code=None)
        elif past or kind.endswith("_call") or kind in _MODELS_OWN:
            said.append(Opaque(type=kind, body=item))
        else:
            raise _unreadable(f"{at}.type", kind)
    close()
    return tuple(messages)


def _normalized(item: Item, at: str, new_id: NewId) -> Item:
    kind = item.get("type", "message" if "role" in item else "item_reference" if "id" in item else None)
    if kind is None:
        raise missing(f"{at}.type")
    if not isinstance(kind, str):
        raise _wrong(f"{at}.type", "a string")
    if kind == "item_reference":
        return {"type": kind, "id": _text(item, "id", at)}
    given = item.get("id")
    # One that cannot stand in a path could be listed, and neither be got nor be deleted.
    whole: Item = {"id": given if isinstance(given, str) and _is_id(given) else new_id(_PREFIXES.get(kind, "item"))}
    whole |= {name: value for name, value in item.items() if name != "id"} | {"type": kind}
    if kind == "message":
        role = item.get("role")
        if role is None:
            raise missing(f"{at}.role")
        if not isinstance(role, str):
            raise _wrong(f"{at}.role", "a string")
        if role not in _ROLES:
            raise _refused(f"{at}.role", role)
        whole["content"] = _normalized_content(item.get("content"), f"{at}.content", spoken=role == "assistant")
    elif kind in _CALLS:
        for name in _CALLS[kind]:
            _text(item, name, at)
    elif kind in _OUTPUTS:
        _text(item, "call_id", at)
        output = item.get("output")
        if output is None:
            raise missing(f"{at}.output")
        if not isinstance(output, str):
            whole["output"] = _normalized_content(output, f"{at}.output", spoken=False)
    elif kind == "reasoning":
        whole["summary"] = _thoughts(item, "summary", at) or []
        _thoughts(item, "content", at)
        return whole
    whole["status"] = item.get("status") or "completed"
    return whole


def _normalized_content(content: Any, at: str, *, spoken: bool) -> list[Item]:
    if content is None:
        raise missing(at)
    if isinstance(content, str):
        content = [{"type": "output_text" if spoken else "input_text", "text": content}]
    if not isinstance(content, list):
        raise _wrong(at, "a string or an array")
    parts = []
    for n, part in enumerate(content):
        if not isinstance(part, dict):
            raise _wrong(f"{at}[{n}]", "an object")
        kind = part.get("type")
        if not isinstance(kind, str):
            raise missing(f"{at}[{n}].type")
        if kind in _TEXTS or part.get("text") is not None:
            _text(part, "text", f"{at}[{n}]")
        parts.append(_ALSO.get(kind, {}) | part)
    return parts


def _thoughts(item: Item, name: str, at: str) -> Any:
    """The parts of a reasoning item, or nothing.  Raises InvalidRequest."""
    parts = item.get(name)
    if parts is None:
        return None
    if not isinstance(parts, list):
        raise _wrong(f"{at}.{name}", "an array")
    for n, part in enumerate(parts):
        if not isinstance(part, dict):
            raise _wrong(f"{at}.{name}[{n}]", "an object")
        if part.get("text") is not None:
            _text(part, "text", f"{at}.{name}[{n}]")
    return parts


def _sound_parts(parts: Any, kind: str) -> list[Item]:
    """kind: of a text that is no part."""
    if isinstance(parts, str):
        return [{"type": kind, "text": parts}]
    if not isinstance(parts, list):
        return []
    return [_sound_part(part) for part in parts if isinstance(part, dict) and isinstance(part.get("type"), str)]


def _sound_part(part: Item) -> Item:
    text = part.get("text")
    if not isinstance(text, str) and (text is not None or part["type"] in _TEXTS):
        part = part | {"text": ""}
    notes = part.get("annotations")
    if notes and not (isinstance(notes, list) and all(isinstance(note, dict) for note in notes)):
        part = part | {"annotations": []}
    return part


def _parse_parts(parts: Sequence[Item], at: str, *, past: bool) -> tuple[tuple[Text | Media, ...], tuple[Opaque, ...]]:
    """Those that can be carried over, and those of the past that cannot.  Raises InvalidRequest."""
    read: list[Text | Media] = []
    lost: list[Opaque] = []
    for n, part in enumerate(parts):
        try:
            read.append(_parse_part(part, f"{at}[{n}]"))
        except InvalidRequest:
            if not past:
                raise
            lost.append(Opaque(type=part["type"], body=part))
    return tuple(read), tuple(lost)


def _parse_spoken(part: Item, at: str, *, past: bool) -> Text | Media | Opaque:
    refused = part["type"] == "refusal" and (not past or isinstance(part.get("refusal"), str))
    if refused or part["type"] in _TEXTS:
        return _parse_part(part, at)
    return Opaque(type=part["type"], body=part)


def _parse_part(part: Item, at: str) -> Text | Media:
    kind = part["type"]
    if kind in _TEXTS:
        return Text(text=part["text"], extra={k: v for k, v in part.items() if k not in _QUIET})
    if kind == "refusal":
        return Text(text=_text(part, "refusal", at))
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {} if part.get("detail") in (None, "auto") else {"detail": part["detail"]}
        return media_of_url(part["image_url"], f"{at}.image_url", "image/*", detail)
    if kind == "input_file":
        return _parse_file(part, at)
    audio = part.get("input_audio")
    if kind == "input_audio" and isinstance(audio, dict):
        mime, data = f"audio/{audio.get('format', 'wav')}", _text(audio, "data", f"{at}.input_audio")
        return media_of_url(f"data:{mime};base64,{data}", f"{at}.input_audio.data", mime, {})
    raise _unreadable(f"{at}.type", kind)


def _parse_file(part: Item, at: str) -> Media:
    data, url, name = part.get("file_data"), part.get("file_url"), part.get("filename")
    name = name if isinstance(name, str) else None
    if isinstance(data, str):
        if not data.startswith("data:"):
            data = f"data:application/octet-stream;base64,{data}"
        media = media_of_url(data, f"{at}.file_data", "application/octet-stream", {})
        return Media(mime=media.mime, data=media.data, name=name)
    if isinstance(url, str):
        return Media(mime="application/pdf", url=url, name=name)
    raise _unreadable(f"{at}.type", "input_file")


def parse_thought(item: Item) -> Reasoning:
    """Read a reasoning item: its text or summary, and what was sealed here."""
    sealed = item.get("encrypted_content")
    sealed = sealed if isinstance(sealed, str) else ""
    if sealed.startswith(_REDACTED):
        return Reasoning(text="", redacted=sealed.removeprefix(_REDACTED))
    told = item.get("content") or item.get("summary") or ()
    pieces = [part.get("text") or "" for part in told if isinstance(part, dict)]
    signature = sealed.removeprefix(_SIGNED) if sealed.startswith(_SIGNED) else None
    return Reasoning(text="\n\n".join(str(piece) for piece in pieces), signature=signature)


def _parse_output(item: Item, at: str, *, past: bool) -> tuple[ToolResult, tuple[Opaque, ...]]:
    output = item["output"]
    if isinstance(output, str):
        return ToolResult(id=item["call_id"], parts=(Text(text=output),)), ()
    parts, lost = _parse_parts(output, f"{at}.output", past=past)
    return ToolResult(id=item["call_id"], parts=parts), lost


def _text(item: Item, name: str, at: str) -> str:
    value = item.get(name)
    if value is None:
        raise missing(f"{at}.{name}")
    if not isinstance(value, str):
        raise _wrong(f"{at}.{name}", "a string")
    return value


def _wrong(at: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid type for '{at}': expected {expected}.", param=at, code="invalid_type")


def _unreadable(at: str, kind: str) -> InvalidRequest:
    """The refusal of what the model was to read: to leave it out would change what it is asked."""
    return InvalidRequest(
        f"Invalid value for '{at}': '{kind[:100]}' cannot be carried over to this model's provider.",
        param=at,
        code="invalid_value",
    )


def _refused(at: str, value: Any) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{at}': {value!r}.", param=at, code="invalid_value")
