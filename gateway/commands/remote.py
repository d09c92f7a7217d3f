"""A gateway that runs, as the command line reaches it: asked over HTTP, with a key that may do what is asked."""

import argparse
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from gateway.commands.words import spoken
from gateway.config import load
from gateway.settings import Config, ConfigError

ANSWER_S = 15.0
WORK_S = 900.0
"""How long is waited for what a gateway does before it answers."""
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a gateway that listens there is found."""


class Refused(Exception):
    """The gateway said no; the message is its own."""


class Unanswered(ConfigError):
    """Nobody answers there."""


class Gateway:
    def __init__(self, asked: argparse.Namespace) -> None:
        config = load(asked.config)
        self.url = _url_of(config) if asked.url is None else given_url(asked.url)
        self.config = config
        self._key_env: str | None = asked.key_env
        context = ssl.create_default_context()
        if asked.url is None and config.server.tls.cert is not None:
            context.load_verify_locations(config.server.tls.cert)
        # A proxy is for the way to strangers.
        proxies = urllib.request.ProxyHandler(None if asked.url else {})
        self._opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        within_s: float = ANSWER_S,
        *,
        scope: str | None = None,
    ) -> Any:
        """The answer to one request.  Raises Refused, or Unanswered.

        scope: that a key must have for it, where that is not the one of reading or writing models.
        """
        headers = {"content-type": "application/json"}
        scope = scope or ("models:read" if method == "GET" else "models:write")
        if key := self._key(scope):
            headers["authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  ours to choose
        try:
            with self._opener.open(request, timeout=within_s) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as e:
            raise Refused(_said(e, None if key else scope)) from e
        except (OSError, ValueError, http.client.HTTPException) as e:
            said = str(getattr(e, "reason", e)) or type(e).__name__
            reason = "".join(filter(str.isprintable, said))[:200]  # some of it is whoever's who answers
            raise Unanswered(f"no gateway answers at {self.url}: {reason}. Say where it is with --url.") from e
        if not isinstance(told, dict) or "object" not in told:
            raise Unanswered(f"what answers at {self.url} is no gateway. Say where it is with --url.")
        return told

    def all(self, path: str, **filters: Any) -> list[dict[str, Any]]:
        """A list, all of its pages."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.ask("GET", path + query(**filters, cursor=cursor))
            found += page["data"]
            if (cursor := page["next_cursor"]) is None:
                return found

    def _key(self, scope: str) -> str | None:
        if self._key_env is not None:
            key = os.environ.get(self._key_env)
            if not key:
                raise ConfigError(f"--key-env: the environment has no {self._key_env}")
            return key
        good = (key.key for key in self.config.auth.keys if {scope, "admin"} & set(key.scopes))
        return next(good, None)


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    help_: str,
) -> argparse.ArgumentParser:
    """A command that asks a gateway."""
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


def _command(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def command(asked: argparse.Namespace) -> int:
        try:
            run(asked)
        except Refused as e:
            sys.stderr.write(f"pluggably: {e}\n")
            return 1
        return 0

    return command


def path_of(model: str, verb: str | None = None) -> str:
    path = f"/v1/models/{quote(model, safe='')}"
    return path if verb is None else f"{path}/{verb}"


def query(**given: Any) -> str:
    """What stands behind a path; without what is None."""
    said = {name: value for name, value in given.items() if value is not None}
    return f"?{urlencode(said)}" if said else ""


def size(count: float | None) -> str:
    if count is None:
        return "-"
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    if count >= 2**20 or count <= 0:
        return f"{round(count / 2**20)} MiB"
    return f"{max(1, int(count / 2**10))} KiB"


def table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Tell whoever reads, and no program."""
    sys.stderr.write(f"{text}\n")


def say_json(value: Any) -> None:
    say(json.dumps(value))


def given_url(url: str) -> str:
    """An address as people write it: with or without a scheme, or the one that clients of the API are given.

    Raises ConfigError.
    """
    whole = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(whole)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not whole.isprintable() or " " in whole or parts.query or parts.fragment:
        raise ConfigError(f"--url: '{url[:200]}' is no address; it is like http://127.0.0.1:8080")
    return whole.rstrip("/").removesuffix("/v1").rstrip("/")


def nobody(url: str | None, instead: str) -> None:
    """Tell that no gateway answers, and what is shown instead."""
    where = "" if url is None else f" at {url}"
    note(f"No gateway answers{where} (start one with `pluggably serve`): {instead}.")


def _url_of(config: Config) -> str:
    server = config.server
    if server.port == 0:
        raise ConfigError("--url: say where the gateway is; server.port is 0, any that is free")
    host = _EVERYWHERE.get(server.host, server.host)
    scheme = "http" if server.tls.cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"


def _said(error: urllib.error.HTTPError, lacking: str | None) -> str:
    """What the gateway said of what went wrong, and what helps.

    lacking: the scope that no key of the configuration has, where none was sent.
    """
    try:
        told = json.load(error)["error"]
        message, code = str(told["message"]), told.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"The gateway answered with status {error.code}.", None
    if error.code == 401 and lacking is not None:
        whose = "the administrator's key" if lacking == "admin" else "a key that has it"
        return (
            f"The gateway wants a key, and no key in the configuration has the scope {lacking}; put {whose} in a "
            "variable and name it with --key-env."
        )
    message = spoken(message)
    mine = error.code in (401, 403) and code != "gated_repo" and "--key-env" not in message
    return f"{message} Name one with --key-env." if mine else message
