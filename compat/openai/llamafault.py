"""What llama.cpp's servers say of a request they did not answer, in OpenAI's words.

They answer 500 where the request is at fault, and name its fields, if at all, in a sentence.  Whatever is not
known here stays what its status says.  Sources: llama.cpp's tools/server and common/chat, llama_cpp/server/errors.py.
"""

import re
from collections.abc import Callable

from compat.openai.error import Verdict, parse_error

_field = re.compile(r"Field '([\w.]+)': (?:\[[\w.]+\] )?(.+)", re.DOTALL).fullmatch
_schema = re.compile(r"JSON schema (?:error|conversion failed)[^:]*:\s*(.+)", re.DOTALL).search
_validation = re.compile(r"'loc': \('body', '(\w+)'.*?'msg': (['\"])(.+?)\2", re.DOTALL).search
_too_long = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)").match
_WORDS = re.compile(
    r"(?P<grammar>failed to parse grammar)"
    r"|(?P<messages>(?:image|audio|video) input is not supported|[Ff]ailed to (?:load|decode) image"
    r"|[Ii]nvalid (?:url|image|content)|[Uu]nsupported content|[Cc]onversation roles|[Jj]inja|while rendering"
    r"|Cannot have 2 or more assistant messages|Failed to parse tool call arguments)"
    r"|(?P<prompt>Prompt contains invalid tokens|\"prompt\" elements must be)"
    r"|(?P<chat_template_kwargs>invalid type for \"\w+\" \(expected)"
    r"|(?P<tools>Cannot use custom grammar constraints with tools)"
    r"|(?P<reasoning_format>Unknown reasoning format)"
).search
_too_large = re.compile(
    r"input \((\d+) tokens\) is (?:too large to process|larger than the max context size)[^()]*\((?:\D*)(\d+)"
).match
_SAID: dict[str, Callable[[str], str]] = {
    "grammar": lambda _: "Invalid 'grammar': it is no GBNF that the engine can read.",
    "messages": lambda message: f"Invalid 'messages': {_before_details(message)}.",
    "prompt": lambda _: "Invalid 'prompt': a prompt is a text, or a list of tokens that this model knows.",
    "chat_template_kwargs": lambda message: f"Invalid 'chat_template_kwargs': {message}.",
    "tools": lambda _: "'grammar' cannot go with 'tools': it would forbid the calls.",
    "reasoning_format": lambda message: f"Invalid 'reasoning_format': {message}.",
}


def parse_fault(body: bytes) -> Verdict:
    """Read an error body; never raises."""
    found = parse_error(body)
    message = found.message
    if match := _too_long(message):
        return _blamed(
            f"This model's maximum context length is {match[2]} tokens. However, your messages resulted in {match[1]}"
            " tokens. Please reduce the length of the messages.",
            "messages",
            code="context_length_exceeded",
        )
    if match := _too_large(message):
        return _blamed(
            f"This model reads {match[2]} tokens at once, and an input has {match[1]}. Please shorten it.",
            "input",
            code="context_length_exceeded",
        )
    if match := _field(message):
        return _blamed(f"Invalid value for '{match[1]}': {match[2]}.", match[1])
    if match := _schema(message):
        return _blamed(f"Invalid schema for 'response_format': {match[1].strip()}.", "response_format")
    if match := _validation(message):
        return _blamed(f"Invalid value for '{match[1]}': {match[3]}.", match[1])
    if match := _WORDS(message):
        name = match.lastgroup or ""
        return _blamed(_SAID[name](message), name)
    return found


def _before_details(message: str) -> str:
    """A sentence without what the library behind it said."""
    return message.splitlines()[0].partition(": [json.exception")[0].partition(" - hint:")[0].rstrip(". ")


def _blamed(message: str, param: str, code: str = "invalid_value") -> Verdict:
    return Verdict(message=message, type="invalid_request_error", code=code, param=param, blames=True)
