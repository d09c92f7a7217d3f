"""A conversation that the gateway keeps: two turns, another line of it from the first answer on, and all of it as text.

python examples/sessions.py
"""

import os
from typing import Any

import httpx2

gateway = httpx2.Client(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    timeout=120,
)


def post(path: str, **body: object) -> dict[str, Any]:
    answer: dict[str, Any] = gateway.post(path, json=body).raise_for_status().json()
    return answer


session = post("/sessions", system="You answer in one short sentence.", parameters={"temperature": 0, "max_tokens": 40})
here = f"/sessions/{session['id']}"
print(post(f"{here}/generate", input={"prompt": "My name is Ada. Name a colour."})["output"]["text"])
first = gateway.get(f"{here}/messages").json()["data"][-1]["id"]
print(post(f"{here}/generate", input={"prompt": "And another one?"})["output"]["text"])
branch = post(f"{here}/branch", message_id=first, title="Fruits instead")
print(post(f"/sessions/{branch['id']}/generate", input={"prompt": "Now name a fruit."})["output"]["text"])
print("--", gateway.get(f"{here}/export", params={"format": "markdown"}).raise_for_status().text, sep="\n")

for one in gateway.get("/sessions", params={"limit": 2}).json()["sessions"]:
    print(f"-- {one['title']}: {one['message_count']} messages, {one['status']}")
    gateway.delete(f"/sessions/{one['id']}")
gateway.close()
