"""`pluggably models list|load|unload|status|ps`: what a running gateway has, and has in memory, asked of it over HTTP.

`list` does without one, by the configuration.
"""

import argparse
import json
import os
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.config import load
from gateway.settings import Config, ConfigError

LOOK_S = 0.25
"""How often the progress of loading is asked for, while somebody watches."""
ANSWER_S = 15.0
WORK_S = 900.0
"""How long loading and unloading are waited for."""
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a gateway that listens there is found."""
_SCOPES = {"GET": "models:read", "POST": "models:write"}


class Refused(Exception):
    """The gateway said no; the message is its own."""


Configured = Callable[[Path | None], list[dict[str, Any]]]
"""The models that a configuration file describes, where no gateway runs on it."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", configured: Configured) -> None:
    """Add the commands below `models`."""

    def command(name: str, run: Callable[[argparse.Namespace], None], help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.add_argument("--config", type=Path, metavar="FILE", help="configuration file of the gateway that runs")
        sub.add_argument("--url", metavar="URL", help="of the gateway (as its configuration says)")
        sub.add_argument(
            "--key-env",
            metavar="NAME",
            help="environment variable that holds an API key (a key of the configuration that may do this)",
        )
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=_command(run))
        return sub

    command(
        "list", partial(_list, configured), "List models that clients can ask for; by the configuration where no "
        "gateway runs on it."
    )  # fmt: skip
    loading = command("load", _load, "Bring a local model into memory, and wait until it is ready.")
    unloading = command("unload", _unload, "Take a local model out of memory, once what runs on it is finished.")
    unloading.add_argument("--force", action="store_true", help="a pinned one as well")
    for sub in (loading, unloading, command("status", _status, "Show how a local model stands.")):
        sub.add_argument("model", metavar="MODEL", help="BACKEND/MODEL, or a name that leads to a local model")
    command("ps", _ps, "List the models in memory.")


class Gateway:
    """A gateway that runs, as this command reaches it."""

    def __init__(self, asked: argparse.Namespace) -> None:
        config = load(asked.config)
        self.url = asked.url.rstrip("/") if asked.url else _url_of(config)
        self._config = config
        self._key_env: str | None = asked.key_env
        context = ssl.create_default_context()
        if asked.url is None and config.server.tls.cert is not None:
            context.load_verify_locations(config.server.tls.cert)
        # A proxy is for the way to strangers.
        proxies = urllib.request.ProxyHandler(None if asked.url else {})
        self._opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, within_s: float = ANSWER_S) -> Any:
        """The answer to one request.  Raises Refused, or ConfigError when nobody answers."""
        headers = {"content-type": "application/json"}
        if key := self._key(_SCOPES[method]):
            headers["authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  ours to choose
        try:
            with self._opener.open(request, timeout=within_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as e:
            raise Refused(_said(e)) from e
        except (OSError, ValueError) as e:
            reason = getattr(e, "reason", e)
            raise ConfigError(f"no gateway answers at {self.url}: {reason}. Say where it is with --url.") from e

    def _key(self, scope: str) -> str | None:
        if self._key_env is not None:
            key = os.environ.get(self._key_env)
            if not key:
                raise ConfigError(f"--key-env: the environment has no {self._key_env}")
            return key
        good = (key.key for key in self._config.auth.keys if {scope, "admin"} & set(key.scopes))
        return next(good, None)


def _url_of(config: Config) -> str:
    server = config.server
    if server.port == 0:
        raise ConfigError("--url: say where the gateway is; server.port is 0, any that is free")
    host = _EVERYWHERE.get(server.host, server.host)
    scheme = "http" if server.tls.cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"


def _said(error: urllib.error.HTTPError) -> str:
    """What the gateway said of what went wrong, and what helps."""
    try:
        message = str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The gateway answered with status {error.code}."
    return f"{message} Name one with --key-env." if error.code in (401, 403) else message


def _command(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def command(asked: argparse.Namespace) -> int:
        try:
            run(asked)
        except Refused as e:
            sys.stderr.write(f"pluggably: {e}\n")
            return 1
        return 0

    return command


def _list(configured: Configured, asked: argparse.Namespace) -> None:
    found = _live(asked)
    if found is None:
        found = configured(asked.config)
    if asked.json:
        _say(json.dumps(found))
        return
    if not found:
        sys.stderr.write("No models.\n")
        return
    head = ("MODEL", "MODALITY", "SIZE", "QUANTIZATION", "CONTEXT", "STATUS")
    _table([head, *(_listed(model) for model in found)])


def _live(asked: argparse.Namespace) -> list[dict[str, Any]] | None:
    """What the gateway lists; None where none is named and none can be asked at the configured address."""
    try:
        listed: list[dict[str, Any]] = Gateway(asked).ask("GET", "/v1/models")["data"]
    except (Refused, ConfigError, LookupError, TypeError) as e:  # the last two: it is something else that answers there
        if asked.url is not None:
            raise
        if isinstance(e, Refused):
            sys.stderr.write(f"pluggably: {e} Listed as the configuration has it.\n")
        return None
    return listed


def _listed(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["id"],
        model.get("modality") or "-",
        _size(model.get("size_bytes")),
        model.get("quantization") or "-",
        str(model.get("context_length") or "-"),
        model.get("status") or "-",
    )


def _load(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    over = threading.Event()
    watching = sys.stderr.isatty() and not asked.json
    watcher = threading.Thread(target=_watch, args=(gateway, asked.model, over), daemon=True)
    if watching:
        watcher.start()
    try:
        standing = gateway.ask("POST", _path(asked.model, "load"), {}, WORK_S)
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
            standing = gateway.ask("GET", _path(model, "status"))
        except (Refused, ConfigError):
            return  # whoever loads says why
        part = standing["loading"]
        far = "" if part is None else f" {part:4.0%} [{'#' * round(part * 30):30}]"
        sys.stderr.write(f"\r\033[K{standing['id']}: {standing['status']}{far}")
        sys.stderr.flush()


def _unload(asked: argparse.Namespace) -> None:
    _tell(asked, Gateway(asked).ask("POST", _path(asked.model, "unload"), {"force": asked.force}, WORK_S))


def _status(asked: argparse.Namespace) -> None:
    _tell(asked, Gateway(asked).ask("GET", _path(asked.model, "status")))


def _ps(asked: argparse.Namespace) -> None:
    loaded = Gateway(asked).ask("GET", "/v1/models/loaded")
    if asked.json:
        _say(json.dumps(loaded))
        return
    if not loaded["data"]:
        sys.stderr.write("No models in memory.\n")
        return
    head = ("MODEL", "STATUS", "MEMORY", "RUNNING", "WAITING", "UNLOADS")
    _table([head, *(_line(standing) for standing in loaded["data"])])
    for name, pool in loaded["pools"].items():
        taken, most = _size(pool["memory_bytes"]), _size(pool["memory_max_bytes"])
        _say(f"{name}: {pool['loaded']} of {pool['max_loaded']} models, {taken} of {most}")


def _line(standing: dict[str, Any]) -> tuple[str, ...]:
    leaves = "pinned" if standing["pinned"] else standing["idle_unload_at"] or "-"
    memory = _size(standing["memory_bytes"])
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
        _say(json.dumps(standing))
        return
    facts = [standing["status"]]
    if standing["memory_bytes"] and standing["status"] != "unloaded":
        facts.append(f"{_size(standing['memory_bytes'])} ({standing['memory_source']})")
    if standing["running"] or standing["waiting"]:
        facts.append(f"{standing['running']} running, {standing['waiting']} waiting")
    _say(f"{standing['id']}: {', '.join(facts)}")
    for step in standing["steps"]:
        _say(f"  to fit: {step}")
    if (failure := standing["failure"]) is not None:
        again = f"; tried again from {failure['retry_at']}" if failure["retry_at"] else ""
        _say(f"  failed {failure['failures']} time(s): {failure['reason']}{again}")
        for line in failure["log_tail"] or ():
            _say(f"    {line}")


def _path(model: str, verb: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/{verb}"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"


def _table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        _say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
