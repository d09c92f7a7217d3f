"""Answers that are kept for whoever asks for them later: of requests that were answered 202 (`Prefer: respond-async`),
and of those with an `Idempotency-Key`."""

from typing import Literal

from msgspec import Struct

Status = Literal["running", "done", "failed", "cancelled"]


class Answer(Struct, frozen=True, kw_only=True):
    id: str
    """The request's, unless that was taken."""
    request_id: str = ""
    """The request's; empty is its own id."""
    tenant: str
    owner: str
    endpoint: str
    """Path template."""
    asynchronous: bool
    flight: str | None = None
    """Hash of who asked, where, and under what Idempotency-Key; of a tenant's answers with the same there is one."""
    fingerprint: str | None = None
    """Hash of what was asked: another body under the same key is a mistake."""
    status: Status = "running"
    standing: bytes | None = None
    """How the request stood in the end, as JSON (`gateway.requests.RequestStatus`)."""
    http_status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """As it was, or would have been, sent: JSON, or the whole of a stream."""
    partial: bytes | None = None
    """What there was of an answer that was cancelled, as JSON."""
    created_at: float
    """Seconds since 1970, UTC, like the next two."""
    ended_at: float | None = None
    expires_at: float

    @property
    def is_json(self) -> bool:
        """Whether the body is, rather than a stream."""
        return ("content-type", "application/json") in self.headers
