"""Why a model could not be loaded, read from what its engine printed.

Invariant: only sentences from this table reach a client, with names in them that cannot be a path.
"""

import re
from collections.abc import Iterable

_NAME = r"'?([\w.-]{1,64})'?"
_SAYINGS = tuple(
    (re.compile(pattern).search, sentence)
    for pattern, sentence in (
        (rf"unknown model architecture: {_NAME}", "the engine does not know its architecture '{}'"),
        (rf"unknown (?:pre-)?tokenizer(?: type)?: {_NAME}", "the engine does not know its tokenizer '{}'"),
        (r"GGUFv1 is no longer supported|bad GGUF version", "the engine does not read its version of GGUF"),
        (r"invalid magic characters", "its file is not GGUF"),
        (r"data is not within the file bounds", "its file is corrupt or incomplete"),
        (rf"tensor {_NAME} not found", "its file lacks the tensor '{}'"),
        (rf"tensor {_NAME} has (?:wrong shape|invalid)", "its tensor '{}' is not as the engine expects it"),
        (r"wrong number of tensors", "its file has another number of tensors than the engine expects"),
        (r"failed to load lora adapter", "one of its adapters cannot be used with it"),
        (r"failed to load (?:multimodal|CLIP) model", "its projector cannot be used with it"),
        (r"no file named", "one of its files is missing"),
        (rf"No module named {_NAME}", "the Python package '{}' is not installed here"),
    )
)


def verdict(lines: Iterable[str]) -> str | None:
    """In words fit for clients; None where the engine said nothing that is known.

    What comes first in the table is the cause of what comes later.  None of it passes by itself.
    """
    said = "\n".join(lines)
    for search, sentence in _SAYINGS:
        if found := search(said):
            return sentence.format(*found.groups())
    return None
