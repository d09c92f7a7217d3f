"""`pluggably storage show|clean`: what downloaded models take of a running gateway's disk, and making room."""

import argparse
import sys
from functools import partial
from typing import Any

from gateway.commands.remote import WORK_S, Gateway, add_command, note, say, say_json, size, table


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands below `storage`."""
    command = partial(add_command, commands)
    command("show", _show, "Show what models take of the disk, and what they may.")
    clean = command(
        "clean", _clean, "Show downloaded files that the policy gives up or that are of no use, and remove them when "
        "told to."
    )  # fmt: skip
    which = clean.add_mutually_exclusive_group()
    which.add_argument("--yes", action="store_true", help="remove them; a terminal is asked otherwise")
    which.add_argument("--dry-run", action="store_true", help="only say what would go, and why; do not ask")


def _show(asked: argparse.Namespace) -> None:
    report = Gateway(asked).ask("GET", "/v1/storage", within_s=WORK_S)
    if asked.json:
        say_json(report)
        return
    most = "no limit" if report["limit_bytes"] is None else f"{size(report['limit_bytes'])} allowed"
    say(f"models: {size(report['models_bytes'])}, {most}{_coming(report['reserved_bytes'])}")
    say(f"disk: {size(report['free_bytes'])} free, of which {size(report['min_free_bytes'])} stay so")
    if report["models"]:
        table([("MODEL", "SIZE", "STATUS", "LAST USED", "STAYS BECAUSE"), *map(_line, report["models"])])
    for name in ("partials", "orphans"):
        for one in report[name]:
            say(f"{name[:-1]}: {one['path']}, {size(one['size_bytes'])}")
    for one in report["problems"]:
        say(f"not served: {one['backend']}: {one['path']}: {one['reason']} ({one['kind']})")


def _coming(reserved_bytes: int) -> str:
    return f"; downloads: {size(reserved_bytes)} still to come" if reserved_bytes else ""


def _line(model: dict[str, Any]) -> tuple[str, ...]:
    used, stays = model["last_used_at"] or "-", model["protected"] or "-"
    return model["id"], size(model["size_bytes"]), model["status"], used, stays


def _clean(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    done = _cleaned(gateway, dry_run=not asked.yes)
    if asked.json:
        say_json(done)
        return
    _tell(done)
    if asked.yes or asked.dry_run or not done["removed"]:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        sys.stdout.write("Remove them? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            _tell(_cleaned(gateway, dry_run=False))
            return
    note("Nothing was removed: `pluggably storage clean --yes` does it.")


def _cleaned(gateway: Gateway, *, dry_run: bool) -> dict[str, Any]:
    body = {"dry_run": dry_run}
    done: dict[str, Any] = gateway.ask("POST", "/v1/storage/cleanup", body, WORK_S, scope="admin")
    return done


def _tell(done: dict[str, Any]) -> None:
    if not done["removed"]:
        note("There is nothing to remove.")
    for one in done["removed"]:
        say(f"{one['path']}  {size(one['size_bytes'])}  {one['reason']}")
    freed = size(done["total_bytes"]) if done["total_bytes"] else "nothing"
    say(f"{freed} {'would be' if done['dry_run'] else 'was'} freed")
    if done["missing_bytes"]:
        say(f"still over the limit by {size(done['missing_bytes'])}: what is left is protected, or kept by the policy")
