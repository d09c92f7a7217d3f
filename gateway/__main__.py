"""The command line: `pluggably COMMAND`.  See `pluggably --help`."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from compat.canonical.model import Modality
from gateway.commands import changing, downloads, jobs, keys, models, registered, storage, usage
from gateway.commands.parser import Parser
from gateway.config import PREFIX, load, schema
from gateway.settings import ConfigError, SelectionMode

if TYPE_CHECKING:
    from compat.canonical.model import Model
    from gateway.house import Estate
    from gateway.routing.router import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 with a message on standard error."""
    asked = _parser().parse_args(arguments)
    os.umask(0o077)  # what is kept holds conversations and secrets, and is nobody else's to read
    try:
        status: int = asked.run(asked)
    except ConfigError as e:
        for line in str(e).splitlines():
            print(f"pluggably: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has had enough; the interpreter must not write to it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="pluggably", description="One OpenAI-compatible gateway for providers, public APIs and local models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default: built-in defaults)")
        sub.set_defaults(run=run)
        return sub

    serve = command("serve", _serve, "Start the gateway.")
    serve.add_argument("--host", help="address to listen on (default: server.host, 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: server.port, 8080)")
    check = command("check-config", _check, "Validate a configuration file.")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema of the file instead")
    explain = command("explain", _explain, "Show which routes a model's name leads to, in order, and why.")
    explain.add_argument("model", metavar="MODEL")
    explain.add_argument("--modality", choices=get_args(Modality), default="text", help="what is wanted (text)")
    explain.add_argument("--mode", choices=get_args(SelectionMode), default="auto", help="selection mode (auto)")
    explain.add_argument("--json", action="store_true", help="print JSON")
    about = "Look at models, and have a running gateway fetch, load, unload and remove them."
    below = commands.add_parser("models", help=about, description=about).add_subparsers(
        required=True, metavar="COMMAND"
    )
    models.add_commands(below, configured=_configured)
    downloads.add_commands(below)
    registered.add_commands(below)
    changing.add_commands(below)
    for name, part, what in (
        ("jobs", jobs, "Long work of a running gateway."),
        ("storage", storage, "Room for models."),
    ):
        part.add_commands(
            commands.add_parser(name, help=what, description=what).add_subparsers(required=True, metavar="COMMAND")
        )
    giving = commands.add_parser("keys", help="Give out API keys.", description="Give out API keys.")
    keys.add_commands(giving)
    usage.add_options(command("usage", usage.run, "Show what requests took and cost."))
    command("openapi", _openapi, "Print the OpenAPI document.")
    return parser


def _serve(asked: argparse.Namespace) -> int:
    options = {"host": asked.host, "port": asked.port}
    given = {f"{PREFIX}SERVER__{name.upper()}": str(value) for name, value in options.items() if value is not None}
    config = load(asked.config, given=given)
    from gateway.app import Application
    from gateway.server import serve

    application = Application(config, path=asked.config, given=given, announce=partial(print, flush=True))
    serve(application, config)
    return 0


def _check(asked: argparse.Namespace) -> int:
    if asked.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    config = load(asked.config)
    from gateway.estate import build
    from gateway.findings import warnings

    estate = build(config)
    for warning in warnings(config, estate.local):
        print(f"{asked.config}: warning: {warning}", file=sys.stderr)
    backends, names = ", ".join(config.backends) or "none", ", ".join(config.models) or "none"
    print(f"{asked.config or 'built-in defaults'}: ok (backends: {backends}; models: {names})")
    return 0


def _explain(asked: argparse.Namespace) -> int:
    from compat.canonical.error import GatewayError
    from gateway.routing.selection import allowed

    async def plan_of(model: str) -> "Plan":
        async with _estate(asked.config) as estate:
            return await estate.router.plan(model, asked.modality)

    try:
        plan = asyncio.run(plan_of(asked.model))
    except GatewayError as e:
        print(f"pluggably: {e.message}", file=sys.stderr)
        return 1
    left_out = {route.name: reason for route in plan.routes if (reason := allowed(route, asked.mode, asked.modality))}
    if asked.json:
        routes = [
            {
                "route": route.name,
                "weight": route.weight,
                "price": route.price,
                "context_length": route.context_length,
                "capabilities": route.capabilities,
                "left_out": left_out.get(route.name),
            }
            for route in plan.routes
        ]
        told = {"model": asked.model, "reason": plan.reason, "strategy": plan.strategy, "retries": plan.retries}
        print(json.dumps({**told, "stream_guard": plan.guard, "routes": routes}))
        return 0
    print(f"{asked.model}: {plan.reason}; strategy {plan.strategy}, stream_guard {plan.guard}")
    for n, route in enumerate((r for r in plan.routes if r.name not in left_out), 1):
        context = f"{route.context_length} tokens" if route.context_length else None
        facts = "  ".join(fact for fact in (route.price, context, *route.capabilities) if fact)
        print(f"  {n}. {route.name:48} {facts}")
    for name, reason in left_out.items():
        print(f"  -  {name:48} left out: {reason}")
    print(f"  then {plan.retries} more attempt(s)")
    print("A running gateway tells its decision for a request under the header x-gateway-explain: true.")
    return 0


def _configured(path: Path | None) -> list[dict[str, Any]]:
    """The models of a configuration, of local ones whether what they run on is installed; as JSON."""
    from backends.base import Loads
    from compat.openai.models import render_model

    def status(model: "Model", estate: "Estate") -> str | None:
        backend = estate.backends[model.backend]
        if not isinstance(backend, Loads) or model.name not in estate.local.get(model.backend, {}):
            return model.status
        return "available" if (lack := backend.lacks(model.name)) is None else f"unavailable (needs {lack})"

    async def listed() -> list[dict[str, Any]]:
        async with _estate(path) as estate:
            return [render_model(model) | {"status": status(model, estate)} for model in await estate.registry.all()]

    return asyncio.run(listed())


def _openapi(asked: argparse.Namespace) -> int:
    from gateway.api.document import document
    from gateway.app import Application

    config = load(asked.config)
    print(json.dumps(document(Application(config).litestar, config.auth), indent=2))
    return 0


@asynccontextmanager
async def _estate(path: Path | None) -> "AsyncGenerator[Estate, None]":
    """What a configuration describes, for one look at it; log lines go to standard error."""
    from gateway.estate import build, secrets
    from gateway.telemetry.logging import Redactor, configure

    config = load(path)
    redactor = Redactor()
    redactor.learn(secrets(config))
    configure("warning", config.telemetry.log_format, redactor)
    estate = build(config)
    try:
        yield estate
    finally:
        for backend in estate.backends.values():
            await backend.aclose()


if __name__ == "__main__":
    sys.exit(main())
