"""What the generating endpoints are called, take and answer, as the OpenAPI document says it: they are plain ASGI.

Errors of all endpoints as well.
"""

from gateway.api import session_turns
from gateway.schema.bodies import REFS

GENERATING = {
    "/v1/chat/completions": (
        "createChatCompletion",
        "Create a chat completion",
        "OpenAI's chat completions.",
        "ChatCompletion",
    ),
    "/v1/completions": ("createCompletion", "Create a completion", "OpenAI's legacy completions.", "Completion"),
    "/v1/responses": ("createResponse", "Create a response", "OpenAI's Responses API.", "Response"),
    "/v1/embeddings": ("createEmbeddings", "Create embeddings", "OpenAI's embeddings.", "Embeddings"),
    "/v1/rerank": ("rerank", "Rerank documents", "How well each document answers a query, the best first.", "Ranking"),
    "/v1/images/generations": ("createImages", "Create images", "OpenAI's images.", "Images"),
    "/v1/images/edits": ("editImages", "Edit images", "OpenAI's image edits.", "Images"),
    "/v1/3d/generations": ("createMesh", "Create a mesh", "A 3D model from words or a picture.", "MeshAnswer"),
    "/v1/messages": ("createMessage", "Create a message", "Anthropic's Messages.", "Message"),
    "/v1/messages/count_tokens": (
        "countTokens",
        "Count tokens",
        "How long a prompt is, as the model's own provider or engine counts it.",
        "TokenCount",
    ),
    "/v1/generate": ("generate", "Generate", "The gateway's own dialect.", "Generation"),
    session_turns.GENERATE: (
        "generateInSession",
        "Generate in a session",
        "As /v1/generate, with what was said in the session before.",
        "Generation",
    ),
    session_turns.REGENERATE: (
        "regenerate",
        "Answer anew",
        "Another answer to a message of a session; the older one is kept as an alternative.",
        "Generation",
    ),
}
"""By path: its operation's id, what it does in short, what it is, and the schema of its answer."""
HEADERS = (
    {
        "name": "x-request-timeout",
        "description": "Seconds the whole request may take.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 86_400},
    },
    {
        "name": "prefer",
        "description": "`respond-async`: answer 202 with the request; `wait=SECONDS`: not before so long.",
        "schema": {"type": "string"},
    },
    {
        "name": "idempotency-key",
        "description": "Whoever asks the same under the same key gets the same answer, and it is made once.",
        "schema": {"type": "string", "maxLength": 255},
    },
)
"""What all of them hear."""
LATER = "With `Prefer: respond-async`: the request, to poll, watch or cancel."
WHOLE = ("/v1/embeddings", "/v1/rerank", "/v1/messages/count_tokens")
"""What is never answered as a stream."""
_PASSED_ON = "OpenAI's request.  Fields not listed here reach the provider as they are."
ASKED = {
    "ChatRequest": _PASSED_ON,
    "CompletionRequest": _PASSED_ON,
    "EmbeddingsRequest": _PASSED_ON,
    "ResponsesRequest": _PASSED_ON,
    "ImagesRequest": _PASSED_ON,
    "ImageEditRequest": _PASSED_ON,
    "MessagesRequest": "Anthropic's request.  Fields not listed here reach an Anthropic provider as they are.",
    "RerankBody": "Jina's request.  Fields not listed here reach the provider as they are.",
    "MeshBody": "A prompt or an image.  Fields not listed here are the engine's own parameters.",
}
"""The bodies that may have more fields than their schemas tell of."""
ANSWERED = {
    **dict.fromkeys(("ChatCompletion", "Completion", "Embeddings", "Response", "Images"), "OpenAI's answer."),
    "Message": "Anthropic's answer.",
    "Ranking": "Jina's answer.",
}
"""The answers that somebody else describes."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"$ref": REFS.format(name="ErrorDetails")}},
}
_ERROR_DETAILS = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"], "description": "The field it is about."},
        "code": {"type": ["string", "null"]},
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "error"},
        "error": {"$ref": REFS.format(name="AnthropicErrorDetails")},
        "request_id": {"type": ["string", "null"]},
    },
}
_ANTHROPIC_ERROR_DETAILS = {
    "type": "object",
    "required": ["type", "message"],
    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
}
ERRORS = {
    "Error": _ERROR,
    "ErrorDetails": _ERROR_DETAILS,
    "AnthropicError": _ANTHROPIC_ERROR,
    "AnthropicErrorDetails": _ANTHROPIC_ERROR_DETAILS,
}
SCHEMA = {"type": "object", "description": "See docs/schema.md.", "additionalProperties": True}
COUNT = {"type": "object", "required": ["input_tokens"], "properties": {"input_tokens": {"type": "integer"}}}
