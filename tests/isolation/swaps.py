"""Every route with an id in its path, and every body with one in it, for ids of somebody else."""

from typing import Any

from tests.gateway.auth.matrix import GUARDED, Door
from tests.isolation.tenants import PIXEL

EVERYBODYS = {"model_id"}
"""Models are the house's: whoever may read them reads all."""
ADMINS = {"key_id"}
"""Administrators are of no tenant, and nobody else is let in."""
OPEN = ("/docs/",)

SAID = {"model": "auto", "input": {"prompt": "Hello."}}
GOOD: dict[tuple[str, str], Any] = {
    ("POST", "/v1/sessions/{session_id}/generate"): SAID,
    ("POST", "/v1/sessions/{session_id}/messages"): {"messages": [{"role": "user", "text": "Hello."}]},
    ("POST", "/v1/sessions/{session_id}/branch"): {"message_id": "gen_0"},
    ("PUT", "/v1/sessions/{session_id}"): {"title": "Mine"},
    ("POST", "/v1/conversations/{conversation_id}"): {"metadata": {}},
    ("POST", "/v1/conversations/{conversation_id}/items"): {"items": [{"role": "user", "content": "Hello."}]},
}
"""Bodies that are refused for nothing else than an id in the path."""


def swapped() -> list[Door]:
    """The routes whose paths hold what belongs to a tenant."""
    exempt = EVERYBODYS | ADMINS
    return [
        door
        for door in GUARDED
        if "{" in door.template
        and not door.template.startswith(OPEN)
        and not any(f"{{{name}}}" in door.template for name in exempt)
    ]


def names(door: Door) -> list[str]:
    return [part.partition("}")[0] for part in door.template.split("{")[1:]]


def _picture(place: str) -> list[Any]:
    return [{"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": place}]}]


def in_bodies(own: dict[str, str]) -> list[tuple[str, str, str, Any, tuple[int, ...]]]:
    """Kind of id, method, path, a body that holds `ID` where the id goes, and how it may be refused.

    own: what the caller has, by the names of ids in paths.
    """
    session, conversation = own["session_id"], own["conversation_id"]
    image = PIXEL | {"input": {"prompt": "Bluer.", "images": ["ID"]}}
    see = {"model": "auto", "input": {"prompt": "What is it?", "images": ["ID"]}}
    mesh = {"model": "auto", "modality": "3d", "input": {"images": ["ID"]}}
    return [
        ("session_id", "POST", "/v1/generate", SAID | {"session_id": "ID"}, (404,)),
        ("artifact_id", "POST", "/v1/generate", image, (404,)),
        ("artifact_id", "POST", "/v1/generate", see, (404,)),
        ("artifact_id", "POST", "/v1/generate", mesh, (404,)),
        ("artifact_id", "POST", f"/v1/sessions/{session}/generate", see, (404,)),
        ("artifact_id", "POST", f"/v1/sessions/{session}/messages",
         {"messages": [{"role": "user", "text": "x", "images": ["ID"]}]}, (400, 404)),
        ("artifact_id", "POST", "/v1/3d/generations", {"model": "auto", "image": "ID"}, (404,)),
        ("artifact_id", "POST", "/v1/conversations", {"items": _picture("artifact:ID")}, (400, 404)),
        ("artifact_id", "POST", f"/v1/conversations/{conversation}/items", {"items": _picture("artifact:ID")},
         (400, 404)),
        ("artifact_id", "POST", "/v1/responses",
         {"model": "auto", "input": _picture("artifact:ID"), "conversation": conversation}, (400, 404)),
        ("message_id", "POST", f"/v1/sessions/{session}/branch", {"message_id": "ID"}, (400, 404)),
        ("message_id", "POST", f"/v1/sessions/{session}/regenerate", {"message_id": "ID"}, (400, 404)),
        ("message_id", "PUT", f"/v1/sessions/{session}", {"head": "ID"}, (400, 404)),
        ("message_id", "POST", "/v1/responses",
         {"model": "auto", "input": "x", "previous_response_id": "ID"}, (400,)),
        ("response_id", "POST", "/v1/responses",
         {"model": "auto", "input": "x", "previous_response_id": "ID"}, (400,)),
        ("conversation_id", "POST", "/v1/responses", {"model": "auto", "input": "x", "conversation": "ID"}, (404,)),
        ("session_id", "POST", "/v1/responses", {"model": "auto", "input": "x", "conversation": {"id": "ID"}}, (404,)),
        ("item_id", "POST", "/v1/responses",
         {"model": "auto", "input": [{"type": "item_reference", "id": "ID"}]}, (404,)),
        ("item_id", "GET", f"/v1/conversations/{conversation}/items?after=ID", None, (404,)),
    ]  # fmt: skip
