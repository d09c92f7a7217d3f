"""Have a language model describe an object, and get it as a mesh that is built exactly from solids.

python examples/scene.py "a small wooden stool" stool.glb
"""

import base64
import os
import sys
from pathlib import Path

import httpx2

URL = os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080")
HEADERS = {"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"}

prompt, file = sys.argv[1:] if len(sys.argv) == 3 else ("a small wooden stool", "stool.glb")
answer = httpx2.get(f"{URL}/v1/models", headers=HEADERS)
if answer.is_error:
    sys.exit(answer.json()["error"]["message"])
models = answer.json()["data"]
builders = [model["id"] for model in models if "constructed" in (model.get("capabilities") or ())]
if not builders:
    print("No model here builds scenes. Add this to the configuration, with a model that writes JSON well:\n")
    print("backends:\n  scene: {kind: scene, model: smart}")
    sys.exit()

asked = {"model": builders[0], "prompt": prompt, "response_format": "b64_json"}
answer = httpx2.post(f"{URL}/v1/3d/generations", headers=HEADERS, json=asked, timeout=300)
if answer.is_error:
    sys.exit(answer.json()["error"]["message"])
mesh = answer.json()["data"][0]
Path(file).write_bytes(base64.b64decode(mesh["b64_json"]))

low, high = mesh["mesh"]["bounds"]
size = " x ".join(f"{b - a:.2f}" for a, b in zip(low, high, strict=True))
print(f"{prompt}: {mesh['mesh']['faces']} triangles, {size} m, watertight: {mesh['mesh']['watertight']}")
print(f"-- built from solids that {builders[0].partition('/')[2]} described; {mesh['bytes']} bytes in {file}")
