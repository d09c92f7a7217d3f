"""Messages that clients put into a session: read, their pictures kept as artifacts, made into turns."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from compat import magic
from compat.body import missing, read
from compat.canonical.error import GatewayError, InvalidRequest, NotFound
from compat.canonical.message import Media, Message, Part, Reasoning, Text, ToolCall, ToolResult
from compat.nativeturn import ARTIFACT_URL
from compat.openai.part import media_of_url, parse_message
from compat.openai.responses_item import Item, seal
from gateway.artifacts.artifact import Artifact
from gateway.auth.principal import Grant
from gateway.db.responses import Turn
from gateway.sessions.form import IMAGES_MAX, MESSAGES_MAX, Simple, wrong
from gateway.visit import new_id

if TYPE_CHECKING:
    from gateway.house import House

ID_MAX = 64
FETCH_S = 60.0
"""How long all the pictures may take that messages name by URL."""
_ARTIFACT = ("art_", ARTIFACT_URL)
_simple = msgspec.json.Decoder(Simple)


def parse_messages(given: Sequence[dict[str, Any]], at: str = "messages") -> list[Message]:
    """Read chat messages, or messages in this API's own words.  Raises InvalidRequest."""
    if len(given) > MESSAGES_MAX:
        raise wrong(at, f"at most {MESSAGES_MAX} messages at a time")
    messages = [_parsed(message, f"{at}[{n}]") for n, message in enumerate(given)]
    for n, message in enumerate(messages):
        if sum(isinstance(part, Media) for part in message.parts) > IMAGES_MAX:
            raise wrong(f"{at}[{n}]", f"at most {IMAGES_MAX} pictures")
        if not message.parts:
            raise missing(f"{at}[{n}].content")
    return messages


def turns_of(session_id: str, before: str | None, said: Sequence[list[Item]], now: float) -> list[Turn]:
    """The turns that messages amount to, going on from the turn `before`: each ends with what an assistant says.

    said: the items of each message.  now: when they were said, in seconds since 1970, UTC.
    """
    turns: list[Turn] = []
    given: list[Item] = []

    def close(output: list[Item]) -> None:
        turn = Turn(
            id=new_id("gen"),
            # One after the other, also for who sorts by it.
            created_at=now + len(turns) * 1e-6,
            backend="",
            model="",
            status="completed",
            session_id=session_id,
            previous_id=turns[-1].id if turns else before,
            given=list(given),
            output=output,
        )
        turns.append(turn)
        given.clear()

    for items in said:
        if _is_spoken(items[0]):
            close(items)
        else:
            given += items
    if given:
        close([])
    return turns


class Keeper:
    """Makes items of messages, their pictures artifacts."""

    def __init__(self, house: "House", grant: Grant, request_id: str) -> None:
        self._house = house
        self._grant = grant
        self._request_id = request_id
        self._deadline = asyncio.get_running_loop().time() + FETCH_S
        self.uses: list[str] = []
        """The artifacts that are in what was made."""

    async def items(self, messages: Sequence[Message], at: str = "messages") -> list[list[Item]]:
        """Those of each message.  Raises InvalidRequest, and as artifacts do that cannot be kept."""
        if any(isinstance(part, Media) and not _names(part) for message in messages for part in message.parts):
            await self._house.cabinet.artifacts.room(self._grant)
        return [await self._items(message, f"{at}[{n}]") for n, message in enumerate(messages)]

    async def picture(self, media: Media, at: str) -> str:
        """The id of the artifact that a picture is, or becomes.

        at: what the client calls it.  Raises as `items` does.
        """
        artifacts, tenant = self._house.cabinet.artifacts, self._grant.principal.tenant
        if (name := _names(media)) is not None:
            try:
                found = await artifacts.get(tenant, name)
            except NotFound as e:
                raise _unknown(name, at) from e
            if found.kind not in ("image", "poster"):
                raise wrong(at, f"a picture, and the artifact '{name[:100]}' is a {found.kind}")
            self.uses.append(found.id)
            return found.id
        if media.data is None:
            media = await self._house.cabinet.fetcher.picture(media.url or "", at, self._deadline)
        data = media.data or b""
        if (mime := magic.mime_of(data)) is None:
            raise wrong(at, "a picture (PNG, JPEG, GIF, WebP, AVIF, BMP or TIFF)")
        kept = await artifacts.put(
            self._grant, data, kind="image", mime=mime, name=media.name, request_id=self._request_id
        )
        self.uses.append(kept.id)
        return kept.id

    async def there(self, ids: Sequence[str]) -> dict[str, Item]:
        """Of these artifacts those that the caller's tenant has, each as an item of an answer, by their ids."""
        rows, tenant = self._house.cabinet.artifacts.rows, self._grant.principal.tenant
        wanted = [id_ for id_ in ids[:IMAGES_MAX] if len(id_) <= ID_MAX and id_.isprintable()]
        found = {one.id: one for one in await rows.several(tenant, wanted)} if wanted else {}
        self.uses += found
        return {id_: _made(found[id_]) for id_ in wanted if id_ in found}

    async def _items(self, message: Message, at: str) -> list[Item]:
        if message.role == "assistant":
            return [_spoken(part, at) for part in _joined(message.parts)]
        if message.role == "tool":
            return [_result(part, at) for part in message.parts]
        content = [await self._part(part, at) for part in message.parts]
        return [
            {"id": new_id("msg"), "type": "message", "status": "completed", "role": message.role, "content": content}
        ]

    async def _part(self, part: Part, at: str) -> Item:
        if isinstance(part, Text):
            return {"type": "input_text", "text": part.text}
        if isinstance(part, Media) and part.mime.startswith("image/"):
            url = ARTIFACT_URL + await self.picture(part, at)
            return {"type": "input_image", "image_url": url, "detail": part.extra.get("detail", "auto")}
        raise wrong(at, "texts and pictures")


def _parsed(given: dict[str, Any], at: str) -> Message:
    if not ("text" in given or "images" in given):
        message = parse_message(given, at)
        # What else clients say of a message has no place here.
        return Message(role=message.role, parts=message.parts)
    simple = read(msgspec.json.encode(given), _simple, at)
    parts: list[Part] = [Text(text=simple.text)] if simple.text else []
    if simple.images and simple.role == "assistant":
        raise wrong(f"{at}.images", "none from an assistant")
    parts += [media_of_url(url, f"{at}.images[{n}]", "image/*", {}) for n, url in enumerate(simple.images)]
    return Message(role=simple.role, parts=tuple(parts))


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Texts that follow on each other as one."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and joined and isinstance(last := joined[-1], Text):
            joined[-1] = Text(text=last.text + part.text)
        else:
            joined.append(part)
    return joined


def _spoken(part: Part, at: str) -> Item:
    match part:
        case Text(text=said):
            content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": said}]
            return {
                "id": new_id("msg"), "type": "message", "status": "completed", "role": "assistant", "content": content
            }  # fmt: skip
        case Reasoning(text=thought, signature=signature, redacted=redacted):
            pieces = [{"type": "reasoning_text", "text": thought}] if thought else []
            item: Item = {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": pieces}
            sealed = seal(signature, redacted)
            return item if sealed is None else item | {"encrypted_content": sealed}
        case ToolCall(id=id_, name=name, arguments=arguments):
            call = {"id": new_id("fc"), "type": "function_call", "status": "completed"}
            return call | {"call_id": id_, "name": name, "arguments": arguments}
        case _:
            raise wrong(at, "texts, reasoning and tool calls from an assistant")


def _made(one: Artifact) -> Item:
    facts = {"id": one.id, "type": "artifact", "kind": one.kind, "mime": one.mime, "bytes": one.size_bytes}
    return facts | {"sha256": one.sha256, "name": one.name}


def _result(part: Part, at: str) -> Item:
    if not isinstance(part, ToolResult) or not all(isinstance(one, Text) for one in part.parts):
        raise wrong(at, "a text from a tool")
    output = "".join(one.text for one in part.parts if isinstance(one, Text))
    result = {"id": new_id("fco"), "type": "function_call_output", "status": "completed"}
    return result | {"call_id": part.id, "output": output}


def _is_spoken(item: Item) -> bool:
    if item["type"] == "message":
        return item.get("role") == "assistant"
    return not item["type"].endswith("_output")


def _names(media: Media) -> str | None:
    """The artifact that a picture is given as."""
    url = media.url or ""
    return url.removeprefix(ARTIFACT_URL) if url.startswith(_ARTIFACT) else None


def _unknown(name: str, at: str) -> GatewayError:
    return InvalidRequest(
        f"Invalid value for '{at}': there is no artifact '{name[:100]}'.", param=at, code="invalid_value"
    )
