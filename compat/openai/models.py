"""OpenAI's list of models, both directions.  Source: https://platform.openai.com/docs/api-reference/models"""

from typing import Any

import msgspec

from compat.canonical.error import BadResponse
from compat.canonical.model import Model


def render_model(model: Model, id_: str | None = None) -> dict[str, Any]:
    """OpenAI's four fields, then ours; what is unknown is null."""
    return {
        "id": id_ or model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by or model.backend,
        "backend": model.backend,
        "modality": model.modality,
        "capabilities": list(model.capabilities),
        "context_length": model.context_length,
        "status": model.status,
        "size_bytes": model.size_bytes,
        "quantization": model.quantization,
        "source": model.source,
        "license": model.license,
        "version": model.version,
        "parameters": model.parameters,
        "memory_bytes": model.memory_bytes,
        "gated": model.gated,
        "price": model.price,
        "aliases": list(model.aliases),
        "tags": list(model.tags),
        "summary": model.summary,
    }


def parse_models(body: bytes, backend: str) -> list[Model]:
    """Read a provider's list; some send the bare list, some leave `data` out.  Raises BadResponse."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadResponse("The provider's list of models could not be read.") from e
    rows = value.get("data", value.get("models")) if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise BadResponse("The provider's list of models could not be read.")
    models = []
    for row in rows:
        if isinstance(row, dict) and isinstance(name := row.get("id") or row.get("name"), str):
            created, owner = row.get("created"), row.get("owned_by")
            length = row.get("context_length") or row.get("context_window") or row.get("max_model_len")
            models.append(
                Model(
                    name=name.removeprefix("models/"),  # Gemini's compatible endpoint prefixes its names
                    backend=backend,
                    created=created if isinstance(created, int) else 0,
                    owned_by=owner if isinstance(owner, str) else None,
                    context_length=length if isinstance(length, int) else None,
                )
            )
    return models
