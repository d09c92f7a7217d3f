"""`pluggably models search|download|update|rollback`: models from the hub, fetched by a running gateway."""

import argparse
from functools import partial
from typing import Any

from gateway.commands.jobs import follow, going_on
from gateway.commands.jobs import tell as tell_job
from gateway.commands.remote import (
    WORK_S,
    Gateway,
    Unanswered,
    add_command,
    note,
    path_of,
    query,
    say,
    say_json,
    size,
    table,
)
from gateway.commands.repository import wanted
from gateway.settings import ConfigError

SEARCH_S = 60.0


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands below `models` that ask the hub."""
    command = partial(add_command, commands)
    search = command("search", _search, "Search the hub for models that this machine could run.")
    search.add_argument("query", metavar="QUERY")
    search.add_argument("--modality", help="only models that make this: text, embedding, image, …")
    search.add_argument("--limit", type=int, default=20, help="repositories to ask about, 50 at most (20)")
    download = command("download", _download, "Fetch a model from the hub, and serve it.")
    download.add_argument(
        "repo",
        metavar="REPO",
        help="ORG/NAME, ORG/NAME:QUANTIZATION or the address of its page; or BACKEND/NAME, a model that is registered",
    )
    which = download.add_mutually_exclusive_group()
    which.add_argument("--file", metavar="F", help="a file of it; of a split one any part")
    which.add_argument("--quantization", metavar="Q", help="like Q4_K_M (the best that fits this machine)")
    download.add_argument("--revision", metavar="R", help="a branch, a tag or a commit (the main branch)")
    download.add_argument("--name", metavar="N", help="what it is to be called here")
    download.add_argument("--backend", help="the local backend that is to run it, where there are several")
    download.add_argument("--priority", type=int, default=0, help="the higher is done first (0)")
    update = command("update", _update, "Fetch a newer revision of a downloaded model, where there is one.")
    for sub in (download, update):
        sub.add_argument("--detach", action="store_true", help="do not wait for it")
    rollback = command("rollback", _rollback, "Serve the version of a model that was served before.")
    rollback.add_argument("--commit", help="another one of those that are on the disk")
    for sub in (update, rollback):
        sub.add_argument("model", metavar="MODEL")


def _search(asked: argparse.Namespace) -> None:
    path = "/v1/models/search" + query(query=asked.query, modality=asked.modality, limit=asked.limit)
    found = Gateway(asked).ask("GET", path, within_s=SEARCH_S)["data"]
    if asked.json:
        say_json(found)
        return
    if not found:
        note("Nothing was found.")
        return
    table([("REPO", "MODALITY", "SIZE", "FIT", "DOWNLOADS", "LICENCE", ""), *map(_found, found)])


def _found(one: dict[str, Any]) -> tuple[str, ...]:
    downloads = "-" if one["downloads"] is None else str(one["downloads"])
    return (
        one["id"],
        one["modality"],
        size(one["size_bytes"]),
        one["fit"] or "-",
        downloads,
        one["license"] or "-",
        "gated" if one["gated"] else "",
    )


def _download(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    body = _named(asked, gateway) | {"priority": asked.priority}
    try:
        job = gateway.ask("POST", "/v1/models/download", body, WORK_S)
    except Unanswered as e:
        raise Unanswered(f"{e} A running gateway downloads: pluggably serve starts one.") from e
    _finish(asked, gateway, job)


def _named(asked: argparse.Namespace, gateway: Gateway) -> dict[str, Any]:
    """What is to be downloaded, as the gateway is told.  Raises ConfigError."""
    named = ((name, getattr(asked, name)) for name in ("file", "quantization", "revision", "name", "backend"))
    given = {name: value for name, value in named if value is not None}
    backend, slash, _ = asked.repo.partition("/")
    known = gateway.config.backends.get(backend)
    if slash and known is not None and known.kind == "local":
        return {"model": asked.repo} | given
    said = wanted(asked.repo, gateway.config.hub.endpoint)
    if "quantization" in said and {"file", "quantization"} & given.keys():
        raise ConfigError("REPO: it says the quantization already; leave --file and --quantization out")
    if "file" in said and {"file", "quantization"} & given.keys():
        raise ConfigError("REPO: it says the file already; leave --file and --quantization out")
    return said | given


def _update(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    answer = gateway.ask("POST", path_of(asked.model, "update"), {}, WORK_S)
    if answer["object"] == "job":
        _finish(asked, gateway, answer)
    else:
        _versions(asked, answer, "is up to date")


def _rollback(asked: argparse.Namespace) -> None:
    body = {} if asked.commit is None else {"commit": asked.commit}
    answer = Gateway(asked).ask("POST", path_of(asked.model, "rollback"), body, WORK_S)
    _versions(asked, answer, "went back")


def _versions(asked: argparse.Namespace, answer: dict[str, Any], told: str) -> None:
    if asked.json:
        say_json(answer)
        return
    say(f"{answer['id']} {told}: {(answer['version'] or '-')[:12]} is served")


def _finish(asked: argparse.Namespace, gateway: Gateway, job: dict[str, Any]) -> None:
    job = going_on(gateway, job)
    if asked.detach:
        tell_job(asked, job)
        return
    done = follow(gateway, job, quiet=asked.json)
    if asked.json:
        say_json(done)
        return
    say(f"{done['target']}: downloaded, {size(done['progress']['bytes_total'])}")
