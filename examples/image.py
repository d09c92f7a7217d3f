"""Make a picture, watch it take shape, and save it.

python examples/image.py "a yellow star on a black background" star.png

The embedded model is a toy that knows coloured shapes and often draws the wrong one: a white moon on black and a brown
ring on pink it can do.  With another model, `auto` draws what that knows.
"""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

prompt = sys.argv[1] if len(sys.argv) > 1 else "a white moon on a black background"
path = Path(sys.argv[2] if len(sys.argv) > 2 else "picture.png")

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)

stream = client.images.generate(
    model="auto",
    prompt=prompt,
    size="512x512",
    stream=True,
    partial_images=2,
    extra_body={"seed": 1, "steps": 30},
)

for event in stream:
    if event.type == "image_generation.partial_image":
        print(f"preview {event.partial_image_index + 1}: {len(event.b64_json)} characters")
    else:
        path.write_bytes(base64.b64decode(event.b64_json))
        print(f"-- {path.name}: {prompt}")
