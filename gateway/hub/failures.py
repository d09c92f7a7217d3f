"""What goes wrong with the hub, as our errors."""

import json
from typing import TYPE_CHECKING

from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    Forbidden,
    GatedRepo,
    GatewayError,
    InvalidRequest,
    NotFound,
    RateLimited,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)

if TYPE_CHECKING:
    from httpx2 import Response

RETRY_MAX_S = 120.0
OFFLINE = "The model hub is not asked, because HF_HUB_OFFLINE is set: unset it and restart the gateway."
_SETTING = "hub.token (or HF_TOKEN)"


def told(error: Exception, *, endpoint: str, repo: str | None, revision: str | None, has_token: bool) -> GatewayError:
    """The error for a client.  repo: that was asked for, where it was one."""
    import httpx2
    from huggingface_hub import errors

    of = f"'{repo}'" if repo else "the list"
    match error:
        case GatewayError():
            return error
        case errors.OfflineModeIsEnabled():
            return Unreachable(OFFLINE)
        case errors.GatedRepoError():
            return gated(endpoint, repo or "", has_token=has_token)
        case errors.RepositoryNotFoundError() if error.response is None or "x-error-code" in error.response.headers:
            cure = f"the token in {_SETTING} may not see it" if has_token else f"{_SETTING} is not set"
            return NotFound(f"There is no repository {of} on the hub, or it is private and {cure}.", param="repo")
        case errors.RevisionNotFoundError():
            return NotFound(f"The repository {of} has no revision '{revision}'.", param="revision")
        case errors.EntryNotFoundError():
            return NotFound(f"The repository {of} has no such file at this revision.", param="file")
        case errors.DisabledRepoError():
            return Forbidden(f"The hub has disabled the repository {of}.", param="repo", code="repo_disabled")
        case errors.HfHubHTTPError() if repo and error.response is not None and _is_withheld(error.response):
            return gated(endpoint, repo, has_token=has_token)
        case errors.HfHubHTTPError() if repo and error.response is not None and error.response.status_code == 404:
            return NotFound(f"The hub has no repository {of}, or not this of it at this revision.", param="repo")
        case errors.HfHubHTTPError() if error.response is not None:
            return _by_status(error.response.status_code, dict(error.response.headers), of, has_token=has_token)
        case errors.HFValidationError():
            return InvalidRequest(f"The hub has no repository of such a name: {of}.", param="repo")
        case httpx2.TimeoutException():
            return TimedOut("The model hub does not answer in time.")
        case httpx2.DecodingError() | httpx2.RemoteProtocolError() | httpx2.TooManyRedirects():
            return BadResponse(f"The model hub answered in a way that cannot be used, about {of}.")
        case httpx2.TransportError() | OSError():
            return Unreachable("The model hub cannot be reached; hub.endpoint (or HF_ENDPOINT) says where it is.")
        case json.JSONDecodeError() | ValueError() | TypeError() | LookupError() | AttributeError():
            return BadResponse(f"The model hub answered in a way that cannot be used, about {of}.")
        case _:
            return BadResponse(f"The model hub could not be asked about {of}.")


def gated(endpoint: str, repo: str, *, has_token: bool) -> GatedRepo:
    """The error for a repository that is for some only: whose licence is still to be accepted, or that is private."""
    page = f"{endpoint}/{repo}"
    if has_token:
        cure = f"the account of the token in {_SETTING} has not been let in: accept its licence there, and ask again"
    else:
        cure = f"accept its licence there, then set {_SETTING} to a token of that account"
    return GatedRepo(f"The model repository '{repo}' is gated or private, see {page}: {cure}.", param="repo")


def _is_withheld(response: "Response") -> bool:
    """Whether it refuses this repository, and not the token as such."""
    told = response.headers
    if told.get("x-error-message") == "Invalid credentials in Authorization header":
        return False
    return response.status_code in (401, 403)


def _by_status(status: int, headers: dict[str, str], of: str, *, has_token: bool) -> GatewayError:
    if status == 429:
        wait = retry_after(headers)
        error = RateLimited("The model hub's rate limit is reached; try again later.", retry_after_s=wait)
        error.rest_s = wait
        return error
    if status in (401, 403):
        cure = f"the token in {_SETTING} is not accepted, or may not read it" if has_token else f"{_SETTING} is not set"
        return AuthFailed(f"The model hub refuses to answer about {of}: {cure}.")
    if status in (400, 422):
        return InvalidRequest(f"The model hub does not take the question about {of}.")
    if status in (408, 504):
        return TimedOut("The model hub does not answer in time.")
    if status >= 500:
        return UpstreamFailed(f"The model hub failed with status {status}; try again later.")
    return BadResponse(f"The model hub answered with status {status} about {of}.")


def retry_after(headers: dict[str, str]) -> float | None:
    """How long the hub wants to be left alone, by its `Retry-After` or else its `RateLimit` (`…;t=SECONDS`)."""
    lower = {name.lower(): text for name, text in headers.items()}
    given = lower.get("retry-after", "").strip() or lower.get("ratelimit", "").rpartition("t=")[2].strip()
    return min(float(given), RETRY_MAX_S) if given.isascii() and given.isdecimal() and len(given) < 10 else None
