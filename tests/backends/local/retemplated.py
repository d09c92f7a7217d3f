"""The real model under another chat template: its own weights, written anew with other metadata.

So templates that know tools and thinking are driven for real, where no model that has them can be had.
"""

import shutil
import struct
from pathlib import Path

from backends.ports import Local, Traits
from compat.canonical.model import Model
from tests.backends.local.bench import model_path

HERMES = """{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}{%- for message in messages %}{%- if message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% if message.content %}{{ message.content }}{% endif %}{% for tool_call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ tool_call.function.name }}", "arguments": {{ tool_call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As Qwen's and Hermes' models have it."""

THINKING = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}"""
"""One that opens the thought itself, as QwQ's does: without an end to it, all of an answer is thought."""

_KEY = b"tokenizer.chat_template"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _ALIGNMENT = 8, 9, 32


def retemplated(folder: Path, name: str, template: str, *, tools: bool = False) -> Local:
    """The model `name` with this chat template, its file in the folder."""
    path = folder / f"{name}.gguf"
    _rewrite(model_path(), path, template.encode())
    return Local(name=name, path=str(path), model=Model(name=name, backend="local"), traits=Traits(tools=tools))


def _rewrite(source: Path, target: Path, template: bytes) -> None:
    with source.open("rb") as file:
        head = file.read(16 << 20)
        tensors, keys = struct.unpack_from("<QQ", head, 8)
        at = 24
        begin = end = 0
        for _ in range(keys):
            key_size = struct.unpack_from("<Q", head, at)[0]
            key = head[at + 8 : at + 8 + key_size]
            kind = struct.unpack_from("<I", head, at + 8 + key_size)[0]
            value = at + 12 + key_size
            at = _after(head, value, kind)
            if key == _KEY:
                begin, end = value, at
        for _ in range(tensors):
            at += 8 + struct.unpack_from("<Q", head, at)[0]
            at += 4 + 8 * struct.unpack_from("<I", head, at)[0] + 12
        written = head[:begin] + struct.pack("<Q", len(template)) + template + head[end:at]
        file.seek(_aligned(at))
        with target.open("wb") as out:
            out.write(written.ljust(_aligned(len(written)), b"\0"))
            shutil.copyfileobj(file, out, 16 << 20)


def _after(head: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", head, at)[0])
    if kind != _ARRAY:
        return at + _SIZES[kind]
    inner, count = struct.unpack_from("<IQ", head, at)
    at += 12
    if inner != _STRING:
        return at + int(count) * _SIZES[inner]
    for _ in range(count):
        at += 8 + struct.unpack_from("<Q", head, at)[0]
    return at


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
