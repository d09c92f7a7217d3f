"""What is said to who asks for a model that is registered and not here."""

from compat.canonical.error import GatewayError, ModelNotFound, ModelUnavailable
from gateway.registry.entry import UNDER_WAY, Entry

AGAIN_S = 30.0
"""When to ask again for a model that is on its way."""


def refusal(entry: Entry, done: float | None = None) -> GatewayError:
    """done: of its download, 0 to 1."""
    name = entry.name[:200]
    if entry.status == "downloading" and entry.reason == "paused":
        paused = ModelUnavailable(
            f"The model '{name}' is not here yet: its download is paused. POST /v1/jobs/JOB/resume goes on with it; "
            "GET /v1/jobs names the job."
        )
        paused.final = False
        return paused
    if entry.status in UNDER_WAY:
        far = f": {done:.0%}" if done is not None and entry.status == "downloading" else ""
        doing = "being downloaded" if entry.status == "downloading" else "here and being verified"
        error = ModelUnavailable(f"The model '{name}' is {doing}{far}.", retry_after_s=AGAIN_S)
        error.final = False
        return error
    match entry.status:
        case "registered":
            return ModelUnavailable(
                f"The model '{name}' is registered, but its files are not here yet: POST /v1/models/download brings "
                "them."
            )
        case "failed":
            return ModelUnavailable(
                f"The model '{name}' could not be brought here{_because(entry)}: POST /v1/models/download tries again."
            )
        case _ if entry.explicit:
            return ModelUnavailable(
                f"The model '{name}' is registered, but its files are missing: put them back, or download it again."
            )
        case _:
            return ModelNotFound(
                f"The model '{name}' is not here any more: its files are missing. Put them back, or ask for another."
            )


def _because(entry: Entry) -> str:
    reason = (entry.reason or "").rstrip(".")
    return f" ({reason[:200]})" if reason else ""
