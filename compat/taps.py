"""Which tap watches which dialect's answers."""

from compat.canonical.request import Envelope
from compat.openai.tap import Tap


def tap(envelope: Envelope) -> Tap:
    """A fresh tap for one answer in the dialect of this request."""
    return _TAPS[envelope.dialect](envelope)


_TAPS = {"chat": Tap, "completions": Tap}
