"""Sessions through all that happens to a gateway: its models unloaded, itself started again, killed under load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.http import until
from tests.load.result import Progress
from tests.load.sessions import SHORT, sessions
from tests.process import gateway

TEXT, IMAGE, MESH = "local/smollm2-135m-instruct", "local/tiny-shapes", "local/tiny-3d"
DRAWN = {"size": "64x64", "steps": 2, "seed": 1}
TREE = {"backends": {"local": {"kind": "local", "threads": 1}}}
SPOKEN = {"temperature": 0, "max_tokens": 12}
TURNS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (TEXT, {"prompt": "My name is Ada. Say hello."}, SPOKEN),
    (IMAGE, {"prompt": "a red circle on a white background"}, DRAWN),
    (TEXT, {"prompt": "What did you draw?"}, SPOKEN),
    (MESH, {"prompt": "a red cube"}, {"seed": 1, "resolution": 24}),
    (TEXT, {"prompt": "And what did you build?"}, SPOKEN),
    (IMAGE, {"prompt": "a blue circle", "images": ["last"]}, DRAWN),
    (TEXT, {"prompt": "Which colour is it now?"}, SPOKEN),
    (MESH, {"prompt": "a green ball"}, {"seed": 2, "resolution": 24}),
    (TEXT, {"prompt": "Thank you."}, SPOKEN),
    (TEXT, {"prompt": "What is my name?"}, SPOKEN),
]
RESTARTS = (0, 5)
"""Before these turns the gateway is started."""
UNLOADS = (2, 6)
"""Before these the text model is unloaded."""
KINDS = {TEXT: "text", IMAGE: "image", MESH: "3d"}


def test_ten_turns_outlive_restarts_and_unloads(tmp_path: Path) -> None:
    session, told = "", list[dict[str, Any]]()
    for first, end in zip(RESTARTS, (*RESTARTS[1:], len(TURNS)), strict=True):
        with gateway(tmp_path, TREE) as running, httpx2.Client(base_url=running.url, timeout=120) as http:
            if not session:
                session = str(http.post("/v1/sessions", json={"system": "Be brief."}).json()["id"])
            for n, (model, given, parameters) in enumerate(TURNS[first:end], first):
                if n in UNLOADS:
                    http.post(f"/v1/models/{TEXT.replace('/', '%2F')}/unload")
                body = {"model": model, "input": given, "parameters": parameters}
                answer = http.post(f"/v1/sessions/{session}/generate", json=body)
                assert answer.status_code == 200, answer.text
                told.append(answer.json())
    with gateway(tmp_path, TREE) as running, httpx2.Client(base_url=running.url, timeout=120) as http:
        messages = http.get(f"/v1/sessions/{session}/messages", params={"limit": 100}).json()["data"]
        for one, (model, given, _) in zip(messages[::2], TURNS, strict=True):
            assert one["text"] == given["prompt"]
            assert len(one["artifacts"] or ()) == len(given.get("images", ())), model
        for one, was, (model, _, _) in zip(messages[1::2], told, TURNS, strict=True):
            assert (one["id"], one["modality"]) == (was["message_id"], KINDS[model])
            assert (one["text"] or "") == was["output"]["text"]
            made = was["output"]["artifacts"]
            assert [kept["sha256"] for kept in one["artifacts"] or ()] == [artifact["sha256"] for artifact in made]
            for kept in one["artifacts"] or ():
                assert httpx2.get(kept["url"]).status_code == 200


def test_what_was_acknowledged_outlives_kills(tmp_path: Path) -> None:
    result = sessions(tmp_path, SHORT, Progress())
    assert not result.missed


@pytest.mark.parametrize("title", ["A name for it", ""])
def test_a_model_thinks_up_a_title_afterwards(tmp_path: Path, title: str) -> None:
    tree = {
        "backends": {
            "fake": {"kind": "fake"},
            "namer": {"kind": "fake", "words": [title or '"A', " better", ' one."']},
        },
        "models": {"auto": {"routes": ["fake/fake"]}},
        "sessions": {"title_model": "namer/fake"},
    }
    with gateway(tmp_path, tree) as running, httpx2.Client(base_url=running.url, timeout=30) as http:
        session = http.post("/v1/sessions", json={"title": title} if title else {}).json()["id"]
        http.post(f"/v1/sessions/{session}/generate", json={"input": {"prompt": "Hello."}}).raise_for_status()
        shown: Callable[[], Any] = lambda: http.get(f"/v1/sessions/{session}").json()["title"]  # noqa: E731
        assert until(lambda: shown() == (title or "A better one") or None)
