"""Find a model on the hub, have it downloaded, watch that, and ask it something.

python examples/download.py SmolLM2-135M-Instruct
"""

import json
import os
import sys
from typing import Any

import httpx2

http = httpx2.Client(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080"),
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    timeout=120,
)


def asked(answer: httpx2.Response) -> dict[str, Any]:
    if answer.is_error:
        sys.exit(answer.json()["error"]["message"])
    said: dict[str, Any] = answer.json()
    return said


query = sys.argv[1] if len(sys.argv) > 1 else "SmolLM2-135M-Instruct"
found = asked(http.get("/v1/models/search", params={"query": query, "modality": "text", "limit": 5}))["data"]
repo = next((one["id"] for one in found if one["fit"] == "fits" and not one["gated"]), None)
if repo is None:
    sys.exit(f"The hub has no '{query}' that fits this machine.")

# Of its files the best that fits; {"quantization": "Q4_K_M"} or {"file": "…"} would say which.
job = asked(http.post("/v1/models/download", json={"repo": repo}))
print(f"{repo} becomes {job['target']}")

with http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
    for line in events.iter_lines():
        if line.startswith("data: "):
            job = json.loads(line.removeprefix("data: "))
            progress = job["progress"]
            print(f"  {job['status']}: {progress['phase']} {progress['bytes_done']} of {progress['bytes_total']} bytes")
if job["status"] != "done":
    failure = job["error"]
    sys.exit(f"It is {job['status']}. {failure['message'] if failure else ''}")

messages = [{"role": "user", "content": "Say hello."}]
answer = asked(http.post("/v1/chat/completions", json={"model": job["target"], "max_tokens": 30, "messages": messages}))
print(answer["choices"][0]["message"]["content"].strip())
print(f"-- {answer['model']}")
http.close()
