"""In which dialect an error is told where no endpoint has been reached: the path says, or the client."""

from compat.anthropic import error as anthropic
from compat.canonical.error import GatewayError, InsufficientStorage, Overloaded, Rejected
from compat.openai import error as openai
from gateway.db.engine import is_full
from gateway.telemetry.logging import Redactor, logger, masked
from gateway.visit import Visit


def render_error(error: GatewayError, visit: Visit) -> bytes:
    """The body of an error answer: Anthropic's beneath its own path and to its clients, OpenAI's to all others."""
    if is_anthropic(visit):
        error.request_id = visit.told_id
        return anthropic.render_error(error)
    return openai.render_error(error)


def mask(error: GatewayError, visit: Visit, redact: Redactor) -> None:
    """Take out of an error what its client must not read: it may quote a provider, and that a header of ours.

    Before it is rendered: what a user calls a secret must not change how an answer is built.
    """
    own = [word for account in visit.lent for word in account.words]

    def clean(text: str) -> str:
        return redact.answer(text, own)

    error.message, error.type = clean(error.message), clean(error.type)
    error.code, error.param = masked(error.code, clean), masked(error.param, clean)
    if isinstance(error, Rejected):
        error.details = masked(error.details, clean)


def unavailable(failure: Exception, visit: Visit) -> GatewayError:
    """What a client is told when the database cannot be asked, or has no room left; the log has the cause."""
    cause = type(getattr(failure, "orig", None) or failure).__name__  # its words hold parameters of the statement
    if is_full(failure):
        logger().error("disk_full", request_id=visit.request_id, error=type(failure).__name__, cause=cause)
        return InsufficientStorage(
            "The gateway's disk is full: this cannot be kept. Make room on it: by POST /v1/storage/cleanup, or by hand."
        )
    logger().error("database_failed", request_id=visit.request_id, error=type(failure).__name__, cause=cause)
    return Overloaded(
        "The gateway's database cannot be asked now; try again.", code="database_unavailable", retry_after_s=1.0
    )


def is_anthropic(visit: Visit) -> bool:
    """Whether a request speaks Anthropic's dialect, by its headers or its path."""
    return visit.anthropic or visit.path == "/v1/messages" or visit.path.startswith("/v1/messages/")
