"""What tests of the Responses API share: OpenAI's own models of its events, held to strictly."""

import itertools
import json
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent

from compat.canonical.event import Event, Finished, Metered, ReasoningDelta, Started, TextDelta, ToolDelta, Usage
from compat.openai.responses import ResponsesRequest, render_settings, summarizes
from compat.openai.responses_answer import Writer

MODELS: dict[str, Any] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(ResponseStreamEvent)[0])
}
"""Event type → the SDK's model of it."""

BEYOND_THE_SDK = {"store", "name"}
"""What OpenAI's responses and events have although the SDK does not name it."""

ANSWER: list[Event] = [
    Started(id="chatcmpl-1", model="small-1", created=1763769600),
    ReasoningDelta(text="The user wants "),
    ReasoningDelta(text="two cities."),
    ReasoningDelta(signature="c2lnbmVk"),
    ReasoningDelta(redacted="cmVkYWN0ZWQ="),
    TextDelta(text="One "),
    TextDelta(text="moment."),
    ToolDelta(call=0, id="call_a", name="get_weather"),
    ToolDelta(call=0, arguments='{"city":'),
    ToolDelta(call=1, id="call_b", name="get_weather", arguments='{"city":"Rome"}'),
    ToolDelta(call=0, arguments='"Paris"}'),
    Finished(reason="tool_calls"),
    Metered(usage=Usage(input_tokens=30, output_tokens=25, cached_tokens=10, reasoning_tokens=5)),
]


def writer(request: ResponsesRequest | None = None, model: str = "asked-for") -> Writer:
    """A writer whose ids count up and whose clock stands still."""
    request = request or ResponsesRequest(input="x")
    numbers = itertools.count(1)
    return Writer(
        "resp_1",
        render_settings(request),
        model=model,
        created_at=1763769600,
        new_id=lambda prefix: f"{prefix}_{next(numbers)}",
        clock=lambda: 1763769605.5,
        summary=summarizes(request),
        include=request.include or (),
    )


def written(events: list[Event], by: Writer) -> bytes:
    return b"".join(by.feed(event) for event in events) + by.end()


def checked(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each held to the SDK's model, to its name and to its number."""
    events = []
    for n, event in enumerate(stream.decode().removesuffix("\n\n").split("\n\n")):
        name, data = event.split("\n")
        body: dict[str, Any] = json.loads(data.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        assert body["sequence_number"] == n
        seen = MODELS[body["type"]].model_validate(body, strict=True)
        assert set(seen.model_extra or ()) <= BEYOND_THE_SDK
        if "response" in body:
            check_response(body["response"])
        events.append(body)
    return events


def check_response(body: dict[str, Any]) -> None:
    """Hold a response to the SDK's model."""
    assert set(Response.model_validate(body).model_extra or ()) <= BEYOND_THE_SDK
    for item in body["output"]:
        assert item["id"]
