"""Generate text in the gateway's own dialect, which says what answered, why, and where the time went.

python examples/native_generate.py
"""

import os

import httpx2

answer = httpx2.post(
    os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1/generate",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    json={
        "model": "auto",
        "input": {"prompt": "Name three colours."},
        "parameters": {"temperature": 0.2, "max_tokens": 40},
    },
    timeout=120,
)
answer.raise_for_status()
generation = answer.json()

print(generation["output"]["text"])
print(f"-- {generation['backend']}/{generation['model']}, {generation['selection']['reason']}")
print(f"-- finished by {generation['finish_reason']}, {generation['usage']['output_tokens']} tokens,")
print(f"-- {generation['timing']['total_s']:.2f} s, of which {generation['timing']['load_s']:.2f} s loading the model")
