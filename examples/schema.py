"""A tiny form in the terminal, made from what the gateway says of a model's parameters.

python examples/schema.py --model auto
python examples/schema.py --model auto --set temperature=0.5 --set max_tokens=40     # asks for nothing
"""

import argparse
import json
import os
import sys
from typing import Any

import httpx2
from openai import OpenAI, OpenAIError

BASE = os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1"
KEY = os.environ.get("PLUGGABLY_KEY", "local")
PATH = "/v1/chat/completions"
SHOWN = ("temperature", "top_p", "max_tokens", "seed", "stop", "response_format", "reasoning_effort", "n")


def label(field: dict[str, Any]) -> str:
    """What is known of a field, in a line."""
    known = [field["type"] if isinstance(field["type"], str) else " or ".join(field["type"])]
    if "enum" in field:
        known = [" | ".join(field["enum"])]
    if "minimum" in field or "maximum" in field:
        known.append(f"{field.get('minimum', '')} to {field.get('maximum', '')}")
    if field["default"] is not None:
        known.append(f"default {field['default']}")
    if field["examples"]:
        known.append(f"e.g. {json.dumps(field['examples'][0])}")
    lost = [route for route, carried in field["carried"].items() if carried is False]
    if lost:
        known.append(f"not carried by {', '.join(lost)}")
    return f"{field['name']:18} {field['description']}  [{'; '.join(known)}]"


def entered() -> str:
    try:
        return input("  > ").strip()
    except EOFError:  # nobody is there to ask
        return ""


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="auto")
    parser.add_argument("--prompt", default="Say hello.")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    query = {"model": given.model, "endpoint": PATH}
    found = httpx2.get(f"{BASE}/schema", params=query, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    schema = found.json()
    if found.status_code != 200:
        print(f"The gateway says: {schema['error']['message']}", file=sys.stderr)
        return 1
    client = OpenAI(base_url=BASE, api_key=KEY)
    try:
        said = dict(one.partition("=")[::2] for one in given.set)
        body: dict[str, Any] = {}
        for field in schema["parameters"]:
            name = field["name"]
            if name not in SHOWN:
                continue
            print(label(field))
            text = said.get(name, "") if given.set else entered()
            if text:
                body[name] = value(text)
        answer = client.chat.completions.with_raw_response.create(
            model=given.model, messages=[{"role": "user", "content": given.prompt}], extra_body=body
        )
    except OpenAIError as e:
        print(f"The gateway says: {e}", file=sys.stderr)
        return 1
    print("\n" + (answer.parse().choices[0].message.content or ""))
    if dropped := answer.headers.get("x-gateway-dropped"):
        print(f"(left out: {dropped})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
