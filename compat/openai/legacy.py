"""What chat completions had before tools: `functions`, `function_call` and messages of the role `function`.

Source: https://platform.openai.com/docs/api-reference/chat/create#chat-create-functions
"""

from typing import Any

from compat.body import missing
from compat.openai.limits import wrong_type

FIELDS = frozenset({"functions", "function_call"})


def modern_tools(functions: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """`functions` as `tools`."""
    return [{"type": "function", "function": function} for function in functions or ()]


def modern_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """`function_call` as `tool_choice`.  Raises InvalidRequest."""
    if not isinstance(choice, dict):
        return choice
    if not isinstance(choice.get("name"), str):
        raise missing("function_call.name")
    return {"type": "function", "function": {"name": choice["name"]}}


def modern_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with tool calls in place of function calls; ids, which these never had, are made from places.

    Raises InvalidRequest.
    """
    out: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for n, message in enumerate(messages):
        at = f"messages[{n}]"
        if message.get("role") == "function":
            name = message.get("name")
            if not isinstance(name, str):
                raise missing(f"{at}.name")
            id_ = called.get(name, f"call_{n}")
            message = {"role": "tool", "tool_call_id": id_, "content": message.get("content")}
        elif (call := message.get("function_call")) is not None and message.get("role") == "assistant":
            if not isinstance(call, dict):
                raise wrong_type(f"{at}.function_call", "an object")
            if not isinstance(call.get("name"), str):
                raise missing(f"{at}.function_call.name")
            called[call["name"]] = f"call_{n}"
            message = {k: v for k, v in message.items() if k != "function_call"}
            message["tool_calls"] = [{"id": f"call_{n}", "type": "function", "function": call}]
        out.append(message)
    return out
