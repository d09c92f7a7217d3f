"""Stream the gateway's own dialect: named events, the last of which is the whole answer.

python examples/native_stream.py
"""

import os
from typing import Any

import httpx2

with httpx2.stream(
    "POST",
    os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1/generate",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    json={
        "model": "auto",
        "input": {"messages": [{"role": "user", "content": "Tell me about the sea."}]},
        "parameters": {"max_tokens": 40},
        "stream": True,
    },
    timeout=120,
) as response:
    response.raise_for_status()
    for event in httpx2.EventSource(response):
        data: Any = event.json()
        match event.event:
            case "generation.started":
                print(f"-- {data['backend']}/{data['model']} answers")
            case "text.delta":
                print(data["delta"], end="", flush=True)
            case "generation.completed":
                print(f"\n-- {data['finish_reason']}, {data['usage']['output_tokens']} tokens")
            case "error":
                raise SystemExit(f"\n-- failed: {data['error']['message']}")
