"""What a native request asks for, by modality: its parameters, and the task it becomes."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import fields, replace

from compat.body import missing
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Text
from compat.canonical.model import Modality
from compat.canonical.request import (
    EmbeddingRequest,
    ImageRequest,
    MeshRequest,
    Request,
    Sampling,
    TextRequest,
)
from compat.mesh import Format, formats_of, picture, prompt, seed
from compat.openai.images import check_count
from compat.openai.part import media_of_url, parse_message


class Input(Struct, forbid_unknown_fields=True):
    """What to answer: a prompt or messages, with pictures if the model takes them; a picture alone, for a mesh."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    """OpenAI's chat messages."""
    images: list[str] | None = None
    """`https:` or `data:` URLs, or ids of artifacts."""


class Parameters(Struct, forbid_unknown_fields=True):
    """How to go about it; what is left out is the backend's own default.  Each modality has its own."""

    temperature: float | None = None
    """Of text, as all down to `frequency_penalty`; `seed` is everybody's but embeddings'."""
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    """Pictures."""
    size: str | None = None
    """Of pictures: WIDTHxHEIGHT in pixels, or the provider's own word."""
    steps: int | None = None
    """Of pictures and meshes, as `guidance`."""
    guidance: float | None = None
    negative_prompt: str | None = None
    """Of pictures, as `strength` to `output_format`."""
    strength: float | None = None
    """How much a given picture changes, 0 to 1."""
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    output_format: str | None = None
    resolution: int | None = None
    """Of meshes: points along a side of the grid they are made on."""
    output_formats: list[Format] | None = None
    """Of meshes: the files to be had."""
    dimensions: int | None = None
    """Of an embedding."""


_DRAWN = ("steps", "guidance", "negative_prompt", "strength", "quality", "style", "background", "output_format")
_SOLID = ("steps", "guidance", "resolution")
TAKES: dict[str, frozenset[str]] = {
    "text": frozenset(
        {"temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty"}
    ),
    "image": frozenset({"n", "size", "seed", *_DRAWN}),
    "3d": frozenset({"seed", "output_formats", *_SOLID}),
    "embedding": frozenset({"dimensions"}),
}
"""By modality, the parameters there are for it."""


def check_parameters(modality: Modality, given: Parameters) -> None:
    """Raises InvalidRequest for one of another modality."""
    takes = TAKES[modality]
    for field in fields(given):
        if getattr(given, field.name) is not None and field.name not in takes:
            name = f"parameters.{field.name}"
            raise InvalidRequest(
                f"Unknown parameter: '{name}'. For modality '{modality}' there are {', '.join(sorted(takes))}.",
                param=name,
                code="unknown_parameter",
            )


def references(given: Input) -> list[tuple[str, str]]:
    """The pictures that are not in the request: the path of each, and the URL or id that stands there."""
    named = [(f"input.images[{n}]", place) for n, place in enumerate(given.images or ())]
    for n, message in enumerate(given.messages or ()):
        content = message.get("content")
        for m, part in enumerate(content if isinstance(content, list) else ()):
            named += ((f"input.messages[{n}].content[{m}].{at}", place) for at, place in _pictured(part))
    return [(at, place) for at, place in named if not place.startswith("data:")]


def _pictured(part: Any) -> Iterator[tuple[str, str]]:
    match part:
        case {"type": "image_url", "image_url": {"url": str(place)}}:
            yield "image_url.url", place
        case {"type": "image_url", "image_url": str(place)}:
            yield "image_url", place


def task(
    modality: Modality,
    model: str,
    given: Input,
    parameters: Parameters,
    pictures: Mapping[str, Media],
    state: dict[str, Any],
) -> Request:
    """The request that this becomes.  Raises InvalidRequest.

    pictures: those it only names, by what stands for them.
    """
    match modality:
        case "image":
            return _image(model, given, parameters, pictures)
        case "3d":
            return _mesh(model, given, parameters, pictures)
        case "embedding":
            return _embedding(model, given, parameters)
        case _:
            return _text(model, given, parameters, pictures, state)


def _text(model: str, given: Input, p: Parameters, pictures: Mapping[str, Media], state: dict[str, Any]) -> TextRequest:
    messages = [_message(m, f"input.messages[{n}]", pictures) for n, m in enumerate(given.messages or ())]
    images = _images(given, pictures)
    if given.prompt is not None:
        text = Text(text=prompt(given.prompt, "input.prompt"))
        messages.append(Message(role="user", parts=(text, *images)))
    elif not messages:
        raise missing("input.prompt")
    elif images:
        last = messages[-1]
        messages[-1] = replace(last, parts=(*last.parts, *images))
    return TextRequest(
        model=model,
        messages=tuple(messages),
        sampling=Sampling(
            temperature=p.temperature,
            top_p=p.top_p,
            top_k=p.top_k,
            max_tokens=p.max_tokens,
            stop=() if p.stop is None else (p.stop,) if isinstance(p.stop, str) else tuple(p.stop),
            seed=p.seed,
            presence_penalty=p.presence_penalty,
            frequency_penalty=p.frequency_penalty,
        ),
        state=state,
    )


def _message(wire: dict[str, Any], at: str, pictures: Mapping[str, Media]) -> Message:
    message = parse_message(wire, at)
    if not pictures:
        return message
    return replace(
        message,
        parts=tuple(
            replace(pictures[part.url], extra=part.extra)
            if isinstance(part, Media) and part.url is not None and part.url in pictures
            else part
            for part in message.parts
        ),
    )


def _image(model: str, given: Input, p: Parameters, pictures: Mapping[str, Media]) -> ImageRequest:
    check_count("n", p.n, "parameters.n")
    extra = _said(p, _DRAWN)
    if (number := seed(p.seed, "parameters.seed")) is not None:
        extra["seed"] = number
    return ImageRequest(
        model=model,
        prompt=_prompt(given, "image"),
        images=_images(given, pictures),
        count=p.n or 1,
        size=None if p.size == "auto" else p.size,
        extra=extra,
    )


def _mesh(model: str, given: Input, p: Parameters, pictures: Mapping[str, Media]) -> MeshRequest:
    formats_of(p.output_formats, "parameters.output_formats")
    images = given.images or []
    if images and given.prompt is not None:
        raise InvalidRequest(
            "Give either 'input.prompt' or one of 'input.images', not both.", param="input.images", code="invalid_value"
        )
    if len(images) > 1:
        raise InvalidRequest("A mesh is made from one picture.", param="input.images", code="invalid_value")
    image = None
    if images:
        image = pictures.get(images[0]) or picture(images[0], "input.images[0]")
    return MeshRequest(
        model=model,
        prompt="" if image is not None else _prompt(given, "3d"),
        image=image,
        seed=seed(p.seed, "parameters.seed"),
        extra=_said(p, _SOLID),
    )


def _embedding(model: str, given: Input, p: Parameters) -> EmbeddingRequest:
    if given.images:
        raise InvalidRequest("An embedding is made from a text.", param="input.images", code="invalid_value")
    return EmbeddingRequest(model=model, inputs=(_prompt(given, "embedding"),), dimensions=p.dimensions)


def _prompt(given: Input, modality: str) -> str:
    if given.messages:
        raise InvalidRequest(
            f"Modality '{modality}' takes 'input.prompt', not messages.", param="input.messages", code="invalid_value"
        )
    if given.prompt is None:
        raise missing("input.prompt")
    return prompt(given.prompt, "input.prompt")


def _images(given: Input, pictures: Mapping[str, Media]) -> tuple[Media, ...]:
    return tuple(
        pictures.get(url) or media_of_url(url, f"input.images[{n}]", "image/*", {})
        for n, url in enumerate(given.images or ())
    )


def _said(parameters: Parameters, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(parameters, name)) is not None}
