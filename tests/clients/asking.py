"""Questions to the gateway through OpenAI's SDK, short and always answered the same."""

from typing import Any

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

SHORT: dict[str, Any] = {"max_tokens": 8, "temperature": 0}


def ask(client: OpenAI, content: str = "Say hello.", **options: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        **{"model": "auto", "messages": [{"role": "user", "content": content}], **SHORT, **options}
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def stream(client: OpenAI, content: str = "Say hello.", **options: Any) -> openai.Stream[ChatCompletionChunk]:
    chunks = client.chat.completions.create(
        **{"model": "auto", "messages": [{"role": "user", "content": content}], **SHORT, **options}, stream=True
    )
    assert isinstance(chunks, openai.Stream)
    return chunks
