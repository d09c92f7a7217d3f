"""`pluggably models list|load|unload|status|ps`: what a running gateway has, and has in memory, asked of it over HTTP.

`list` does without one, by the configuration.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gateway.commands.remote import (
    ANSWER_S,
    WORK_S,
    Gateway,
    Refused,
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
from gateway.commands.words import spoken
from gateway.settings import ConfigError

LOOK_S = 0.25
"""How often the progress of loading is asked for, while somebody watches."""
_FILTERS = {
    "status": "only those that stand so: ready, unloaded, downloading, failed, missing, …",
    "modality": "only those that make this: text, embedding, image, …",
    "backend": "only those of this backend",
    "tag": "only those with this tag",
}
Configured = Callable[[Path | None], list[dict[str, Any]]]
"""The models that a configuration file describes, where no gateway runs on it."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", configured: Configured) -> None:
    """Add the commands below `models` that look at what there is and have it in memory."""
    command = partial(add_command, commands)
    listing = command(
        "list", partial(_list, configured), "List models that clients can ask for; by the configuration where no "
        "gateway runs on it."
    )  # fmt: skip
    for name, what in _FILTERS.items():
        listing.add_argument(f"--{name}", help=what)
    loading = command("load", _load, "Bring a local model into memory, and wait until it is ready.")
    unloading = command("unload", _unload, "Take a local model out of memory, once what runs on it is finished.")
    unloading.add_argument("--force", action="store_true", help="a pinned one as well")
    for sub in (loading, unloading, command("status", _status, "Show how a local model stands.")):
        sub.add_argument("model", metavar="MODEL", help="BACKEND/MODEL, or a name that leads to a local model")
    command("ps", _ps, "List the models in memory.")


def _list(configured: Configured, asked: argparse.Namespace) -> None:
    found = _live(asked)
    if found is None:
        found = [one for one in configured(asked.config) if _fits(one, asked)]
    if asked.json:
        say_json(found)
        return
    if not found:
        note("No models.")
        return
    head: tuple[str, ...] = ("MODEL", "MODALITY", "SIZE", "QUANTIZATION", "CONTEXT", "STATUS")
    lines = [_listed(model) for model in found]
    if any(model.get("aliases") for model in found):
        head = (*head, "ALIASES")
        lines = [(*line, ", ".join(model.get("aliases") or ())) for line, model in zip(lines, found, strict=True)]
    table([head, *lines])
    for model in found:
        if model.get("reason"):
            say(f"{_stands(model)}: {model['id']}: {_reason(model)}")


def _fits(model: dict[str, Any], asked: argparse.Namespace) -> bool:
    """Whether it is one that is asked for."""
    return (
        all(getattr(asked, name) in (None, model.get(name)) for name in ("status", "modality", "backend"))
        and (asked.tag is None or asked.tag in (model.get("tags") or ()))
    )  # fmt: skip


def _stands(model: dict[str, Any]) -> str:
    paused = model.get("status") == "downloading" and model.get("reason") == "paused"
    return "paused" if paused else model.get("status") or "-"


def _reason(model: dict[str, Any]) -> str:
    if _stands(model) != "paused":
        return spoken(model["reason"])
    return "`pluggably jobs list --status paused` names the job, `pluggably jobs resume ID` goes on with it"


def _live(asked: argparse.Namespace) -> list[dict[str, Any]] | None:
    """What the gateway lists; None where none is named and none can be asked at the configured address."""
    url = None
    try:
        gateway = Gateway(asked)
        url = gateway.url
        path = "/v1/models" + query(**{name: getattr(asked, name) for name in _FILTERS})
        listed: list[dict[str, Any]] = gateway.ask("GET", path)["data"]
    except (Refused, ConfigError, LookupError, TypeError) as e:  # the last two: it is something else that answers there
        if asked.url is not None:
            raise
        if isinstance(e, Refused):
            note(f"pluggably: {e} Listed as the configuration has it.")
        else:
            nobody(url, "this is the configuration's list, without what was downloaded")
        return None
    return listed


def _listed(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["id"],
        model.get("modality") or "-",
        size(model.get("size_bytes")),
        model.get("quantization") or "-",
        str(model.get("context_length") or "-"),
        _stands(model),
    )


def _load(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    over = threading.Event()
    watching = sys.stderr.isatty() and not asked.json
    watcher = threading.Thread(target=_watch, args=(gateway, asked.model, over), daemon=True)
    if watching:
        watcher.start()
    try:
        standing = gateway.ask("POST", path_of(asked.model, "load"), {}, WORK_S)
    finally:
        over.set()
        if watching:
            watcher.join(LOOK_S + ANSWER_S)
            sys.stderr.write("\r\033[K")
    _tell(asked, standing)


def _watch(gateway: Gateway, model: str, over: threading.Event) -> None:
    """Show how far a model is loaded, on one line of the terminal."""
    while not over.wait(LOOK_S):
        try:
            standing = gateway.ask("GET", path_of(model, "status"))
        except (Refused, ConfigError):
            return  # whoever loads says why
        part = standing["loading"]
        far = "" if part is None else f" {part:4.0%} [{'#' * round(part * 30):30}]"
        sys.stderr.write(f"\r\033[K{standing['id']}: {standing['status']}{far}")
        sys.stderr.flush()


def _unload(asked: argparse.Namespace) -> None:
    _tell(asked, Gateway(asked).ask("POST", path_of(asked.model, "unload"), {"force": asked.force}, WORK_S))


def _status(asked: argparse.Namespace) -> None:
    _tell(asked, Gateway(asked).ask("GET", path_of(asked.model, "status")))


def _ps(asked: argparse.Namespace) -> None:
    loaded = Gateway(asked).ask("GET", "/v1/models/loaded")
    if asked.json:
        say_json(loaded)
        return
    if not loaded["data"]:
        note("No models in memory.")
        return
    head = ("MODEL", "STATUS", "MEMORY", "RUNNING", "WAITING", "UNLOADS")
    table([head, *(_line(standing) for standing in loaded["data"])])
    for name, pool in loaded["pools"].items():
        taken, most = size(pool["memory_bytes"]), size(pool["memory_max_bytes"])
        say(f"{name}: {pool['loaded']} of {pool['max_loaded']} models, {taken} of {most}")


def _line(standing: dict[str, Any]) -> tuple[str, ...]:
    leaves = "pinned" if standing["pinned"] else standing["idle_unload_at"] or "-"
    memory = size(standing["memory_bytes"])
    return (
        standing["id"],
        standing["status"],
        memory,
        f"{standing['running']}/{standing['slots'] or '-'}",
        str(standing["waiting"]),
        leaves,
    )


def _tell(asked: argparse.Namespace, standing: dict[str, Any]) -> None:
    if asked.json:
        say_json(standing)
        return
    facts = [standing["status"]]
    if standing["memory_bytes"] and standing["status"] != "unloaded":
        facts.append(f"{size(standing['memory_bytes'])} ({standing['memory_source']})")
    if standing["running"] or standing["waiting"]:
        facts.append(f"{standing['running']} running, {standing['waiting']} waiting")
    say(f"{standing['id']}: {', '.join(facts)}")
    for step in standing["steps"]:
        say(f"  to fit: {step}")
    if (failure := standing["failure"]) is not None:
        again = f"; tried again from {failure['retry_at']}" if failure["retry_at"] else ""
        say(f"  failed {failure['failures']} time(s): {failure['reason']}{again}")
        for line in failure["log_tail"] or ():
            say(f"    {line}")
