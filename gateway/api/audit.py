"""GET /v1/audit: who changed what."""

from datetime import datetime
from typing import Any, Literal

from litestar import get
from msgspec import Struct

from compat.canonical.error import InvalidRequest
from gateway.api.resource import PAGE, PAGE_MAX, Asked, cursor_of, number, page, word
from gateway.auth.keycard import moment
from gateway.db.audit import Event
from gateway.house import House


class AuditEvent(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["audit_event"] = "audit_event"
    at: datetime
    actor: str
    action: str
    target: str
    tenant: str
    request_id: str | None
    detail: dict[str, Any]


def routes(house: House) -> list[Any]:
    @get(
        "/v1/audit",
        opt={
            "scope": "admin",
            "query": {
                "limit": f"Events a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
                "tenant": "Only what this tenant's things saw.",
                "action": "Only this action, like `key.revoke`.",
                "actor": "Only what this user did.",
                "from": "Not before this time (ISO 8601 with zone).",
                "to": "Before this time.",
            },
        },
        summary="List the audit log",
        description="Administrative acts, newest first.  What is here was done, and what was done is here: both are "
        "one transaction.",
    )
    async def list_audit(request: Asked) -> dict[str, Any]:
        limit, place = number(request, "limit", PAGE, PAGE_MAX, least=1), cursor_of(request) or ""
        events = await house.archive.acts.page(
            limit + 1,
            place or None,
            tenant=word(request, "tenant"),
            action=word(request, "action"),
            actor=word(request, "actor"),
            since=_time(request, "from"),
            until=_time(request, "to"),
        )
        return page([_shown(event) for event in events], limit, events[limit - 1].id if len(events) > limit else None)

    return [list_audit]


def _shown(event: Event) -> AuditEvent:
    return AuditEvent(
        id=event.id,
        at=moment(event.at),
        actor=event.actor,
        action=event.action,
        target=event.target,
        tenant=event.tenant,
        request_id=event.request_id,
        detail=event.detail,
    )


def _time(request: Asked, name: str) -> float | None:
    given = word(request, name)
    if given is None:
        return None
    try:
        # A plus sign in a query that nobody encoded arrives as a space.
        at = datetime.fromisoformat(given.replace(" ", "+") if "T" in given else given)
        if at.tzinfo is None:
            raise ValueError
        return at.timestamp()
    except (ValueError, OverflowError) as e:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected a time like 2026-11-22T08:00:00Z.", param=name, code="invalid_value"
        ) from e
