"""Print an answer as it is written, and what it cost at the end.

python examples/openai_stream.py
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)

stream = client.chat.completions.create(
    model="auto",
    messages=[{"role": "user", "content": "Tell me a very short story about a lighthouse."}],
    max_tokens=60,
    stream=True,
    stream_options={"include_usage": True},
)

# Leaving the `with` early, by `break` or an exception, stops the model too.
with stream:
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        if chunk.usage:
            print(f"\n-- {chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out")
