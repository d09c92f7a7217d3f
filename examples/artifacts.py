"""Keep a file, have it in another format, hand out a link to it, and end it.

python examples/artifacts.py chair.glb     (a mesh, or a PNG, JPEG, WebP or GIF; without one it makes a mesh itself)
"""

import os
import sys
from pathlib import Path

import httpx2

gateway = httpx2.Client(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080"),
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    timeout=120,
)


def said(answer: httpx2.Response) -> httpx2.Response:
    if answer.is_error:
        sys.exit(answer.json()["error"]["message"])
    return answer


if len(sys.argv) > 1:
    file = Path(sys.argv[1])
    artifact = said(gateway.post("/v1/artifacts", params={"name": file.name}, content=file.read_bytes())).json()
else:
    asked = {"model": "auto", "modality": "3d", "input": {"prompt": "a red chair"}}
    made = said(gateway.post("/v1/generate", json=asked)).json()["output"]["artifacts"][0]
    artifact = said(gateway.get(f"/v1/artifacts/{made['id']}")).json()

content = f"/v1/artifacts/{artifact['id']}/content"
print(f"{artifact['id']}: {artifact['mime']}, {artifact['bytes']} bytes, sha256 {artifact['sha256'][:12]}…")
print(f"-- can be had as {', '.join(artifact['formats'])}")

picture = said(gateway.get(content, params={"format": "webp"}))
print(f"-- as a picture: {picture.headers['content-type']}, {len(picture.content)} bytes")
part = said(gateway.get(content, headers={"range": "bytes=0-3"}))
print(f"-- its first bytes: {part.content!r} ({part.headers['content-range']})")

# Whoever has this URL needs no key, until it expires.
with httpx2.Client() as anybody:
    shared = said(anybody.get(artifact["url"]))
print(f"-- by its link, until {artifact['url_expires_at']}: {len(shared.content)} bytes")

print(f"-- deleted: {said(gateway.delete('/v1/artifacts/' + artifact['id'])).json()['deleted']}")
gateway.close()
