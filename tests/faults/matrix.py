"""What each fault becomes for a client: the table the matrix test goes by.

A cell says how a request ends: `STATUS CODE ATTEMPTS`, `200 answer ATTEMPTS` for the whole text, and
`200 CODE ATTEMPTS` for a stream that began and ends with an error inside it.  ATTEMPTS are those the
provider saw, `1+1` being one there and one at the fallback; `@S` says that it takes about S seconds.
Codes are those of OpenAI's dialect; `TYPES` has what Anthropic's says instead.

Each route has one retry and the time-outs below; guard is off.
"""

from msgspec import Struct

RETRIES = 1
TIMEOUTS = {"connect_s": 1.0, "first_token_s": 1.0, "idle_s": 1.0, "total_s": 4.0}
HEAVY = ("bomb:96", "huge:66")
"""Faults that are played one by one, after the others and without hurry: their size is tried, not their number."""
HEAVY_TIMEOUTS = TIMEOUTS | {"first_token_s": 10.0, "idle_s": 10.0, "total_s": 30.0}

STATUSES = {
    "upstream_unreachable": 502,
    "upstream_bad_response": 502,
    "upstream_error": 502,
    "upstream_auth_failed": 502,
    "worker_crashed": 502,
    "server_is_overloaded": 503,
    "upstream_quota_exhausted": 503,
    "upstream_timeout": 504,
    "rate_limit_exceeded": 429,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "unsupported_value": 400,
}
"""Our code → its status, as contract.md has it."""
TYPES = {400: "invalid_request_error", 429: "rate_limit_error", 502: "api_error", 503: "overloaded_error"} | {
    504: "timeout_error"
}
"""Status → what Anthropic's clients read instead of a code."""
SPECIAL = {"upstream_quota_exhausted": "billing_error"}
"""Code → the same, where it says more than the status."""


class Row(Struct, frozen=True):
    """How one fault ends; None where it cannot be played."""

    meaning: str
    streamed: str | None
    whole: str | None
    streamed_backed: str | None
    whole_backed: str | None


RESCUED = "200 answer 1+1"
UNHARMED = "200 answer 1"
_RETRIED = ("502 upstream_bad_response 2", "502 upstream_bad_response 2", RESCUED, RESCUED)
_LOST = ("502 upstream_unreachable 2", "502 upstream_unreachable 2", RESCUED, RESCUED)
_FINE = (UNHARMED, UNHARMED, UNHARMED, UNHARMED)
_CUT_OFF = ("200 upstream_unreachable 1", "502 upstream_unreachable 2", "200 upstream_unreachable 1", RESCUED)
_FIRST, _TOTAL = "504 upstream_timeout 1 @1", "504 upstream_timeout 1 @4"
# Nothing is known of a whole answer until it is there: its route gets its share of the time for everything.
_SHARED = f"{RESCUED} @2"
_SILENT = (_FIRST, _TOTAL, f"{RESCUED} @1", _SHARED)
_LATE = (_FIRST, f"{UNHARMED} @2.5", f"{RESCUED} @1", _SHARED)
_STALLED = ("200 upstream_timeout 1 @1", _FIRST, "200 upstream_timeout 1 @1", f"{RESCUED} @1")
_OVERLOADED = ("503 server_is_overloaded 2 @1", "503 server_is_overloaded 2 @1", RESCUED, RESCUED)
_AT_RATE = "429 rate_limit_exceeded 2"


def _same(outcome: str, backed: str) -> tuple[str, str, str, str]:
    return outcome, outcome, backed, backed


FAULTS: dict[str, Row] = {
    "ok": Row("none, to compare with", *_FINE),
    # Refusals.
    "400": Row("the request is refused", *_same("400 unsupported_value 1", "400 unsupported_value 1")),
    "401": Row("our key is refused", *_same("502 upstream_auth_failed 1", RESCUED)),
    "402": Row("our account is empty", *_same("503 upstream_quota_exhausted 1", RESCUED)),
    "context": Row(
        "the prompt is too long for the model", *_same("400 context_length_exceeded 1", RESCUED)
    ),
    "filter": Row("the prompt is filtered", *_same("400 content_filter 1", "400 content_filter 1")),
    "filter:azure": Row("the same in Azure's shape", *_same("400 content_filter 1", "400 content_filter 1")),
    "429": Row("rate limit, no Retry-After", *_same(_AT_RATE, RESCUED)),
    "429:1": Row("rate limit, Retry-After: 1", *_same(f"{_AT_RATE} @1", RESCUED)),
    "429:300": Row("rate limit, Retry-After beyond the cap", *_same("429 rate_limit_exceeded 1", RESCUED)),
    "500": Row("failure, no Retry-After", *_same("502 upstream_error 2", RESCUED)),
    "500:1": Row("failure, Retry-After: 1", *_same("502 upstream_error 2 @1", RESCUED)),
    "503": Row("overloaded, no Retry-After", *_OVERLOADED),
    "503:1": Row("overloaded, Retry-After: 1", *_OVERLOADED),
    "529": Row("overloaded in Anthropic's way, no Retry-After", *_OVERLOADED),
    "529:1": Row("the same, Retry-After: 1", *_OVERLOADED),
    "500,ok": Row("one failure, then answers", *_same("200 answer 2", RESCUED)),
    "flap:1:1": Row("fails every other time", *_same("200 answer 2", RESCUED)),
    "redirect": Row("a redirect, which is not followed", *_RETRIED),
    # The connection.
    "reset": Row("reset before the head", *_LOST),
    "hangup": Row("closed before the head", *_LOST),
    "silence": Row("no byte ever", *_SILENT),
    "stall:0": Row("the head, then silence", *_SILENT),
    "stall:20": Row("20 words, then silence", *_STALLED),
    "slow:0.3": Row("the head comes late, in time", *_FINE),
    "slow:2.5": Row("the head comes too late", *_LATE),
    "late:0.3": Row("the first word comes late, in time", *_FINE),
    "late:2.5": Row("the first word comes too late", *_LATE),
    "trickle": Row("32 bytes at a time", *_FINE),
    "drip:0.15": Row(
        "never silent, never done", "200 upstream_timeout 1 @4", _TOTAL, "200 upstream_timeout 1 @4", _SHARED
    ),
    "cut:0": Row("the head, then the proper end", *_RETRIED),
    "cut:40": Row(
        "40 words, then the proper end",
        "200 upstream_bad_response 1", "502 upstream_bad_response 2", "200 upstream_bad_response 1", RESCUED,
    ),
    "tear:40": Row("40 words, half an event, closed", *_CUT_OFF),
    "short:40": Row("two thirds of its Content-Length", *_CUT_OFF),
    "rst:40": Row("40 words, then a reset", *_CUT_OFF),
    "half:20": Row("20 words, then closed in one direction", *_CUT_OFF),
    "badchunk:20": Row("20 words, then an invalid chunk", *_CUT_OFF),
    # Answers that are none.
    "html": Row("200 with a page", *_RETRIED),
    "empty": Row("200 with an empty body", *_RETRIED),
    "hollow": Row("200 without choices or content", *_RETRIED),
    "badjson": Row("200 with broken JSON", *_RETRIED),
    "error:0": Row("200 with an error inside", *_same("502 upstream_error 2", RESCUED)),
    "error:20": Row("20 words, then an error event", "200 upstream_error 1", None, "200 upstream_error 1", None),
    "wrongtype": Row("200 as text/plain", _RETRIED[0], UNHARMED, RESCUED, UNHARMED),
    "malformed": Row("a broken event in the middle", UNHARMED, None, UNHARMED, None),
    "nodone": Row("the last event is missing", UNHARMED, None, UNHARMED, None),
    "nodone:open": Row("the same, and the connection stays open", f"{UNHARMED} @1", None, f"{UNHARMED} @1", None),
    "nofinish": Row(
        "all words, no finish reason", "200 upstream_bad_response 1", None, "200 upstream_bad_response 1", None
    ),
    "dup": Row("more after the last event", UNHARMED, None, UNHARMED, None),
    "bomb:96": Row("96 MiB of zeros, as gzip", *_RETRIED),
    "huge:66": Row("a body of 66 MiB, or an event of 33, without end", *_RETRIED),
    "bighead": Row("a header of 64 KiB", *_RETRIED),
}  # fmt: skip
"""Fault of `tests.faults.scripts` → how it ends."""

TCP_FAULTS: dict[str, Row] = {
    "refuse": Row("nobody listens", *_LOST),
    "blackhole": Row("accepted, then nothing", *_SILENT),
    "latency:0.2": Row("200 ms each way", *_FINE),
    "rate:24000": Row("24 kB/s", *_FINE),
    "reset:0": Row("reset as the answer begins", *_LOST),
    "reset:2000": Row("reset after 2,000 bytes", *_CUT_OFF),
    "cut:2000": Row("closed after 2,000 bytes", *_CUT_OFF),
    "half:2000": Row("closed in one direction after 2,000 bytes", *_CUT_OFF),
    "stall:2000": Row("silence after 2,000 bytes", *_STALLED),
}
"""Fault of `tests.faults.proxy` → how it ends; the provider behind it is healthy."""

LOCAL_FAULTS: dict[str, Row] = {
    "killed": Row(
        "the worker is killed in the middle", "200 worker_crashed 1", "200 answer 2", "200 worker_crashed 1", RESCUED
    ),
    "stopped": Row("the worker hangs in the middle", *_STALLED),
}
"""What befalls a local model's process; its answers are whatever it says."""

_VERDICT = _same("400 null 1", "400 null 1")

EXCEPTIONS: dict[str, dict[str, tuple[str | None, str | None, str | None, str | None]]] = {
    "Anthropic": {
        "error:0": ("503 server_is_overloaded 2 @1", "502 upstream_error 2", RESCUED, RESCUED),
        "error:20": ("200 server_is_overloaded 1", None, "200 server_is_overloaded 1", None),
        "nodone": ("200 upstream_bad_response 1", None, "200 upstream_bad_response 1", None),
        "nodone:open": ("200 upstream_timeout 1 @1", None, "200 upstream_timeout 1 @1", None),
    },
    "OpenAI → Anthropic": {
        **dict.fromkeys(("bomb:96", "huge:66"), (None, None, None, None)),
        "400": _VERDICT,
        "filter": _VERDICT,
        "filter:azure": _VERDICT,
        "error:0": ("503 server_is_overloaded 2 @1", "502 upstream_error 2", RESCUED, RESCUED),
        "error:20": ("200 server_is_overloaded 1", None, "200 server_is_overloaded 1", None),
        "nodone": ("200 upstream_bad_response 1", None, "200 upstream_bad_response 1", None),
        "nodone:open": ("200 upstream_timeout 1 @1", None, "200 upstream_timeout 1 @1", None),
    },
}
"""Dialect → fault → where it differs."""
