"""Requests' bodies in the log: only where they are asked for, masked, and not without end."""

from pathlib import Path

from tests.gateway.conftest import APP_KEY, AUTH, UPSTREAM_KEY, config, speaking
from tests.http import CHAT, chat
from tests.process import gateway
from tests.provider import Provider

PROMPT = "prompt-canary-3c3c"
NEVER = "the-canary-of-a-field"


def test_bodies_are_logged_where_that_is_asked_for(upstream: Provider, tmp_path: Path) -> None:
    tree = config(upstream.url) | {"auth": AUTH, "telemetry": {"log_prompts": True}}
    with gateway(tmp_path, tree) as house, speaking(house, {"authorization": f"Bearer {APP_KEY}"}) as http:

        def told(body: dict[str, object], path: str = CHAT) -> dict[str, object]:
            id_ = http.post(path, json=body).headers["x-request-id"]
            return house.wait_for("prompt_received", request_id=id_)

        line = told(chat("up/answer", f"{PROMPT} and {UPSTREAM_KEY} and sk-proj-abcdefgh12345678"))
        assert line["route"] == CHAT
        assert f'"content":"{PROMPT} and [redacted] and [redacted]"' in str(line["body"])
        assert "note" not in line
        assert PROMPT in str(told({"model": "up/answer", "input": {"prompt": PROMPT}}, "/v1/generate")["body"])
        assert PROMPT in str(told(chat("up/answer", PROMPT, max_tokens=9), "/v1/messages")["body"])

        arguments = f'{{"client_secret": "{NEVER}", "city": "Paris"}}'
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        body = chat("up/answer")
        body["messages"] += [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
        body["metadata"] = {"password": NEVER}
        assert "Paris" in str(told(body)["body"])

        for before in range(16_300, 16_400, 7):  # the key lies across the cut in some
            line = told(chat("up/answer", "x" * before + UPSTREAM_KEY + "y" * 20_000))
            assert len(str(line["body"])) <= 16 * 1024
            assert "cut" in str(line["note"])

        form = {"model": "up/answer", "prompt": PROMPT * 2}
        edit = http.post("/v1/images/edits", data=form, files={"image": ("a.png", b"\x89PNG\r\n\x1a\n")})
        id_ = edit.headers["x-request-id"]
        assert "form" in house.wait_for("prompt_received", request_id=id_)["note"]
        house.stop()
    text = "".join(house.lines)
    assert PROMPT * 2 not in text
    for secret in (UPSTREAM_KEY, UPSTREAM_KEY[:12], "sk-proj", NEVER, APP_KEY):
        assert secret not in text
