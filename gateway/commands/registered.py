"""`pluggably models scan|register|remove|export|import`: the registry of models, and what lies in their folders."""

import argparse
import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from gateway.commands.jobs import of_model
from gateway.commands.remote import (
    WORK_S,
    Gateway,
    Refused,
    Unanswered,
    add_command,
    nobody,
    note,
    path_of,
    query,
    say,
    say_json,
    size,
    table,
)
from gateway.config import load
from gateway.settings import ConfigError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands below `models` that are about the registry."""
    command = partial(add_command, commands)
    command("scan", _scan, "Show what lies in the folders of local models, and what of it is not served and why.")
    register = command("register", _register, "Register a model without downloading it.")
    register.add_argument("model", metavar="MODEL", help="BACKEND/NAME")
    register.add_argument("--repo", help="ORG/NAME on the hub, whence it comes")
    register.add_argument("--file", help="the one file of the repository that it is")
    register.add_argument("--path", help="a file or folder on the gateway's machine, in a model folder")
    remove = command("remove", _remove, "Take a model out of what is served.")
    remove.add_argument("model", metavar="MODEL")
    remove.add_argument("--files", action="store_true", help="delete its files as well")
    remove.add_argument("--force", action="store_true", help="also while it is used, pinned or downloaded")
    exporting = command("export", _export, "Write what is registered as JSON.")
    exporting.add_argument("file", metavar="FILE", nargs="?", type=Path, help="where to (standard output)")
    exporting.add_argument("--all", action="store_true", help="models too that were only found")
    importing = command("import", _import, "Register what was exported: all of it, or nothing.")
    importing.add_argument("file", metavar="FILE", help="- is standard input")


def _scan(asked: argparse.Namespace) -> None:
    found = _live(asked)
    if found is None:
        found = _lying(asked.config)
    if asked.json:
        say_json(found)
        return
    if found["models"]:
        lines = ((one["id"], one["status"] or "-", size(one["size_bytes"])) for one in found["models"])
        table([("MODEL", "STATUS", "SIZE"), *lines])
    else:
        note("No models.")
    for problem in found["problems"]:
        say(f"not served: {problem['backend']}: {problem['path']}: {problem['reason']} ({problem['kind']})")


def _live(asked: argparse.Namespace) -> dict[str, Any] | None:
    """As a gateway sees it; None where none is named and none answers at the configured address."""
    try:
        gateway = Gateway(asked)
        listed = gateway.ask("GET", "/v1/models")["data"]
        problems = gateway.ask("GET", "/v1/storage", within_s=WORK_S)["problems"]
    except (Refused, ConfigError, LookupError, TypeError) as e:  # the last two: it is something else that answers there
        if asked.url is not None or not isinstance(e, (Unanswered, LookupError, TypeError)):
            raise
        nobody(gateway.url, "this is what lies in the model folders, without what was downloaded")
        return None
    models = [{name: one[name] for name in ("id", "status", "size_bytes")} for one in listed if _is_local(one)]
    return {"models": models, "problems": problems}


def _is_local(model: dict[str, Any]) -> bool:
    return bool(model["price"] == "local" and model["id"].startswith(f"{model['backend']}/"))


def _lying(path: Path | None) -> dict[str, Any]:
    from gateway.discovery.problem import Problem
    from gateway.estate import look
    from gateway.telemetry.logging import Redactor, configure

    config = load(path)
    configure("error", config.telemetry.log_format, Redactor())
    problems: list[Problem] = []
    found = look(config, None, problems)
    models = [
        {"id": f"{backend}/{one.name}", "status": None, "size_bytes": one.model.size_bytes}
        for backend, local in found.items()
        for one in local.values()
    ]
    told = [{name: getattr(one, name) for name in one.__struct_fields__} for one in problems]
    return {"models": models, "problems": told}


def _register(asked: argparse.Namespace) -> None:
    form: dict[str, Any] = {"id": asked.model}
    if asked.repo is not None:
        form["source"] = {"repo": asked.repo} | ({} if asked.file is None else {"file": asked.file})
    elif asked.file is not None:
        raise ConfigError("--file: needs --repo; a file on the gateway's machine is named by --path")
    if asked.path is not None:
        form["path"] = asked.path
    answer = Gateway(asked).ask("POST", "/v1/models", form, WORK_S)
    _tell(asked, answer, f"{answer['id']}: {answer.get('status') or 'registered'}")


def _remove(asked: argparse.Namespace) -> None:
    flags = query(files="true" if asked.files else None, force="true" if asked.force else None)
    gateway = Gateway(asked)
    try:
        answer = gateway.ask("DELETE", path_of(asked.model) + flags, within_s=WORK_S)
    except Refused as e:
        if "is being downloaded" not in str(e) or (job := of_model(gateway, asked.model)) is None:
            raise
        raise Refused(
            f"'{asked.model}' is being downloaded: `pluggably jobs cancel {job['id']}` ends that. --force ends it and "
            "removes the model."
        ) from e
    freed = f", {size(answer['freed_bytes'])} freed" if answer["freed_bytes"] else ""
    _tell(asked, answer, f"{answer['id']}: removed{freed}")


def _export(asked: argparse.Namespace) -> None:
    path = "/v1/models/export" + query(all="true" if asked.all else None)
    kept = Gateway(asked).ask("GET", path, within_s=WORK_S, scope="models:write")
    text = json.dumps(kept, indent=2) + "\n"
    if asked.file is None:
        sys.stdout.write(text)
        return
    _write(asked.file, text)
    note(f"{len(kept['models'])} model(s) written.")


def _import(asked: argparse.Namespace) -> None:
    try:
        text = sys.stdin.read() if asked.file == "-" else Path(asked.file).read_text()
        kept = json.loads(text)
    except OSError as e:
        raise ConfigError(f"{asked.file}: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{asked.file}: this is no JSON; `pluggably models export` writes what can be read") from e
    answer = Gateway(asked).ask("POST", "/v1/models/import", kept, WORK_S)
    counts = ", ".join(f"{answer[name]} {name}" for name in ("created", "updated", "unchanged"))
    _tell(asked, answer, counts)


def _tell(asked: argparse.Namespace, answer: dict[str, Any], text: str) -> None:
    say(json.dumps(answer) if asked.json else text)


def _write(path: Path, text: str) -> None:
    """All of it, or nothing."""
    try:
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as beside:
            try:
                beside.write(text)
                beside.flush()
                os.fsync(beside.fileno())
                Path(beside.name).replace(path)
            except BaseException:
                with suppress(OSError):
                    Path(beside.name).unlink()
                raise
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
