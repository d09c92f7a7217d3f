"""`pluggably storage show|clean`: what downloaded models take of a running gateway's disk, and making room."""

import argparse
from functools import partial
from typing import Any

from gateway.commands.remote import WORK_S, Gateway, add_command, note, say, say_json, size, table


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands below `storage`."""
    command = partial(add_command, commands)
    command("show", _show, "Show what models take of the disk, and what they may.")
    clean = command("clean", _clean, "Remove downloaded files that the policy gives up, or that are of no use.")
    clean.add_argument("--dry-run", action="store_true", help="only say what would go, and why")


def _show(asked: argparse.Namespace) -> None:
    report = Gateway(asked).ask("GET", "/v1/storage", within_s=WORK_S)
    if asked.json:
        say_json(report)
        return
    most = "no limit" if report["limit_bytes"] is None else f"{size(report['limit_bytes'])} allowed"
    say(f"models: {size(report['models_bytes'])}, {most}; downloads: {size(report['reserved_bytes'])} still to come")
    say(f"disk: {size(report['free_bytes'])} free, of which {size(report['min_free_bytes'])} stay so")
    if report["models"]:
        table([("MODEL", "SIZE", "STATUS", "LAST USED", "STAYS BECAUSE"), *map(_line, report["models"])])
    for name in ("partials", "orphans"):
        for one in report[name]:
            say(f"{name[:-1]}: {one['path']}, {size(one['size_bytes'])}")
    for one in report["problems"]:
        say(f"not served: {one['backend']}: {one['path']}: {one['reason']} ({one['kind']})")


def _line(model: dict[str, Any]) -> tuple[str, ...]:
    used, stays = model["last_used_at"] or "-", model["protected"] or "-"
    return model["id"], size(model["size_bytes"]), model["status"], used, stays


def _clean(asked: argparse.Namespace) -> None:
    body = {"dry_run": asked.dry_run}
    done = Gateway(asked).ask("POST", "/v1/storage/cleanup", body, WORK_S, scope="admin")
    if asked.json:
        say_json(done)
        return
    if not done["removed"]:
        note("There is nothing to remove.")
    for one in done["removed"]:
        say(f"{one['path']}  {size(one['size_bytes'])}  {one['reason']}")
    freed = size(done["total_bytes"]) if done["total_bytes"] else "nothing"
    say(f"{freed} {'would be' if asked.dry_run else 'was'} freed")
    if done["missing_bytes"]:
        say(f"still over the limit by {size(done['missing_bytes'])}: what is left is protected, or kept by the policy")
