"""What came back in a turn, as the items that are kept of it."""

import time
from collections.abc import Iterable, Sequence

from compat import nativeturn
from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Finished, Produced, ReasoningDelta, Result, TextDelta, ToolDelta
from compat.canonical.model import Modality
from compat.openai.responses_answer import Writer, unfold
from compat.openai.responses_item import Item
from gateway.visit import new_id


def items_of(result: Result, modality: Modality) -> list[Item]:
    """Of a whole answer."""
    if modality != "text":
        return nativeturn.made(result.produced, new_id)
    return _written(unfold(result)).output


def items_so_far(seen: Sequence[Event], modality: Modality) -> list[Item]:
    """Of one that ended early; empty where nothing was shown of it."""
    if not any(map(_shows, seen)):
        return []
    if modality != "text":
        whole = [event for event in seen if isinstance(event, Produced) and event.partial is None]
        return nativeturn.made(whole, new_id)
    writer = _written(event for event in seen if not isinstance(event, Finished))
    writer.fail(GatewayError("It ended early."))
    return writer.output


def _written(events: Iterable[Event]) -> Writer:
    now = int(time.time())
    writer = Writer("", {}, model="", created_at=now, new_id=new_id, clock=time.time)
    for event in events:
        writer.feed(event)
    return writer


def _shows(event: Event) -> bool:
    match event:
        case Produced(partial=None) | ToolDelta():
            return True
        case TextDelta(text=text) | ReasoningDelta(text=text):
            return bool(text)
    return False
