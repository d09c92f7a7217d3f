"""In which dialect an error is told where no endpoint has been reached: the path says, or the client."""

from compat.anthropic import error as anthropic
from compat.canonical.error import GatewayError, Overloaded
from compat.openai import error as openai
from gateway.telemetry.logging import logger
from gateway.visit import Visit


def render_error(error: GatewayError, visit: Visit) -> bytes:
    """The body of an error answer: Anthropic's beneath its own path and to its clients, OpenAI's to all others."""
    if is_anthropic(visit):
        error.request_id = visit.request_id
        return anthropic.render_error(error)
    return openai.render_error(error)


def unavailable(failure: Exception, visit: Visit) -> Overloaded:
    """What a client is told when the database cannot be asked; the log has the cause."""
    cause = type(getattr(failure, "orig", None) or failure).__name__  # its words hold parameters of the statement
    logger().error("database_failed", request_id=visit.request_id, error=type(failure).__name__, cause=cause)
    return Overloaded(
        "The gateway's database cannot be asked now; try again.", code="database_unavailable", retry_after_s=1.0
    )


def is_anthropic(visit: Visit) -> bool:
    """Whether a request speaks Anthropic's dialect, by its headers or its path."""
    return visit.anthropic or visit.path == "/v1/messages" or visit.path.startswith("/v1/messages/")
