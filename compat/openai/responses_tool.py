"""The tools of OpenAI's Responses API: its own, which only it can run, and the client's.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools
"""

from typing import Any

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Opaque
from compat.canonical.request import Tool
from compat.openai.chat import choose
from compat.openai.custom import as_function, grammar_of

_DEFAULTS: dict[str, dict[str, Any]] = {
    "function": {"type": "function", "description": None, "parameters": None, "strict": None},
    "custom": {"type": "custom", "description": None, "format": {"type": "text"}},
}
"""The client's kinds of tools, and what an answer shows of them whether it was given or not."""
_KINDS = tuple(_DEFAULTS)
"""No set: a client's own `type` may be anything, and not everything can be looked up in one."""


def parse_tools(
    given: list[dict[str, Any]], choice: str | dict[str, Any] | None
) -> tuple[tuple[Tool | Opaque, ...], str | None]:
    """The tools, and the choice among the client's own.  Raises InvalidRequest."""
    tools = tuple(_parse_tool(tool, f"tools[{n}]") for n, tool in enumerate(given))
    hosted = tuple(tool for tool in tools if isinstance(tool, Opaque))
    if choice is not None and is_hosted(choice):
        return tools, None
    if isinstance(choice, dict) and choice.get("type") in _KINDS and not isinstance(choice.get("name"), str):
        raise missing("tool_choice.name")
    if hosted and choice == "required" and len(hosted) == len(tools):
        return tools, None
    own, chosen = choose(tuple(tool for tool in tools if isinstance(tool, Tool)), choice)
    return (*own, *hosted), chosen


def render_tools(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The client's own tools, as an answer shows them."""
    return [_DEFAULTS[tool["type"]] | tool for tool in given if tool.get("type") in _KINDS]


def grammars(given: list[dict[str, Any]]) -> bool:
    """Whether a custom tool's input is held to a grammar."""
    return any(tool.get("type") == "custom" and grammar_of(tool.get("format")) is not None for tool in given)


def lost_choice(given: list[dict[str, Any]], choice: str | dict[str, Any] | None) -> bool:
    """Whether the choice leaves only tools that nobody but OpenAI can run."""
    if choice == "required":
        return all(tool.get("type") not in _KINDS for tool in given)
    return choice is not None and is_hosted(choice)


def is_hosted(choice: str | dict[str, Any]) -> bool:
    """Whether a tool of the provider's own is chosen."""
    return isinstance(choice, dict) and choice.get("type") not in (*_KINDS, "allowed_tools")


def _parse_tool(tool: dict[str, Any], at: str) -> Tool | Opaque:
    kind, name = tool.get("type"), tool.get("name")
    if not isinstance(kind, str):
        raise missing(f"{at}.type")
    if kind not in _DEFAULTS:
        return Opaque(type=kind, body=tool)
    if not isinstance(name, str):
        raise missing(f"{at}.name")
    if not name:
        raise InvalidRequest(f"Invalid '{at}.name': empty string.", param=f"{at}.name", code="empty_string")
    parameters, strict, description = tool.get("parameters"), tool.get("strict"), tool.get("description")
    if kind == "custom":
        return as_function(name, description, tool.get("format"))
    return Tool(
        name=name,
        parameters=parameters if isinstance(parameters, dict) else {},
        description=description if isinstance(description, str) else None,
        strict=strict if isinstance(strict, bool) else None,
    )
