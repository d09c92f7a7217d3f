"""A gateway before a provider that shows what it was sent, and what tests of sessions say to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests import scripts
from tests.exchange import Exchange
from tests.process import Gateway, gateway
from tests.provider import Provider

SMALL_BYTES = 1500
"""What the model `small` takes of a prompt."""
KEYS = [
    {"name": "app", "key": "turns-app-key-canary-1", "scopes": ["inference", "sessions"], "tenant": "acme"},
    {"name": "rival", "key": "turns-rival-key-canary", "scopes": ["inference", "sessions"], "tenant": "rival"},
    {"name": "bare", "key": "turns-bare-key-canary-1", "scopes": ["inference"], "tenant": "acme"},
]


@contextmanager
def generating(folder: Path, provider_url: str) -> Iterator[Gateway]:
    up: dict[str, Any] = {"kind": "openai", "base_url": provider_url, "api_key": "k"}
    seeing = [{"to": "up/answer", "capabilities": ["vision"]}]
    blind = [{"to": "up/answer", "capabilities": ["tools"]}]
    tree: dict[str, Any] = {
        "backends": {"up": up, "fake": {"kind": "fake"}, "slow": {"kind": "fake", "pause_s": 0.15}},
        "models": {
            "auto": {"routes": ["up/answer"]},
            "seeing": {"routes": seeing},
            "blind": {"routes": blind},
            "small": {"routes": ["up/small"], "retries": 0},
            "known": {"routes": [{"to": "up/answer", "context_length": 600}]},
            "summer": {"routes": ["up/summer"], "retries": 0},
            "torn": {"routes": ["up/tear:3"], "retries": 0},
            "broken": {"routes": ["up/status:500"], "retries": 0},
        },
        "sessions": {"summary_model": "summer"},
        "auth": {"mode": "api_key", "keys": KEYS},
    }
    with gateway(folder, tree) as house:
        yield house


async def small(x: Exchange) -> None:
    await (scripts.context(x) if len(x.body) > SMALL_BYTES else scripts.events(x, "1"))


def begun(http: httpx2.Client, **fields: Any) -> str:
    answer = http.post("/v1/sessions", json=fields)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def ask(http: httpx2.Client, session: str, prompt: str = "Hello.", **fields: Any) -> httpx2.Response:
    body = {"input": {"prompt": prompt}} | fields
    return http.post(f"/v1/sessions/{session}/generate", json=body)


def said(http: httpx2.Client, session: str, *prompts: str, **fields: Any) -> list[dict[str, Any]]:
    answers = [ask(http, session, prompt, **fields) for prompt in prompts]
    assert [answer.status_code for answer in answers] == [200] * len(prompts), answers[-1].text
    return [answer.json() for answer in answers]


def listed(http: httpx2.Client, session: str) -> list[dict[str, Any]]:
    answer = http.get(f"/v1/sessions/{session}/messages", params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def sent(upstream: Provider) -> list[dict[str, Any]]:
    """The messages of the last request that the provider got."""
    messages: list[dict[str, Any]] = [x for x in upstream.seen if x.path != "/v1/models"][-1].json["messages"]
    return messages


def events(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    pairs = [
        dict(line.partition(": ")[::2] for line in e.split("\n") if ": " in line) for e in answer.text.split("\n\n")
    ]
    return [(pair["event"], json.loads(pair["data"])) for pair in pairs if "event" in pair]
