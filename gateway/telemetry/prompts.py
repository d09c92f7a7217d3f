"""Requests' bodies in the log, where the configuration asks for them: redacted, cut, and nowhere else."""

import re
from collections.abc import Callable

from gateway.telemetry.logging import MASK, logger
from gateway.visit import Visit

BODY_MAX = 16 * 1024
SECRET_MAX = 8 * 1024
"""Looked at beyond the cut, so that a secret across it is recognized."""

_named = re.compile(
    r"""(\\*"[\w-]*(?:api[_-]?key|secret|passw(?:or)?d|authorization|access[_-]?token|credential)[\w-]*\\*"\s*:\s*\\*")"""
    r"""(?:[^"\\]|\\[^"])*""",
    re.IGNORECASE,
)
"""A JSON string under a name that says what it is, also inside another string, as in a tool's arguments."""


def note_prompt(visit: Visit, body: bytes, redact: Callable[[str], str], *, form: bool) -> None:
    """Write a request's body to the log."""
    told: dict[str, object] = {"request_id": visit.request_id, "route": visit.route, "bytes": len(body)}
    if form:
        logger().info("prompt_received", **told, note="a form, whose content is not shown")
        return
    text = body[: BODY_MAX + SECRET_MAX].decode("utf-8", "replace")
    text = redact(_named.sub(rf"\1{MASK}", text))
    if len(body) > BODY_MAX:
        text = text[:-SECRET_MAX][:BODY_MAX]
        told["note"] = f"cut; the first {len(text)} characters"
    logger().info("prompt_received", **told, body=text)
