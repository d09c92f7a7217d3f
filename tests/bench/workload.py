"""What is asked and what must come back, lane by lane: the one thing upstream and load generator agree on.

A lane is a way through the gateway: the client's dialect, the provider's, whole or streamed.  The bare
pass-through meets the same requests, and its upstream answers in the client's dialect: the least that
anybody could do for that client.
"""

from collections.abc import Callable

from msgspec import Struct

from tests.bench import chat, embeddings, messages

OPENAI, CLAUDE, INSTRUCT, EMBEDDER = "bench", "bench-claude", "bench-instruct", "bench-embedder"
"""Models by the names clients use."""
RELAY, TRANSLATION = 2.0, 6.0
"""What a lane may cost: multiples of the bare pass-through's CPU."""

Check = Callable[[bytes], str | None]


class Workload(Struct, frozen=True, kw_only=True):
    name: str
    path: str
    body: bytes
    check: Check
    """What is wrong with an answer's body; None when it is whole."""
    stream: bool = False
    paced: bool = False
    """Events come with a pause between, as from a model: without it, a proxy that is slower than the
    upstream finds many events in one read, and what each event costs does not show."""
    headers: str = "authorization: Bearer {key}\r\n"
    within: float = RELAY
    """Target: at most this multiple of the bare pass-through's CPU."""
    beyond: float | None = None
    """Target: at least this multiple of LiteLLM's requests per CPU-second."""

    @property
    def chats(self) -> bool:
        """Whether it is one of the lanes every release is measured by, at every number of connections."""
        return self.path == _CHAT and self.within == RELAY

    def request(self, port: int, key: str) -> bytes:
        """The request as it goes over the wire."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{self.headers.format(key=key)}"
            "content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n"
            f"content-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


_CHAT = "/v1/chat/completions"
_ANTHROPIC = "x-api-key: {key}\r\nanthropic-version: 2023-06-01\r\n"


def _chat(
    name: str,
    model: str = OPENAI,
    *,
    stream: bool,
    paced: bool = False,
    within: float = RELAY,
    beyond: float | None = None,
) -> Workload:
    return Workload(
        name=name,
        path=_CHAT,
        body=chat.asked(model, stream=stream, paced=paced),
        check=chat.check_stream if stream else chat.check_answer,
        stream=stream,
        paced=paced,
        within=within,
        beyond=beyond,
    )


def _completions(name: str, *, stream: bool) -> Workload:
    return Workload(
        name=name,
        path="/v1/completions",
        body=chat.legacy_asked(INSTRUCT, stream=stream),
        check=chat.check_stream if stream else chat.check_answer,
        stream=stream,
    )


def _messages(name: str, model: str = CLAUDE, *, stream: bool, within: float = RELAY) -> Workload:
    return Workload(
        name=name,
        path="/v1/messages",
        body=messages.asked(model, stream=stream),
        check=messages.check_stream if stream else messages.check_answer,
        stream=stream,
        headers=_ANTHROPIC,
        within=within,
    )


_EMBEDDINGS = Workload(
    name="embeddings", path="/v1/embeddings", body=embeddings.asked(EMBEDDER), check=embeddings.check_answer
)
WORKLOADS = {
    workload.name: workload
    for workload in (
        _chat("json", stream=False, beyond=40),
        _chat("stream64", stream=True, beyond=70),
        _chat("paced64", stream=True, paced=True),
        _completions("completions", stream=False),
        _completions("completions-stream", stream=True),
        _EMBEDDINGS,
        _messages("messages", stream=False),
        _messages("messages-stream", stream=True),
        _chat("chat-to-anthropic", CLAUDE, stream=False, within=TRANSLATION),
        _chat("chat-to-anthropic-stream", CLAUDE, stream=True, within=TRANSLATION),
        _messages("messages-to-openai", OPENAI, stream=False, within=TRANSLATION),
        _messages("messages-to-openai-stream", OPENAI, stream=True, within=TRANSLATION),
    )
}
