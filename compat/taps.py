"""Which tap watches which dialect's answers."""

from collections.abc import Callable

from compat.anthropic.tap import Tap as MessagesTap
from compat.canonical.request import Dialect, Envelope
from compat.openai.embeddings import EmbeddingsTap
from compat.openai.picture import ImagesTap
from compat.openai.rerank import RerankTap
from compat.openai.responses_tap import ResponsesTap
from compat.openai.tap import Tap

AnyTap = Tap | EmbeddingsTap | RerankTap | ImagesTap | MessagesTap | ResponsesTap


def tap(envelope: Envelope) -> AnyTap:
    """A fresh tap for one answer in the dialect of this request."""
    return _TAPS[envelope.dialect](envelope)


_TAPS: dict[Dialect, Callable[[Envelope], AnyTap]] = {
    "chat": Tap,
    "completions": Tap,
    "embeddings": EmbeddingsTap,
    "rerank": RerankTap,
    "images": ImagesTap,
    "image_edits": ImagesTap,
    "responses": ResponsesTap,
    "messages": MessagesTap,
}
