"""Ask a question and print the answer.

python examples/openai_sync.py
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)

answer = client.chat.completions.create(
    model="auto",
    messages=[
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    max_tokens=60,
)

print(answer.choices[0].message.content)
print(f"-- {answer.model}, {answer.usage.total_tokens if answer.usage else 'unknown'} tokens")
