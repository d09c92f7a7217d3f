"""The names that schemas have in the OpenAPI document, and wherever it is referred to."""

from typing import Any

REF = "#/components/schemas/"
NAMES = {
    "_Format": "ResponsesFormat",
    "_Texting": "ResponsesText",
    "_Thinking": "ResponsesReasoning",
    "_WireCustom": "ChatCustomTool",
    "_WireFormat": "ChatFormat",
    "_WireFunction": "ChatFunction",
    "_WireSchema": "ChatJsonSchema",
    "_WireTool": "ChatTool",
    "WireMessage": "ChatMessage",
    "Choice": "MessagesToolChoice",
    "Config": "MessagesOutputConfig",
    "Format": "MessagesFormat",
    "Metadata": "MessagesMetadata",
    "Thinking": "MessagesThinking",
    "Generate": "GenerateRequest",
    "Input": "GenerateInput",
    "Parameters": "GenerateParameters",
    "Output": "GenerationOutput",
    "Tokens": "GenerationUsage",
    "Artifact": "GenerationArtifact",
    "Facts": "MeshFacts",
    "MeshBody": "MeshRequest",
    "RerankBody": "RerankRequest",
    "Error": "ApiError",
    "Response": "OpenAIResponse",
}
"""Structs whose names say enough in their own module only."""


def named(name: str) -> str:
    """Where two structs have one name, the framework puts their modules before it: the last of these is enough."""
    if name in NAMES:
        return NAMES[name]
    modules, _, own = name.rpartition("_")
    if not modules:
        return name
    module = modules.rpartition("_")[2].capitalize()
    return own if own.startswith(module) else module + own


def referred(node: Any) -> Any:
    """A part of a schema, what it refers to by the names that the document has."""
    if isinstance(node, list):
        return [referred(one) for one in node]
    if not isinstance(node, dict):
        return REF + named(node.removeprefix(REF)) if isinstance(node, str) and node.startswith(REF) else node
    return {name: referred(value) for name, value in node.items()}
