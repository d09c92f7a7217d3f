"""`pluggably keys COMMAND`: giving out API keys on the configured database, whether or not a gateway runs on it."""

import argparse
import asyncio
import getpass
import os
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.config import load
from gateway.settings import Config, ConfigError

if TYPE_CHECKING:
    from gateway.auth.keycard import ApiKey
    from gateway.auth.registrar import By, Registrar

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_duration = re.compile(r"(\d{1,9})([smhdw])").fullmatch
_NOTE = "A gateway that is running takes up to a minute to notice."


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `keys`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Awaitable[None]], help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default: built-in defaults)")
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=_command(run))
        return sub

    create = command("create", _create, "Create a key and print it: it is shown only now.")
    create.add_argument("--name", required=True, help="what it is called in lists and logs")
    create.add_argument("--scope", action="append", help="its use; may be repeated (inference, models:read)")
    create.add_argument("--tenant", default="default", help="keys of one tenant share its objects (default)")
    create.add_argument("--owner", help="the user it stands for (the name)")
    create.add_argument("--model", action="append", help="a name or glob it may ask for; may be repeated (any)")
    create.add_argument("--backend", action="append", help="a backend it may be answered by; may be repeated (any)")
    create.add_argument("--tag", action="append", type=_tag, metavar="KEY=VALUE", help="a note; may be repeated")
    create.add_argument("--expires-in", type=_seconds, metavar="TIME", help="30m, 12h, 90d or 2w (never)")
    listing = command("list", _list, "List keys, newest first.")
    listing.add_argument("--all", action="store_true", help="revoked ones as well")
    rotate = command("rotate", _rotate, "Put a new key in the place of one and print it: it is shown only now.")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument("--overlap", type=_seconds, metavar="TIME", help="how long the old one is taken (1d; 0s: ends)")
    revoke = command("revoke", _revoke, "End a key, for good.")
    revoke.add_argument("id", metavar="ID")


def _command(run: Callable[[argparse.Namespace], Awaitable[None]]) -> Callable[[argparse.Namespace], int]:
    def command(asked: argparse.Namespace) -> int:
        from compat.canonical.error import GatewayError

        async def whole() -> None:
            await run(asked)

        try:
            asyncio.run(whole())
        except GatewayError as e:
            sys.stderr.write(f"pluggably: {e.message}\n")
            return 1
        return 0

    return command


async def _create(asked: argparse.Namespace) -> None:
    from gateway.auth.keycard import new_card
    from gateway.auth.keyform import SCOPES_GIVEN, NewKey

    form = NewKey(
        name=asked.name,
        scopes=tuple(asked.scope or SCOPES_GIVEN),
        tenant=asked.tenant,
        owner=asked.owner,
        models=asked.model and tuple(asked.model),
        backends=asked.backend and tuple(asked.backend),
        tags=dict(asked.tag or ()),
        expires_in_s=asked.expires_in,
    )
    config = load(asked.config)
    async with _registrar(config) as registrar:
        row, text = await registrar.create(form, config.backends, _by())
    if not _json(asked, new_card(row, text)):
        _say(f"Created {row.id}, '{row.name}'. The key is shown only now:\n\n  {text}")
    _heed(config)


async def _list(asked: argparse.Namespace) -> None:
    from gateway.auth.keycard import card, configured

    config = load(asked.config)
    cards: list[ApiKey] = []
    async with _registrar(config) as registrar:
        while rows := await registrar.rows.page(500, cards[-1].id if cards else None, revoked=asked.all):
            cards += map(card, rows)
    cards += [configured(key, config.limits.keys.get(key.name)) for key in config.auth.keys]
    if _json(asked, cards):
        return
    if not cards:
        sys.stderr.write("No keys.\n")
        return
    head = ("ID", "NAME", "BEGINS WITH", "TENANT", "OWNER", "SCOPES", "STATUS", "EXPIRES", "LAST USED")
    _table([head, *map(_line, cards)])


async def _rotate(asked: argparse.Namespace) -> None:
    from gateway.auth.keycard import new_card
    from gateway.auth.keyform import OVERLAP_S, rotation

    overlap_s = rotation(OVERLAP_S if asked.overlap is None else asked.overlap).overlap_s
    config = load(asked.config)
    _refuse_configured(config, asked.id)
    async with _registrar(config) as registrar:
        row, text = await registrar.rotate(asked.id, overlap_s, _by())
    if not _json(asked, new_card(row, text)):
        old = f"The old one is taken for {overlap_s} s more." if overlap_s else "The old one is not taken any more."
        _say(f"Rotated {row.id}, '{row.name}'. The new key is shown only now:\n\n  {text}\n\n{old} {_NOTE}")


async def _revoke(asked: argparse.Namespace) -> None:
    from gateway.auth.keycard import card

    config = load(asked.config)
    _refuse_configured(config, asked.id)
    async with _registrar(config) as registrar:
        row = await registrar.revoke(asked.id, _by())
    if not _json(asked, card(row)):
        _say(f"Revoked {row.id}, '{row.name}'. {_NOTE}")


@asynccontextmanager
async def _registrar(config: Config) -> "AsyncGenerator[Registrar, None]":
    from gateway.auth.registrar import Registrar
    from gateway.db.keys import opened
    from gateway.secrets import own_secrets
    from gateway.telemetry.logging import Redactor, configure

    configure("warning", config.telemetry.log_format, Redactor())
    async with opened(config.database_url) as rows:
        yield Registrar(rows, own_secrets(config).key_pepper)


def _by() -> "By":
    from gateway.auth.registrar import By

    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return By(actor=f"cli:{user}", own="cli")


def _refuse_configured(config: Config, id_: str) -> None:
    if any(key.name == id_ for key in config.auth.keys):
        raise ConfigError(f"the key '{id_}' stands in the configuration file: change it there, under auth.keys")


def _heed(config: Config) -> None:
    if not config.auth.takes_keys:
        sys.stderr.write(f"Note: auth.mode is '{config.auth.mode}', which takes no issued keys; api_key does.\n")


def _line(key: "ApiKey") -> tuple[str, ...]:
    begins = "(configuration)" if key.source == "config" else f"sk-gw-{key.prefix}"
    ends, used = (f"{at:%Y-%m-%d %H:%M}" if at else "never" for at in (key.expires_at, key.last_used_at))
    if key.source == "config":
        used = "-"
    return key.id, key.name, begins, key.tenant, key.owner, ",".join(key.scopes), key.status, ends, used


def _table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        _say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _json(asked: argparse.Namespace, value: Any) -> bool:
    if asked.json:
        _say(msgspec.json.encode(value).decode())
    return bool(asked.json)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _seconds(text: str) -> int:
    found = _duration(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no time; write 30m, 12h, 90d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return name, value
