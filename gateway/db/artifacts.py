"""Artifacts and the blobs that hold their bytes, as they are kept."""

from sqlalchemy.ext.asyncio import AsyncEngine


class ArtifactRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
