"""Custom tools, which take plain text, as functions of one argument: every provider can call those.

Source: https://platform.openai.com/docs/guides/function-calling#custom-tools
"""

from typing import Any

import msgspec

from compat.canonical.request import Tool

_ARGUMENT = "input"
_write = msgspec.json.Encoder().encode


def as_function(name: str, description: Any, format_: Any) -> Tool:
    """The function that stands for a custom tool.  A grammar can only be described to the model, not enforced."""
    words = [description] if isinstance(description, str) and description else []
    if (grammar := grammar_of(format_)) is not None:
        syntax, definition = grammar
        words.append(f"The input must match this grammar ({syntax}):\n{definition}")
    schema = {
        "type": "object",
        "properties": {_ARGUMENT: {"type": "string", "description": "The tool's input, as plain text."}},
        "required": [_ARGUMENT],
        "additionalProperties": False,
    }
    return Tool(name=name, parameters=schema, description="\n\n".join(words) or None)


def grammar_of(format_: Any) -> tuple[str, str] | None:
    """The syntax and definition that a `format` holds the input to; chat nests them, Responses does not."""
    if not isinstance(format_, dict) or format_.get("type") != "grammar":
        return None
    grammar = format_.get("grammar", format_)
    if not isinstance(grammar, dict):
        return None
    return str(grammar.get("syntax", "")), str(grammar.get("definition", ""))


def wrapped(text: str) -> str:
    """A custom tool's input as the arguments of its function."""
    return _write({_ARGUMENT: text}).decode()


def unwrapped(arguments: str) -> str:
    """The input in the arguments of a custom tool's function; all of them, if the model kept to no schema."""
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return arguments
    text = found.get(_ARGUMENT) if isinstance(found, dict) else None
    return text if isinstance(text, str) else arguments
