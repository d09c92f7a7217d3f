"""`pluggably usage`: what requests cost, from the configured database, whether or not a gateway runs on it."""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gateway.config import load
from gateway.settings import ConfigError

_HEADS = {"requests": "REQUESTS", "errors": "ERRORS", "input_tokens": "IN", "output_tokens": "OUT", "cost_usd": "USD"}


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from", dest="since", metavar="TIME", help="a date or time, in UTC (30 days ago)")
    command.add_argument("--to", dest="until", metavar="TIME", help="before this date or time (now)")
    command.add_argument("--by", default="backend,model", metavar="GROUPS", help="sum up by these (backend,model)")
    command.add_argument("--each", action="store_true", help="one line a request instead of sums; with --csv or --json")
    for name in ("tenant", "user", "key", "model", "backend"):
        command.add_argument(f"--{name}", help=f"only of this {name}")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(asked: argparse.Namespace) -> int:
    """Print what is asked for."""
    asyncio.run(_print(asked, sys.stdout.write))
    return 0


async def _print(asked: argparse.Namespace, say: Any) -> None:
    from gateway.db.engine import connect, upgrade, usable
    from gateway.db.usage import UsageRows, Which
    from gateway.telemetry.report import DAYS, columns, csv_lines, groups, instant, stretches

    if asked.each and not (asked.csv or asked.json):
        raise ConfigError("--each: needs --csv or --json")
    try:
        by = () if asked.each else groups(asked.by)
        now = time.time() + 1
        until = min(instant(asked.until), now) if asked.until else now
        since = instant(asked.since) if asked.since else until - DAYS * 86_400
    except ValueError as e:
        raise ConfigError(str(e)) from e
    which = Which(
        since=since,
        until=until,
        tenant=asked.tenant,
        owner=asked.user,
        key=asked.key,
        model=asked.model,
        backend=asked.backend,
    )
    config = load(asked.config)
    with usable():
        engine = connect(config.database_url)
    try:
        with usable():
            await upgrade(engine)
        pieces = stretches(UsageRows(engine), which, by)
        if asked.csv:
            async for lines in csv_lines(columns(by), pieces):
                say(lines.decode())
        elif asked.json:
            async for rows in pieces:
                for row in rows:
                    say(msgspec.json.encode(row).decode() + "\n")
        else:
            await _table(by, pieces, say)
    finally:
        await engine.dispose()


async def _table(by: tuple[str, ...], pieces: AsyncGenerator[list[dict[str, Any]], None], say: Any) -> None:
    lines = [(*(name.upper() for name in by), *_HEADS.values())]
    unpriced = 0
    async for rows in pieces:
        for row in rows:
            usd = "unknown" if row["cost_usd"] is None else f"{row['cost_usd']:.6f}"
            if row["unpriced_requests"]:
                unpriced += row["unpriced_requests"]
                usd += "" if row["cost_usd"] is None else "+"
            sums = (f"{row[name]}" for name in _HEADS if name != "cost_usd")
            lines.append((*(str("-" if row[name] is None else row[name]) for name in by), *sums, usd))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if n < len(by) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        say("  ".join(cells).rstrip() + "\n")
    if unpriced:
        say(f"The cost of {unpriced} request(s) is not known, and in no sum.\n")
