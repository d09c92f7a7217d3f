"""The real engine takes the schema of scenes, and what it writes under it is one, whatever it is of."""

import httpx2
import msgspec

from compat.scene import Scene, schema
from tests.http import CHAT, chat
from tests.process import Gateway


def test_the_engine_writes_scenes(local_gateway: Gateway) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "scene", "strict": True, "schema": schema(1)}}
    asked = chat("auto", "One red ball of 1 metre.", response_format=shape, max_tokens=1500, temperature=0)
    answer = httpx2.post(local_gateway.url + CHAT, json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    assert choice["finish_reason"] == "stop", choice
    scene = msgspec.json.decode(choice["message"]["content"], type=Scene)
    assert len(scene.parts) == len(scene.parts[0].solids) == 1
