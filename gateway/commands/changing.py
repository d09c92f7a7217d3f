"""`pluggably models set`: what is said of a model changed, in a running gateway."""

import argparse
import json
from functools import partial
from typing import Any

from gateway.commands.remote import WORK_S, Gateway, add_command, path_of, say, say_json
from gateway.settings import ConfigError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command below `models` that changes one."""
    command = partial(add_command, commands)
    one = command("set", _set, "Change what is said of a model: what is left out stays.")
    one.add_argument("model", metavar="MODEL")
    one.add_argument(
        "--alias",
        action="append",
        metavar="A",
        help="another name for it; instead of those it has ('' takes them away)",
    )
    one.add_argument("--tag", action="append", metavar="T", help="a tag; instead of those it has ('' takes them away)")
    one.add_argument(
        "--default",
        action="append",
        metavar="FIELD=VALUE",
        help="what a request has where the client says nothing, besides the others (FIELD= takes it away)",
    )
    one.add_argument("--summary", metavar="S", help="what it is, in a sentence ('' takes it away)")
    pins, shows = one.add_mutually_exclusive_group(), one.add_mutually_exclusive_group()
    pins.add_argument("--pin", dest="pinned", action="store_const", const=True, help="never remove it to make room")
    pins.add_argument("--unpin", dest="pinned", action="store_const", const=False, help="it may make room")
    shows.add_argument("--hide", dest="hidden", action="store_const", const=True, help="neither list nor serve it")
    shows.add_argument("--show", dest="hidden", action="store_const", const=False, help="serve it again")


def _set(asked: argparse.Namespace) -> None:
    changes: dict[str, Any] = {}
    for field, given in (("aliases", asked.alias), ("tags", asked.tag)):
        if given is not None:
            changes[field] = [word for word in given if word]
    for field in ("pinned", "hidden"):
        if (flag := getattr(asked, field)) is not None:
            changes[field] = flag
    if asked.summary is not None:
        changes["summary"] = asked.summary or None
    given = [_default(text) for text in asked.default or ()]
    gateway = Gateway(asked)
    if given:
        defaults = dict(gateway.ask("GET", path_of(asked.model))["defaults"])
        for name, value in given:
            defaults.pop(name, None)
            if value is not None:
                defaults[name] = value
        changes["defaults"] = defaults
    if not changes:
        raise ConfigError("say what is to be changed; `pluggably models set --help` lists it")
    answer = gateway.ask("PATCH", path_of(asked.model), changes, WORK_S)
    if asked.json:
        say_json(answer)
        return
    told = [f"{name} {_told(answer[name])}" for name in changes if name in answer]
    say(f"{answer['id']}: {'; '.join(told) or 'changed'}")


def _default(text: str) -> tuple[str, Any]:
    """A field and its value, which is JSON or else a text; None takes it away.  Raises ConfigError."""
    name, equals, given = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--default: '{text[:100]}' is not like temperature=0.2")
    if not given:
        return name, None
    try:
        return name, json.loads(given)
    except (ValueError, RecursionError):
        return name, given


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value) if isinstance(value, str) else json.dumps(value)
