"""Anthropic's Messages: requests, both directions, for the translated lane.

`parse_request` and `render_request` are inverse where a request was written in this dialect; one that
comes from another is put in Anthropic's terms, and what has none is named.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from compat.anthropic.abilities import Abilities, Thought, abilities, effort_of, thought
from compat.anthropic.body import FIELDS, Choice, WireMessage, read_body, read_tool, wrong
from compat.anthropic.part import Blocks, parse_content
from compat.body import decode_raw, missing
from compat.canonical.error import InvalidRequest, Rejected
from compat.canonical.message import Media, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from compat.canonical.plain import telling
from compat.canonical.request import Envelope, Sampling, Schema, TextRequest, Tool

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EMPTY = "text content blocks must be non-empty"
_NO_THREADS: dict[str, Any] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
"""What clients that would have the provider keep their conversation take as the hint not to."""
_SPOKEN: dict[type, str] = {Reasoning: "thinking", ToolCall: "tool_use"}
_HEARD: dict[type, str] = {ToolResult: "tool_result", Media: "image"}
"""Blocks that only the model, and only the user, can have said."""
_CHOICES_OUT = {"auto": "auto", "required": "any", "none": "none"}


def parse_request(envelope: Envelope) -> TextRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = read_body(envelope)
    fields = envelope.fields
    if body.thread is not None:
        # The provider would keep the conversation, and the next request bring only what is new of it.
        raise Rejected(
            "thread: this model's provider keeps no threads; send the whole conversation.",
            type="invalid_request_error",
            code=_NO_THREADS["error_code"],
            details=_NO_THREADS,
        )
    messages = [_parse_message(m, f"messages[{n}]") for n, m in enumerate(body.messages)]
    if system := parse_content(body.system, "system"):
        for n, part in enumerate(system):
            if not isinstance(part, Text):
                raise wrong(f"system[{n}].type", "Input should be 'text'")
            if not part.text and not isinstance(body.system, str):
                raise wrong(f"system[{n}].text", _EMPTY)
        messages.insert(0, Message(role="system", parts=system))
    extra = {name: decode_raw(raw) for name, raw in fields.items() if name not in FIELDS}
    choice, parallel = _parse_choice(body.tool_choice)
    tools = _parse_tools(body.tools or (), choice)
    # What of these objects is not understood is this dialect's own: it is kept, to be written back or named.
    config = _object(fields.get("output_config"))
    format_, config["format"] = config.pop("format", None) or _object(fields.get("output_format")), None
    schema = Schema(name="answer", schema=format_["schema"]) if format_ else None
    thinking = _object(fields.get("thinking"))
    effort = effort_of(thinking, config)
    config["effort"] = None
    if thinking and (effort is None or thinking["type"] not in ("enabled", "adaptive")):
        extra["thinking"] = thinking
    if config := {name: value for name, value in config.items() if value is not None}:
        extra["output_config"] = config
    metadata = _object(fields.get("metadata"))
    user = metadata.pop("user_id", None)
    if metadata:
        extra["metadata"] = metadata
    return TextRequest(
        model=envelope.model,
        messages=tuple(messages),
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            max_tokens=body.max_tokens,
            stop=tuple(body.stop_sequences or ()),
        ),
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        schema=schema,
        effort=effort,
        user=user,
        extra=extra,
        dialect="messages",
    )


def render_request(request: TextRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
    """Write a request, and name what of it has no place there.

    Raises InvalidRequest for content that the model was to read and cannot be written.
    """
    able = abilities(request.model)
    blocks = Blocks(request.dialect)
    system, messages = _render_messages(request, blocks)
    s = request.sampling
    lost = blocks.lost
    forced = request.tool_choice is not None and request.tool_choice not in ("auto", "none")
    asked = thought(request.effort, s.max_tokens, able, forced=forced)
    if any(not stop.strip() for stop in s.stop):
        lost["stop"] = None  # it takes none that is white space alone
    if not asked.carried:
        lost["reasoning_effort"] = None
    # Anthropic's own compatible endpoint takes its field from OpenAI's clients too.
    thinking = request.extra.get("thinking", asked.thinking)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": asked.max_tokens,
        "system": system,
        "messages": messages,
        **_samplers(s, able, thinking, lost),
        "stop_sequences": [stop for stop in s.stop if stop.strip()] or None,
        "tools": [_render_tool(tool, blocks, able) for tool in _tools(request, lost)] or None,
        "tool_choice": _render_choice(request),
        "thinking": thinking,
        "output_config": _render_config(request, able, asked, lost),
        "metadata": _render_metadata(request),
        "container": _render_container(request.state.get("container")),
    }
    body = {name: value for name, value in body.items() if value is not None}
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        if getattr(s, name):
            lost[name] = None
    if request.choices > 1:
        lost["n"] = None
    if request.dialect == "messages":
        body |= {name: value for name, value in request.extra.items() if name not in body}
    else:
        lost |= dict.fromkeys(name for name in telling(request.extra) if name != "thinking")
    if stream:
        body["stream"] = True
    return msgspec.json.encode(body), tuple(lost)


def _parse_message(wire: WireMessage, at: str) -> Message:
    if wire.role not in _ROLES:
        raise wrong(f"{at}.role", f'Unexpected role "{wire.role[:40]}"')
    parts = parse_content(wire.content, f"{at}.content")
    others = _HEARD if wire.role == "assistant" else _SPOKEN
    for n, part in enumerate(parts):
        if type(part) in others:
            kind = "document" if isinstance(part, Media) and part.mime[:6] != "image/" else others[type(part)]
            whose = "user" if wire.role == "assistant" else "assistant"
            raise wrong(f"{at}.content[{n}]", f"`{kind}` blocks can only be in `{whose}` messages")
        if isinstance(part, Text) and not part.text and not isinstance(wire.content, str):
            raise wrong(f"{at}.content[{n}].text", _EMPTY)
    return Message(role=_ROLES[wire.role], parts=parts)


def _object(raw: Raw | None) -> dict[str, Any]:
    """An object among the body's fields that has been checked; empty where there is none."""
    return decode_raw(raw) or {} if raw is not None else {}


def _render_messages(
    request: TextRequest, blocks: Blocks
) -> tuple[str | list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """The system prompt, and the turns: those of one role in a row are one, as are the results of parallel calls."""
    native = request.dialect == "messages"
    system: list[Part] = []
    turns: list[tuple[str, list[Part]]] = []
    for message in request.messages:
        blocks.lost |= dict.fromkeys(telling(message.extra))
        if message.role in ("system", "developer"):
            if turns and native:
                turns.append(("system", list(message.parts)))
            else:
                system += message.parts
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1][0] == role and not native:
            turns[-1][1].extend(message.parts)
        else:
            turns.append((role, list(message.parts)))
    if system and not turns and not native:
        turns, system = [("user", system)], []  # a question put as instructions: somebody has to say something
    written = [{"role": role, "content": blocks.content(parts)} for role, parts in turns]
    return blocks.content(system) or None, [turn for turn in written if turn["content"] or native]


def _render_container(token: Any) -> str | dict[str, Any] | None:
    """The container of an earlier turn, as the answer named it or by its id; one that is gone is not asked for.

    Raises InvalidRequest.
    """
    match token:
        case None | str():
            return token
        case {"id": str(id_)}:
            if _is_past(token.get("expires_at")):
                return None
            skills = token.get("skills")
            return {"id": id_, "skills": skills} if skills else id_
    raise wrong("state.container", "Input should be a container's id, or an object with an `id`")


def _is_past(moment: Any) -> bool:
    try:
        return datetime.fromisoformat(moment) < datetime.now(UTC)
    except (TypeError, ValueError):
        return False


def _samplers(s: Sampling, able: Abilities, thinking: Any, lost: dict[str, None]) -> dict[str, Any]:
    given = {"temperature": s.temperature, "top_p": s.top_p, "top_k": s.top_k}
    asked = {name: value for name, value in given.items() if value is not None}
    thinks = isinstance(thinking, dict) and thinking.get("type") != "disabled"
    if not able.samples or thinks:
        lost |= dict.fromkeys(asked)
        return {}
    if able.one_sampler and "temperature" in asked and "top_p" in asked:
        del asked["top_p"]
        lost["top_p"] = None
    if asked.get("temperature", 0) > 1:  # OpenAI's goes to 2, Anthropic's to 1
        asked["temperature"] = 1.0
        lost["temperature"] = None
    return asked


def _parse_tools(given: Sequence[Raw], choice: str | None) -> tuple[Tool | Opaque, ...]:
    """Read the tools and hold them against each other and the choice.  Raises InvalidRequest."""
    tools = tuple(_parse_tool(tool, f"tools[{n}]") for n, tool in enumerate(given))
    # A whole server's tools come as one without a name.
    names = [tool.body.get("name") if isinstance(tool, Opaque) else tool.name for tool in tools]
    known = [name for name in names if isinstance(name, str)]
    if len(set(known)) < len(known):
        raise wrong("tools", "Tool names must be unique.")
    if choice is not None and choice[0] == "=" and choice[1:] not in known and len(known) == len(names):
        raise wrong("tool_choice.name", f"Tool '{choice[1:101]}' not found in provided tools")
    return tools


def _parse_tool(raw: Raw, at: str) -> Tool | Opaque:
    tool = read_tool(raw, at)
    whole = decode_raw(raw)
    if isinstance(tool, str):
        return Opaque(type=tool, body=whole)
    modelled = ("type", "name", "input_schema", "description", "strict")
    return Tool(
        name=tool.name,
        parameters=tool.input_schema,
        description=tool.description,
        strict=tool.strict,
        extra={key: value for key, value in whole.items() if key not in modelled},
    )


def _tools(request: TextRequest, lost: dict[str, None]) -> list[Tool | Opaque]:
    """Those that can be written: another provider's own tools mean nothing here."""
    foreign = [t for t in request.tools if isinstance(t, Opaque)] if request.dialect != "messages" else []
    lost |= dict.fromkeys(f"tools.{tool.type}" for tool in foreign)
    return [tool for tool in request.tools if tool not in foreign]


def _render_tool(tool: Tool | Opaque, blocks: Blocks, able: Abilities) -> dict[str, Any]:
    if isinstance(tool, Opaque):
        return tool.body
    wire: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    # OpenAI's clients may leave out what Anthropic requires: a tool without arguments has no schema there.
    wire["input_schema"] = tool.parameters if "type" in tool.parameters else {"type": "object"} | tool.parameters
    if tool.strict is not None:
        if able.schema:
            wire["strict"] = tool.strict
        elif tool.strict:
            blocks.lost["tools.strict"] = None
    return wire | blocks.others(tool.extra)


def _parse_choice(choice: Choice | None) -> tuple[str | None, bool | None]:
    if choice is None:
        return None, None
    disabled = choice.disable_parallel_tool_use
    parallel = None if disabled is None else not disabled
    if choice.type == "tool":
        if choice.name is None:
            raise missing("tool_choice.name")
        return f"={choice.name}", parallel
    if choice.type not in _TOOL_CHOICES:
        raise InvalidRequest(
            "tool_choice: Input tag should be one of 'auto', 'any', 'tool', 'none'",
            param="tool_choice",
            code="invalid_value",
        )
    return _TOOL_CHOICES[choice.type], parallel


def _render_choice(request: TextRequest) -> dict[str, Any] | None:
    choice, parallel = request.tool_choice, request.parallel_tools
    if not request.tools or (choice is None and parallel is None):
        return None
    wire: dict[str, Any] = {"type": "auto"}
    if choice is not None and choice.startswith("="):
        wire = {"type": "tool", "name": choice[1:]}
    elif choice is not None:
        if choice not in _CHOICES_OUT:
            raise InvalidRequest(f"Invalid value for 'tool_choice': '{choice}'.", param="tool_choice")
        wire = {"type": _CHOICES_OUT[choice]}
    if parallel is not None and choice != "none":
        wire["disable_parallel_tool_use"] = not parallel
    return wire


def _render_metadata(request: TextRequest) -> dict[str, Any] | None:
    rest = request.extra.get("metadata") if request.dialect == "messages" else None
    return {**(rest or {}), **({"user_id": request.user} if request.user else {})} or None


def _render_config(
    request: TextRequest, able: Abilities, asked: Thought, lost: dict[str, None]
) -> dict[str, Any] | None:
    config: dict[str, Any] = {}
    if asked.effort is not None:
        config["effort"] = asked.effort
    if request.schema is not None:
        if able.schema and request.schema.schema is not None:
            config["format"] = {"type": "json_schema", "schema": request.schema.schema}
        else:
            # There is no mode for "any JSON object", and models before 4.5 have none at all.
            lost["response_format"] = None
    if request.dialect == "messages" and isinstance(request.extra.get("output_config"), dict):
        config = request.extra["output_config"] | config
    return config or None
