"""A client whose every answer is held to its provider's document."""

import json
from typing import Any

import httpx2

from tests.process import Gateway
from tests.schemas.published import Provider, published

Json = dict[str, Any]


BEYOND = {
    "the gateway's own": {
        "reasoning_content", "thinking_blocks", "next_cursor", "aliases", "backend", "capabilities",
        "context_length", "gated", "license", "logprobs[].bytes", "memory_bytes", "modality", "parameters", "price",
        "quantization", "routes", "size_bytes", "source", "status", "summary", "tags", "version", "pinned", "reason",
        "update", "defaults",
    },
    "llama.cpp's": {"timings", "logprobs.content[].id", "top_logprobs[].id"},
    "the stand-ins', which must pass": {
        "vendor_note", "provider", "x_groq", "reasoning", "reasoning_details", "content_filter_results",
        "native_finish_reason", "billing", "frequency_penalty", "presence_penalty", "obfuscation",
        "sequence_number", "delta.annotations",
    },
    "of a later edition": {
        "store", "cache_write_tokens", "diagnostics", "lifecycle", "line", "deprecated_at", "retires_at",
        "error.details",
    },
}  # fmt: skip
"""Whose fields answers have although the documents do not: the ends of their paths."""


class Held:
    """Asks a gateway in one provider's dialect."""

    def __init__(self, gateway: Gateway, provider: Provider, key: str | None = None) -> None:
        self.provider = provider
        self.document = published(provider)
        self.root = "/v1" if provider == "openai" else ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx2.Client(base_url=gateway.url, headers=headers, timeout=60, verify=False)

    def whole(self, operation: str, method: str = "post", *, id_: str = "", query: str = "", **options: Any) -> Json:
        """The good answer of an operation, as its document names it; `id_` stands for what is in braces."""
        answer = self.http.request(method.upper(), self._path(operation, id_) + query, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        body: Json = answer.json()
        self.hold(self.document.answer(method, operation, "application/json"), body)
        return body

    def stream(
        self, operation: str, method: str = "post", *, id_: str = "", query: str = "", **options: Any
    ) -> list[Json]:
        """The events of a streamed answer; an error among them must be one of the dialect."""
        answer = self.http.request(method.upper(), self._path(operation, id_) + query, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        schema = self.document.answer("post" if id_ else method, operation.partition("/{")[0], "text/event-stream")
        events = []
        for name, data in _frames(answer.text):
            if data == "[DONE]":
                assert (name, self.provider) == (None, "openai")
                continue
            event = json.loads(data)
            assert name in (None, event.get("type"))
            events.append(event)
            if event.get("type") == "ping":  # Anthropic's prose has it, its document has not
                assert event == {"type": "ping"}
            elif "error" in event and schema != "ResponseStreamEvent":
                self.hold("ErrorResponse", event)
            else:
                self.hold(schema, event)
        assert events
        return events

    def refused(self, status: int, method: str, path: str, **options: Any) -> Json:
        """The error that answers a request."""
        answer = self.http.request(method, path, **options)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        body: Json = answer.json()
        self.hold("ErrorResponse", body)
        return body

    def hold(self, schema: str, value: Any) -> None:
        faults = self.document.faults(schema, value)
        assert not faults, f"not a {schema}: {faults}\n{json.dumps(value)[:2000]}"
        strange = {path for path in self.document.undocumented(schema, value) if not _known(path)}
        assert not strange, f"a {schema} has no such fields: {strange}\n{json.dumps(value)[:2000]}"

    def _path(self, operation: str, id_: str) -> str:
        opening, closing = operation.find("{"), operation.find("}")
        return self.root + (operation if opening < 0 else operation[:opening] + id_ + operation[closing + 1 :])


def _known(path: str) -> bool:
    return any(f".{path}".endswith(f".{end}") for ends in BEYOND.values() for end in ends)


def _frames(body: str) -> list[tuple[str | None, str]]:
    """The name, if it has one, and the data of each event."""
    found = []
    for frame in body.replace("\r\n", "\n").split("\n\n"):
        lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert len(lines) == len(names) + len(data), frame
        if lines:
            found.append((names[0] if names else None, "\n".join(data)))
    return found
