"""What downloaded models take of the disk, what they may, and which of them make room."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.registry.entries import Entries

if TYPE_CHECKING:
    from gateway.house import House


class Storage:
    def __init__(self, house: "House", entries: Entries) -> None:
        self._house = house
        self._entries = entries

    @property
    def root(self) -> Path:
        """The folder that downloaded models lie in: `{data_dir}/models/hub`.

        {root}/{ORG}--{NAME}/{first 12 of the commit}/PATH/IN/REPO, and `*.part`, `*.part.json` of what is unfinished.
        """
        return self._house.estate.config.data_dir / "models" / "hub"

    async def reserve(self, holder: str, size_bytes: int) -> None:
        """Have room for a download before its first byte: within `model_bytes_max`, with `min_free_bytes` left, beside
        what others have reserved; where the policy allows it, models that were not used for longest are removed.

        holder: a job's id, which may reserve again with another size.  size_bytes: what is still to come.
        Raises InsufficientStorage that says what there is, what is wanted and what helps; nothing is removed then.
        """

    def release(self, holder: str) -> None:
        """It is finished, or given up; what it has written counts by itself."""

    async def survey(self) -> dict[str, Any]:
        """What lies there, for GET /v1/storage."""
        raise NotImplementedError

    async def clean(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove what the policy says, and what is of no use: told in full, with reasons, and with dry_run not done."""
        raise NotImplementedError

    async def watch(self) -> None:
        """Apply the policy now and then, until cancelled."""

    in_use: Callable[[str], bool] = staticmethod(lambda _: False)
    """Whether a model, by its id, is loaded, being loaded or waited for; the house lends its own."""
