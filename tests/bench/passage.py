"""What every answer says, whatever dialect it is said in, and what was asked."""

import json

_CUT = (
    "Plugg|ably| is| a| gateway|:| it| takes| a| request| in| one| dialect|,| finds| a| model| that| can| answer|"
    " it|,| and| passes| the| answer| back| as| it| is| made|.| What| that| costs| is| measured| here|,| event| by|"
    " event|,| so| that| nobody| has| to| believe| a| number| that| was| taken| on| another| machine|.| End| of| it|."
)
TOKENS = _CUT.split("|")
TEXT = "".join(TOKENS)
FIRST = TOKENS[0].encode()
"""Where a client would show something: time to first token ends when these bytes are there."""
SYSTEM = "You answer in plain words, and you never use more of them than needed."
QUESTION = "What does a gateway in front of language models do, and what is its cost?"
PROMPT_TOKENS = 41
ANSWER_TOKENS = len(TOKENS)

compact = json.JSONEncoder(separators=(",", ":")).encode


def said(pieces: list[str]) -> str | None:
    """What is wrong with a streamed text; None when it came whole, a token an event."""
    if len(pieces) != len(TOKENS):
        return f"{len(pieces)} content events instead of {len(TOKENS)}"
    return None if "".join(pieces) == TEXT else "another text"
