"""Give a LangChain model tools, and run what it calls.

python examples/langchain_tools.py

Whether a model calls tools is up to the model.  The embedded one is too small to know how: it answers
at once, in text, and the loop ends after one round.  To watch calls happen, put a model that can in
place of "auto", such as "openai/gpt-5".
"""

import os

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


model = ChatOpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=SecretStr(os.environ.get("PLUGGABLY_KEY", "local")),
    model="auto",
    max_completion_tokens=40,
).bind_tools([add])

messages: list[BaseMessage] = [HumanMessage("What is 19 plus 23?")]
for _ in range(5):
    answer = model.invoke(messages)
    if not answer.tool_calls:
        break
    messages.append(answer)
    for call in answer.tool_calls:
        result = add.invoke(call)  # a ToolMessage that carries the call's id
        print(f"called {call['name']}({call['args']}) -> {result.content}")
        messages.append(result)

print("answer:", answer.text)
if len(messages) == 1:
    print("-- the model answered without calling a tool")
