"""The names under which OpenTelemetry's conventions want things told: the one place that holds them.

Those for generative AI are still in development and move: https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections.abc import Mapping

SERVICE_NAME, SERVICE_VERSION = "service.name", "service.version"

METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"
SCHEME, SERVER, PORT = "url.scheme", "server.address", "server.port"
ERROR = "error.type"
USER = "user.id"

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, REQUEST_STREAM = "gen_ai.request.model", "gen_ai.request.stream"
RESPONSE_MODEL, FINISH_REASONS = "gen_ai.response.model", "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
OUTPUT_TYPE = "gen_ai.output.type"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105
USAGE: Mapping[str, str] = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_written_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""By the fields of `Usage`."""

# The conventions have no names for these.
REQUEST_ID, TENANT = "pluggably.request_id", "pluggably.tenant"
BACKEND, REQUESTED, ATTEMPTS = "pluggably.backend", "pluggably.requested_model", "pluggably.attempts"

OTHER = "_OTHER"
"""Stands for what is none of the known values of an attribute."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUEST_DURATION = "http.server.request.duration"
OPERATION_DURATION = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105

BUCKETS: Mapping[str, tuple[float, ...]] = {
    REQUEST_DURATION: (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300),
    OPERATION_DURATION: (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    TIME_TO_FIRST_CHUNK: (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    TOKEN_USAGE: tuple(4**n for n in range(14)),
}
"""As the conventions advise; those of the first go on past their 10 s, which many an answer takes."""

_CHAT, _CONTENT, _EMBEDDINGS = "chat", "generate_content", "embeddings"
_IMAGE = "image"
OPERATIONS: Mapping[str, tuple[str, str | None]] = {
    "/v1/chat/completions": (_CHAT, "text"),
    "/v1/messages": (_CHAT, "text"),
    "/v1/responses": (_CHAT, "text"),
    "/v1/completions": ("text_completion", "text"),
    "/v1/embeddings": (_EMBEDDINGS, None),
    "/v1/rerank": ("rerank", None),
    "/v1/images/generations": (_CONTENT, _IMAGE),
    "/v1/images/edits": (_CONTENT, _IMAGE),
}
"""By an endpoint's path: the operation's name, and what kind of output it has."""
OPERATION_OTHERWISE = (_CONTENT, None)

PROVIDERS: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""What the conventions call a preset, where that is not its own name."""
