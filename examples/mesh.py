"""Make a mesh from words, offline: chair.glb for any 3D program, and chair.png to see what it is.

python examples/mesh.py "a red chair" chair.glb
"""

import base64
import os
import sys
from pathlib import Path

import httpx2

prompt, name = sys.argv[1:] if len(sys.argv) == 3 else ("a red chair", "chair.glb")
glb, poster = Path(name), Path(name).with_suffix(".png")

answer = httpx2.post(
    os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1/3d/generations",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    json={"model": "auto", "prompt": prompt, "seed": 1, "response_format": "b64_json"},
    timeout=120,
)
if answer.is_error:
    sys.exit(answer.json()["error"]["message"])
[file] = answer.json()["data"]
glb.write_bytes(base64.b64decode(file["b64_json"]))
poster.write_bytes(base64.b64decode(file["poster_url"].partition(",")[2]))

mesh = file["mesh"]
low, high = mesh["bounds"]
print(f"{prompt}: {glb} ({file['bytes']} bytes) and its poster {poster}")
print(f"-- {mesh['vertices']} vertices, {mesh['faces']} triangles, {'closed' if mesh['watertight'] else 'open'}")
print("-- " + " x ".join(f"{b - a:.2f}" for a, b in zip(low, high, strict=True)) + " m (wide, high, deep)")
print(f"-- by {answer.headers['x-gateway-model']}")
