"""Let a model call your functions: run what it asks for, hand back the results, until it answers.

python examples/openai_tools.py

Whether a model calls tools is up to the model, and the loop below ends when it sees no need for one.  The
embedded one was made without any: the gateway holds it to calls that fit, so its calls are sound, but it is too
small to judge, and often asks again for what it has been told.  Put a larger model in place of "auto" for that,
such as "openai/gpt-5".
"""

import json
import os
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionToolParam

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)


def get_weather(city: str) -> str:
    return f"It is 21 degrees and sunny in {city}."


FUNCTIONS = {"get_weather": get_weather}
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


def call(name: str, arguments: str) -> str:
    """Run a function for the model; what goes wrong is told to it, so that it can do better."""
    try:
        return FUNCTIONS[name](**json.loads(arguments))
    except (KeyError, TypeError, ValueError) as e:
        return f"Error: {e!r}"


messages: list[Any] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
for _ in range(5):
    answer = client.chat.completions.create(model="auto", messages=messages, tools=TOOLS, max_tokens=60)
    message = answer.choices[0].message
    if not message.tool_calls:
        break
    messages.append(message)
    for wanted in message.tool_calls:
        if wanted.type == "function":
            result = call(wanted.function.name, wanted.function.arguments)
            print(f"called {wanted.function.name}({wanted.function.arguments}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": wanted.id, "content": result})

print("answer:", message.content)
if len(messages) == 1:
    print("-- the model answered without calling a tool")
