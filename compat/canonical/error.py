"""
Our errors:

* GatewayError
  x RequestError              the client's fault; never retried on the same model
    - InvalidRequest          400   `code` says which kind, `param` names the field
    - Unauthenticated         401
      + Anonymous             401   no credential came at all
    - Forbidden               403
      + GatedRepo             403   a model repository whose licence has to be accepted, or that is private
    - NotFound                404
    - ModelNotFound           404
    - MethodNotAllowed        405
    - RequestTimeout          408   it was sent too slowly
    - Conflict                409
    - TooLarge                413
    - UnsupportedMedia        415
    - LimitReached            429
      + BudgetReached         429   `insufficient_quota`
    - HeadersTooLarge         431
    - InsufficientStorage     507   no room on the disk, or not within what models may take
    - RequestCancelled        499   through the requests API, by somebody of its tenant
    - Rejected                4xx   a provider judged the request itself; its status and words
      + ContextTooLong        400
      + ContentFiltered       400
  x BackendError              the provider's or the engine's fault
    - Unreachable             502   no connection, or TLS failed
    - BadResponse             502   an answer we cannot read, or one that ended early
      + Corrupted             502   a file that is not what its hash says
    - UpstreamFailed          502   its 5xx
    - AuthFailed              502   it rejects our key
    - WorkerCrashed           502   a local model's process died
    - EngineFailed            502   a local model's engine could not do this one request, and lives on
    - QuotaExhausted          503   our account there is empty
    - InsufficientMemory      503   a local model does not fit into memory, whatever else goes
    - ModelUnavailable        503   a local model cannot be run here until somebody mends it
    - Overloaded              503
      + QueueFull             503
      + ModelLoading          503
    - TimedOut                504   connect, first token, idle or total
    - RateLimited             429   its rate limit, after our own attempts
  x InternalError             500   ours

Messages are for clients: they carry no provider body, path, address or secret.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class GatewayError(Exception):
    """An error that a client may see; `status` is the HTTP status it becomes."""

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    retryable: ClassVar[bool] = False
    """Another attempt, on this route or the next, may succeed."""
    final: bool = False
    """The client's SDK must not try again by itself (`x-should-retry: false`)."""
    worked: bool = False
    """A provider had the request by then, and may have worked on it."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        """What the client is told."""
        self.rest_s: float | None = None
        """How long the provider itself asked to be left alone."""
        self.refill_s: float | None = None
        """When the account's limit that was reached is over, however long that is."""
        self.limits: Sequence[tuple[str, str]] = ()
        """What the provider's body says of limits that its models have in common, as headers."""
        self.headers: Sequence[tuple[str, str]] = ()
        """The provider's that may reach the client, names in lower case."""
        self.request_id: str | None = None
        """Set by the house before it renders the error: some dialects name the request in the body."""
        if code is not None:
            self.code = code

    @property
    def word(self) -> str:
        """Our own name for it: one of few, fit for a metric's label."""
        return self.code or self.type


class InternalError(GatewayError):
    pass


class RequestError(GatewayError):
    status, type = 400, "invalid_request_error"
    code: str | None = None


class InvalidRequest(RequestError):
    pass


class Unauthenticated(RequestError):
    status, code = 401, "invalid_api_key"


class Anonymous(Unauthenticated):
    pass


class Forbidden(RequestError):
    status, code = 403, "insufficient_scope"


class GatedRepo(Forbidden):
    code = "gated_repo"


class NotFound(RequestError):
    status = 404


class ModelNotFound(RequestError):
    status, code = 404, "model_not_found"


class MethodNotAllowed(RequestError):
    status = 405

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(RequestError):
    status, code = 408, "request_timeout"


class Conflict(RequestError):
    status, code = 409, "conflict"


class TooLarge(RequestError):
    status, code = 413, "request_too_large"


class UnsupportedMedia(RequestError):
    status, code = 415, "unsupported_media_type"


class LimitReached(RequestError):
    status, type, code = 429, "requests", "rate_limit_exceeded"


class BudgetReached(LimitReached):
    type, code = "insufficient_quota", "budget_exceeded"


class HeadersTooLarge(RequestError):
    status, code = 431, "headers_too_large"


class InsufficientStorage(RequestError):
    status, type, code = 507, "server_error", "insufficient_storage"
    final = True


class RequestCancelled(RequestError):
    status, code = 499, "request_cancelled"
    final = True


class Rejected(RequestError):
    """A provider refused the request for what it says; the client gets the provider's own verdict."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str | None = None,  # noqa: A002  OpenAI's name for it
        code: str | None = None,
        param: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status = status
        self.details = details
        """The cause for programs, for dialects that tell it."""
        if type:
            self.type = type

    @property
    def word(self) -> str:
        # `code` and `type` are the provider's own words, of which there may be any number.
        return self.__class__.code or "rejected"


class ContextTooLong(Rejected):
    code = "context_length_exceeded"


class ContentFiltered(Rejected):
    code = "content_filter"


class BackendError(GatewayError):
    status, code = 502, "upstream_error"


class Unreachable(BackendError):
    code = "upstream_unreachable"
    retryable = True


class BadResponse(BackendError):
    code = "upstream_bad_response"
    retryable = True
    worked = True


class Corrupted(BadResponse):
    code = "checksum_mismatch"


class UpstreamFailed(BackendError):
    retryable = True


class AuthFailed(BackendError):
    code = "upstream_auth_failed"
    final = True


class WorkerCrashed(BackendError):
    code = "worker_crashed"
    retryable = True


class EngineFailed(BackendError):
    code = "engine_failed"
    final = True


class QuotaExhausted(BackendError):
    status, code = 503, "upstream_quota_exhausted"
    final = True


class InsufficientMemory(BackendError):
    status, code = 503, "insufficient_memory"


class ModelUnavailable(BackendError):
    status, code = 503, "model_unavailable"
    final = True


class Overloaded(BackendError):
    status, code = 503, "server_is_overloaded"
    retryable = True


class QueueFull(Overloaded):
    code = "queue_full"


class ModelLoading(Overloaded):
    code = "model_loading"


class TimedOut(BackendError):
    status, code = 504, "upstream_timeout"
    retryable = True
    worked = True


class RateLimited(BackendError):
    status, type, code = 429, "requests", "rate_limit_exceeded"
    retryable = True
