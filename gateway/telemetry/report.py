"""Usage as it is told: rows and sums with the names and units that people see, and CSV."""

import csv
import io
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.db.usage import GROUPS, SECONDS, Row, UsageRows, Which

Told = dict[str, Any]

DAYS = 30
"""What is told of, unless it is said since when."""
GROUPS_MAX = 4
_STRETCH = 500
_is_formula = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]").match
"""What makes a spreadsheet take a text for a formula, which it would run; it may pass over white space."""

_COLUMNS = {
    name: name
    for name in (
        "request_id", "created_at", "tenant", "principal", "key", "route", "requested_model", "backend", "model",
        "status", "code", "attempts", "streamed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
        "cache_written_tokens", "cost_usd", "price_source", "price_date", "queue_s", "load_s", "first_token_s",
        "total_s",
    )
} | {"tenant": "tenant_id", "principal": "owner_id", "key": "key_id", "cost_usd": "cost_nanousd"}  # fmt: skip
"""What a row is told as, and the column that holds it."""
SUMS = (
    "requests", "errors", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cache_written_tokens", "cost_usd", "unpriced_requests", "total_s",
)  # fmt: skip


async def _rows(rows: UsageRows, which: Which, limit: int | None) -> AsyncGenerator[list[Told], None]:
    if limit is not None:
        yield [shown(row) for row in await rows.page(which, limit)]
        return
    async for stretch in rows.each(which):
        yield [shown(row) for row in stretch]


async def _groups(
    rows: UsageRows, which: Which, by: tuple[str, ...], limit: int | None
) -> AsyncGenerator[list[Told], None]:
    skip = 0
    while found := await rows.groups(which, by, limit or _STRETCH, skip):
        yield [summed(row) for row in found]
        skip += len(found)
        if limit is not None:
            return


async def csv_lines(header: Sequence[str], pieces: AsyncGenerator[list[Told], None]) -> AsyncGenerator[bytes, None]:
    """A line of names and one for each row.

    Nothing is held between two pieces, so it does no harm if one that nobody reads any more is left unclosed.
    """
    yield _csv([header])
    async for rows in pieces:
        yield _csv([_cell(row[name]) for name in header] for row in rows)


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")  # no exponents, which not every reader takes
    text = str(value)
    return f"'{text}" if isinstance(value, str) and _is_formula(text) else text


def columns(by: Sequence[str]) -> tuple[str, ...]:
    """What a row tells, or the sums of each group by these."""
    return (*by, *SUMS) if by else tuple(_COLUMNS)


def stretches(
    rows: UsageRows, which: Which, by: tuple[str, ...] = (), limit: int | None = None
) -> AsyncGenerator[list[Told], None]:
    """All rows, newest first, or sums by some groups, bit by bit; at most `limit`."""
    return _groups(rows, which, by, limit) if by else _rows(rows, which, limit)


def shown(row: Row) -> Told:
    return {name: _READ.get(name, _as_it_is)(row[column]) for name, column in _COLUMNS.items()}


def summed(row: Row) -> Told:
    out = {name: _named(name, value) for name, value in row.items() if name in GROUPS}
    return out | {name: _usd(row["cost_nanousd"]) if name == "cost_usd" else row[name] for name in SUMS}


def _named(group: str, value: Any) -> Any:
    if group in SECONDS:
        at = datetime.fromtimestamp(value * SECONDS[group], UTC)
        return at.strftime("%Y-%m-%d" if group == "day" else "%Y-%m-%dT%H:00:00Z")
    return f"{value // 12:04d}-{value % 12 + 1:02d}" if group == "month" else value


def _usd(nano: int | None) -> float | None:
    return None if nano is None else nano / 1e9


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_it_is(value: Any) -> Any:
    return value


_READ: dict[str, Callable[[Any], Any]] = {"created_at": _moment, "streamed": bool, "cost_usd": _usd}


def instant(text: str) -> float:
    """A date, which is its first moment, or a time: ISO 8601, in UTC unless it has a zone.  Raises ValueError."""
    # A plus sign in a query that nobody encoded arrives as a space.
    at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except OverflowError as e:
        raise ValueError(str(e)) from e


def groups(text: str) -> tuple[str, ...]:
    """Names of groups, parted by commas.  Raises ValueError."""
    by = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if len(by) > GROUPS_MAX or not set(by) <= set(GROUPS):
        raise ValueError(f"expected up to {GROUPS_MAX} of {', '.join(GROUPS)}")
    return by
