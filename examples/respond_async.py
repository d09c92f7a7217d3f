"""Long work without waiting on the line: have a mesh made, watch how it goes, fetch the answer; and call one off.

python examples/respond_async.py
"""

import os
import time
from typing import Any

import httpx2

gateway = httpx2.Client(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080"),
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    timeout=120,
)


def begin(prompt: str, **parameters: object) -> dict[str, Any]:
    """A request that goes on by itself."""
    asked = {"model": "auto", "modality": "3d", "input": {"prompt": prompt}, "parameters": parameters}
    answer = gateway.post("/v1/generate", json=asked, headers={"prefer": "respond-async"}).raise_for_status()
    assert answer.status_code == 202
    request: dict[str, Any] = answer.json()
    return request


request = begin("a red chair", seed=1)
path = f"/v1/requests/{request['id']}"
while request["status"] in ("queued", "loading", "running"):
    time.sleep(0.2)
    request = gateway.get(path).raise_for_status().json()
print(f"{request['id']}: {request['status']}")
for artifact in request["result"]["output"]["artifacts"]:
    print(f"-- {artifact['mime']}, {artifact['bytes']} bytes: {artifact['url'].partition('?')[0]}")

other = begin("a table", resolution=160)
called_off = gateway.post(f"/v1/requests/{other['id']}/cancel")
print(f"-- called off: {called_off.json().get('status', 'too late')}")
gateway.close()
