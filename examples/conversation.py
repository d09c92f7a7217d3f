"""A conversation by OpenAI's own SDK: kept by the gateway, gone on with by its id.

python examples/conversation.py
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)

conversation = client.conversations.create(metadata={"topic": "colours"})
for question in ("My name is Ada. Name a colour.", "And another one?"):
    answer = client.responses.create(
        model="auto",
        conversation=conversation.id,
        input=question,
        max_output_tokens=40,
        temperature=0,
    )
    print(answer.output_text)

items = client.conversations.items.list(conversation.id, order="asc")
print(f"-- {conversation.id}: {', '.join(item.role for item in items if item.type == 'message')}")
print(f"-- deleted: {client.conversations.delete(conversation.id).deleted}")
