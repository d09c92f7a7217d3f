"""A session: a conversation that is kept, over text, pictures and meshes.

Its turns (`gateway.db.responses.Turn`) are a tree: each goes on from another, and the head is the one that the next
will go on from.  Turns that go on from the same one are alternatives, of which the head's line is the one shown.
Conversations of OpenAI's Responses API are the same thing under another name.
"""

from typing import Any, Literal

from msgspec import Struct

from gateway.keeping import ContextPolicy

Status = Literal["open", "closed"]


class Summary(Struct, frozen=True):
    """What stands for the oldest turns where the context became too long."""

    text: str
    until: str
    """The id of the last turn that is in it."""


class Session(Struct, frozen=True, kw_only=True):
    id: str
    """`sess_…`, or `conv_…` for one that was begun as an OpenAI conversation; sortable by time."""
    tenant: str
    owner: str
    title: str | None = None
    titled: bool = False
    """Its client gave the title; else it is made from what is said first."""
    system: str | None = None
    """The system prompt of every turn."""
    model: str | None = None
    """The model of turns that name none."""
    parameters: dict[str, Any] = {}
    """Of turns that say nothing else, by their names in /v1/generate; each modality takes those it has."""
    metadata: dict[str, Any] = {}
    """The client's own."""
    state: dict[str, Any] = {}
    """What a provider gave to be brought back with the next turn."""
    context: ContextPolicy | None = None
    """None: as configured."""
    status: Status = "open"
    head: str | None = None
    """The last turn of the line that is shown; None while there is none."""
    message_count: int = 0
    """Of that line."""
    summary: Summary | None = None
    created_at: float
    """Seconds since 1970, UTC, like the next two."""
    last_used_at: float
    closed_at: float | None = None


def could_be_id(id_: str) -> bool:
    """Whether it could be the id of a session, a turn or an item: what PostgreSQL would refuse is not looked for."""
    return 0 < len(id_) <= 200 and id_.isprintable()
