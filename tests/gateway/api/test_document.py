"""The gateway describing itself: a sound OpenAPI document, and docs that ask nobody else."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_the_document_is_openapi_3_1(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(document["info"])
    ids = []
    for path, operations in document["paths"].items():
        assert path.startswith("/")
        declared = {p["name"] for op in operations.values() for p in op.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        for method, operation in operations.items():
            assert method in METHODS
            assert operation["responses"]
            ids.append(operation["operationId"])
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    references = [node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]


def test_every_schema_is_json_schema(anonymous: httpx2.Client) -> None:
    for schema in anonymous.get("/openapi.json").json()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_what_the_gateway_serves_is_in_the_document(anonymous: httpx2.Client) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    for path in ("/v1/chat/completions", "/v1/generate", "/v1/models", "/health", "/ready", "/metrics"):
        assert path in paths
    assert any(path.startswith("/v1/models/{") for path in paths)


def test_only_what_can_be_streamed_says_so(anonymous: httpx2.Client) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    for path, streams in (("/v1/embeddings", False), ("/v1/rerank", False), ("/v1/generate", True)):
        assert ("text/event-stream" in paths[path]["post"]["responses"]["200"]["content"]) is streams


def test_every_operation_is_in_one_group(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    groups = [tag["name"] for tag in document["tags"]]
    found = {path: operation["tags"] for path, methods in document["paths"].items() for operation in methods.values()}
    assert {path for path, tags in found.items() if len(tags) != 1 or tags[0] not in groups} == set()
    assert {tags[0] for tags in found.values()} == set(groups)
    assert (found["/v1/messages"], found["/v1/chat/completions"]) == (["Anthropic"], ["OpenAI"])


def test_every_error_is_described_as_it_is(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    told = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            told |= {(operation["operationId"], status) for status in answers if status[0] in "45"}
            name = answers["default"]["$ref"].removeprefix("#/components/responses/")
            error = document["components"]["responses"][name]
            assert error["content"]["application/json"]["schema"]["$ref"].endswith("Error")
    assert told == {("ready", "503")}, "whose answer is the same as the good one"


def test_operations_are_called_as_a_program_would_call_them(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    ids = {op["operationId"] for operations in document["paths"].values() for op in operations.values()}
    assert [id_ for id_ in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z]*|3d)*", id_)] == []
    assert {"createChatCompletion", "generate", "createMesh", "listJobs", "getJob", "revokeKey"} <= ids
    assert [name for name in document["components"]["schemas"] if not re.fullmatch(r"([A-Z][a-zA-Z]*)+", name)] == []


def test_every_answer_has_a_type(anonymous: httpx2.Client) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    for operations in paths.values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if operation["operationId"] == "getResult":
                    continue  # it is what any other operation answers
                for media in answer.get("content", {}).values():
                    assert media["schema"].get("$ref") or media["schema"]["type"] == "string", operation["operationId"]
                assert status in ("304", "307") or "content" in answer or "$ref" in answer, operation["operationId"]


def test_the_docs_load_nothing_from_anybody_else(anonymous: httpx2.Client) -> None:
    page = anonymous.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    assert not re.findall(r"<script(?! src=)", page.text)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    for link in links:
        assert link.startswith("/docs/assets/")
        asset = anonymous.get(link)
        assert asset.status_code == 200
        assert asset.content
        if link.endswith(".css"):
            assert not re.findall(r"url\((?!['\"]?data:)|@import", asset.text)
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text)


def test_only_the_docs_own_files_are_served(anonymous: httpx2.Client) -> None:
    for path in ("/docs/assets/LICENSE", "/docs/assets/..%2Fdocument.py", "/docs/assets/%2e%2e/x"):
        assert anonymous.get(path).status_code == 404
