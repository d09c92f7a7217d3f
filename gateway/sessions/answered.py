"""What came back in a turn, as the items that are kept of it, and as a model is told of it later."""

import json
import time
from collections.abc import Iterable, Sequence

from compat import nativeturn
from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Finished, Metered, Produced, ReasoningDelta, Result, TextDelta, ToolDelta
from compat.canonical.model import Modality
from compat.openai.responses_answer import Writer, unfold
from compat.openai.responses_item import Item
from gateway.visit import new_id

_CALLS = ("function_call", "custom_tool_call")


def items_of(result: Result, modality: Modality) -> list[Item]:
    """Of a whole answer."""
    if modality != "text":
        return nativeturn.made(result.produced, new_id)
    return _written(unfold(result)).output


def items_so_far(seen: Sequence[Event], modality: Modality) -> list[Item]:
    """Of one that ended early, without calls that are not whole; empty where nothing was shown of it."""
    broken = _broken(seen)
    seen = [event for event in seen if not (isinstance(event, ToolDelta) and event.call in broken)]
    if not any(map(_shows, seen)):
        return []
    if modality != "text":
        whole = [event for event in seen if isinstance(event, Produced) and event.partial is None]
        return nativeturn.made(whole, new_id)
    writer = _written(event for event in seen if not isinstance(event, Finished))
    writer.fail(GatewayError("It ended early."))
    return writer.output


def settled(items: Sequence[Item]) -> list[Item]:
    """Items that come before others, whose calls all have results: no provider takes a call that nobody answered.

    One that has none is told in words, or left out where it was made together with one that has.
    """
    answered = _answered(items)
    told: list[Item] = []
    alone: list[Item] = []
    """Of calls made together, those that have no result, as long as none of the others has."""
    together = False

    def end() -> None:
        nonlocal together
        if alone and not together:
            words = "\n".join(f"[called {one['name']}: no result came]" for one in alone)
            said: Item = {"type": "output_text", "text": words}
            told.append({"type": "message", "role": "assistant", "content": [said]})
        alone.clear()
        together = False

    for n, item in enumerate(items):
        if item["type"] in _CALLS and n not in answered:
            alone.append(item)
            continue
        if item["type"] in _CALLS:
            together = True
        elif item["type"].endswith("_output") or item.get("role", "assistant") != "assistant":
            end()
        told.append(item)
    end()
    return told


def _answered(items: Sequence[Item]) -> set[int]:
    """Where the calls are whose results come before anybody says anything else."""
    found: set[int] = set()
    waiting: dict[str, int] = {}
    for n, item in enumerate(items):
        if item["type"] in _CALLS:
            waiting[item["call_id"]] = n
        elif item["type"].endswith("_call_output") and (at := waiting.pop(item.get("call_id", ""), None)) is not None:
            found.add(at)
        elif item.get("role", "assistant") != "assistant":
            waiting.clear()
    return found


def _broken(seen: Sequence[Event]) -> set[int]:
    """The calls, by their numbers, that are not whole: nothing came after them, or they cannot be read."""
    pieces: dict[int, list[str]] = {}
    open_: int | None = None
    for event in seen:
        if isinstance(event, ToolDelta):
            pieces.setdefault(event.call, []).append(event.arguments)
            open_ = event.call
        elif not isinstance(event, Metered):
            open_ = None
    return {call for call, said in pieces.items() if call == open_ or not _readable("".join(said))}


def _readable(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


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
