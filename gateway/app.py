"""The composition root: builds the application from a configuration."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.types import ASGIApp

from backends.base import Backend
from gateway.api import (
    artifacts,
    audit,
    chat,
    completions,
    conversations,
    credentials,
    document,
    downloads,
    embeddings,
    errors,
    generate,
    health,
    images,
    jobs,
    keys,
    limits,
    loading,
    meshes,
    messages,
    models,
    providers,
    registering,
    requests,
    rerank,
    responses,
    responses_kept,
    schema,
    search,
    session_turns,
    sessions,
    storage,
    usage,
)
from gateway.api.door import Door, Paths
from gateway.archive import Archive
from gateway.auth.authenticator import Tokens
from gateway.auth.guard import guard
from gateway.auth.registrar import SYSTEM, Registrar
from gateway.cabinet import Cabinet
from gateway.checks import is_exposed
from gateway.config import load
from gateway.db import engine as database
from gateway.depot import Depot
from gateway.discovery.problem import Problem, tell
from gateway.discovery.watch import watch
from gateway.estate import build, changes, lay, open_things, retired, scan, secrets, succeed
from gateway.findings import warnings
from gateway.house import Estate, House
from gateway.registry.entries import Found
from gateway.secrets import own_secrets
from gateway.settings import Config, ConfigError
from gateway.telemetry.logging import Redactor, configure, logger
from gateway.visit import Visit

PRICES_S = 1.0
"""How long after the start the table of prices is loaded: not while others want to start as well."""
CLOSE_S = 10.0
"""How long a database that does not answer may hold up the end."""
RELOAD_S = 1.0
"""How often the configuration file is looked at."""

FIRST_KEY = """
No key may administer this gateway yet, so here is one.  It is shown only now: keep it safe.

  {key}

More keys: POST /v1/keys, or pluggably keys create with the same --config.
"""

GENERATING = (chat, completions, embeddings, rerank, images, meshes, messages, responses, generate, session_turns)
RESOURCES = (
    models,
    registering,
    search,
    schema,
    downloads,
    loading,
    limits,
    providers,
    requests,
    artifacts,
    jobs,
    responses_kept,
    conversations,
    keys,
    credentials,
    audit,
    health,
    document,
    sessions,
    storage,
    usage,
)


class Application:
    """The ASGI application, and the house behind it for whoever runs it."""

    def __init__(
        self,
        config: Config,
        *,
        path: Path | None = None,
        given: Mapping[str, str] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        """given: as `load` takes it, for every reload as well.

        announce: shows a key to whoever started the gateway, where none may administer it yet.
        """
        self.redactor = Redactor()
        self.redactor.learn(secrets(config))
        configure(config.telemetry.log_level, config.telemetry.log_format, self.redactor)
        self._scanned = scan(config)
        self.house = House(build(config, found=lay(config, self._scanned)))
        _warn(self.house.estate)
        self.house.redact = self.redactor
        self.house.renew = self._renew
        self.failure: ConfigError | None = None
        """Why it could not start."""
        self._path = path
        self._given = given
        self._announce = announce
        self._retiring: list[asyncio.Task[None]] = []
        self._following: set[asyncio.Task[None]] = set()
        self._reloading: set[asyncio.Task[None]] = set()
        self._swapping = asyncio.Lock()
        self.litestar = Litestar(
            route_handlers=[handler for resource in RESOURCES for handler in resource.routes(self.house)],
            guards=[guard],
            exception_handlers=errors.HANDLERS,
            openapi_config=document.config(),
            lifespan=[self._lifespan],
            logging_config=None,
            state=State({"redact": self.redactor}),
            request_max_body_size=config.server.body_limit_bytes,
        )
        # Litestar's routing and exception layers cost as much as the whole relay; generating endpoints are
        # reached past them, behind the same door and the same check of scopes.
        self.endpoints = {path: app for part in GENERATING for path, app in part.endpoints(self.house).items()}
        self.asgi: ASGIApp = Door(Paths(self.endpoints, models.whole_ids(self.litestar)), self.house)

    def reload(self) -> None:
        """Begin to read the configuration and the folders of local models again, and swap them in whole.

        A configuration that cannot be used is refused, and the old one stays.  Requests under way finish on the old
        one; its backends are closed after them.
        """
        task = asyncio.create_task(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        try:
            async with self._swapping:
                config = load(self._path, given=self._given)
                problems: list[Problem] = []
                scanned = await asyncio.to_thread(scan, config)
                found = await asyncio.to_thread(lay, config, scanned, self.house.entries, problems)
                self._swap(config, found)
                self._scanned = scanned
                self._note_problems(problems)
                await self._learn(found)
        except Exception as e:  # a watch that ended here would never be missed
            self.house.metrics.reloads.labels("refused").inc()
            reason = str(e) if isinstance(e, ConfigError) else f"{type(e).__name__}: {e}"
            logger().error("config_refused", reason=reason)

    async def _learn(self, found: Found) -> None:
        """Take down what a new configuration has brought, and what went with the old one: it is in force either way."""
        try:
            await self.house.entries.learn(found)
        except Exception as e:
            logger().error("models_unregistered", error=type(e).__name__)

    async def _renew(self, *, look: bool = False) -> None:
        """Serve the local models as they are registered now, on the configuration there is.

        look: in their folders again.
        """
        async with self._swapping:
            estate = self.house.estate
            problems: list[Problem] = []
            if look:
                self._scanned = await asyncio.to_thread(scan, estate.config)
            found = await asyncio.to_thread(lay, estate.config, self._scanned, self.house.entries, problems)
            self._note_problems(problems)
            await self.house.entries.learn(found)
            if found != estate.local:
                self._swap(estate.config, found)
            await self.house.estate.registry.prepare()

    def _note_problems(self, problems: Sequence[Problem]) -> None:
        tell(problems, self.house.problems)
        self.house.problems = tuple(problems)

    def _swap(self, wanted: Config, found: Found) -> None:
        house = self.house
        old = house.estate
        self.redactor.learn(secrets(wanted) + secrets(old.config))
        # The socket stays where it is, whatever the file says now; it is by the socket that strangers come in.
        bound = old.config.server
        server = msgspec.structs.replace(wanted.server, host=bound.host, port=bound.port)
        config = msgspec.structs.replace(wanted, server=server)
        if is_exposed(config):
            raise ConfigError(
                f"auth.mode: 'local' needs no key, but other machines reach this gateway on {bound.host} until it is "
                "started again. Restart it, or set auth.mode to api_key."
            )
        new = build(config, old, found)
        _warn(new)
        if wanted.server != bound or wanted.database_url != old.config.database_url:
            logger().warning("config_needs_restart", sections="server, database")
        if wanted.secrets != old.config.secrets:
            logger().warning("config_needs_restart", sections="secrets")
        if wanted.telemetry.otlp_endpoint != old.config.telemetry.otlp_endpoint:
            logger().warning("config_needs_restart", sections="telemetry.otlp_endpoint")
        succeed(old, new)
        house.move(new)
        house.warm(old)
        if new.entry.tokens is not None:
            new.entry.tokens.warm()
        if wanted is not old.config:  # and not only its models are others
            house.metrics.reloads.labels("accepted").inc()
            logger().info("config_reloaded")
        if told := changes(old.local, new.local):
            logger().info("models_changed", **told)
        if sections := _differing(old.config, new.config):
            self._follow(self._note_reload(sections))
            self._follow(self._introduce_late())
        if leaving := retired(old, new):
            self._retiring.append(asyncio.create_task(self._retire(leaving, house.guests)))

    def _follow(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _retire(self, leaving: Sequence[Backend | Tokens], guests: list[Visit]) -> None:
        await self.house.outlive(guests)
        for one in leaving:
            await one.aclose()

    async def _note_reload(self, sections: list[str]) -> None:
        act = SYSTEM.act("config.reload", "config", "default", {"sections": sections})
        try:
            await self.house.archive.acts.add(act)
        except Exception as e:
            logger().error("audit_write_failed", action=act.action, error=type(e).__name__)

    async def _introduce(self, registrar: Registrar) -> None:
        """Where keys are taken and none may administer the gateway, give one out and show it this once."""
        estate = self.house.estate
        if self._announce is None or not estate.config.auth.takes_keys or estate.entry.keys.has_admin():
            return
        if (first := await registrar.first_admin()) is not None:
            row, text = first
            self._announce(FIRST_KEY.format(key=text))
            logger().info("admin_key_issued", id=row.id)

    async def _introduce_late(self) -> None:
        try:
            await self._introduce(self.house.archive.registrar)
        except Exception as e:
            cure = "pluggably keys create --scope admin makes a key"
            logger().error("admin_key_failed", error=type(e).__name__, cure=cure)

    async def _load_prices(self) -> None:
        await asyncio.sleep(PRICES_S)
        await self.house.estate.prices.load()

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        house = self.house
        engine: database.Engine | None = None
        archive: Archive | None = None
        depot: Depot | None = None
        cabinet: Cabinet | None = None
        tasks: list[asyncio.Task[None]] = []
        try:
            own = own_secrets(house.estate.config)
            self.redactor.learn((getattr(own, name).decode() for name in own.__struct_fields__), "own")
            with database.usable():
                engine = database.connect(house.estate.config.database_url)
                await database.upgrade(engine)
                archive = house.archive = Archive(engine, house, own, self.redactor)
                await archive.open()
                cabinet = house.cabinet = Cabinet(house, archive, own)
                await cabinet.open()
                await self._renew()
                await self._introduce(archive.registrar)
            if (endpoint := house.estate.config.telemetry.otlp_endpoint) is not None:
                # Not before it is wanted: the SDK takes a third of a second to import.
                from gateway.telemetry.tracing import Tracer

                house.tracer = Tracer(endpoint, house.estate.config, self.redactor)
                house.ledger.traced = house.tracer.account
            tasks.append(asyncio.create_task(self._load_prices()))
            if house.estate.entry.tokens is not None:
                house.estate.entry.tokens.warm()
            house.warm()
            depot = house.depot = Depot(house, archive)
            await depot.open()
            tasks.append(asyncio.create_task(watch(house)))
            if self._path is not None:
                tasks.append(asyncio.create_task(self._watch(self._path)))
            yield
        except ConfigError as e:
            self.failure = e
            # Which would tell of it as of a crash; whoever runs this does so in one line.
            logging.getLogger("uvicorn.error").disabled = True
            raise
        finally:
            for task in (*tasks, *self._reloading, *self._retiring):
                task.cancel()
            ending = (*tasks, *self._reloading, *self._retiring, *self._following)
            await asyncio.gather(*ending, return_exceptions=True)
            if depot is not None:
                await _within(CLOSE_S, depot.aclose(), "jobs_unsettled")
            if cabinet is not None:
                await _within(CLOSE_S, cabinet.aclose(), "answers_unsettled")
            await asyncio.gather(*(one.aclose() for one in open_things(house.estate)), return_exceptions=True)
            if archive is not None:
                await _within(CLOSE_S, archive.aclose(), "archive_unsettled")
            if house.tracer is not None:
                await house.tracer.aclose()
            if engine is not None:
                await _within(CLOSE_S, engine.dispose(), "database_unclosed")

    async def _watch(self, path: Path) -> None:
        # One stat a second instead of a watch on the folder, which wakes for every log line written there.
        seen = _stamp(path)
        while True:
            await asyncio.sleep(RELOAD_S)
            stamp = _stamp(path)
            if stamp in (seen, None):
                continue
            seen = stamp
            await self._reload()


async def _within(seconds: float, work: Awaitable[None], else_: str) -> None:
    """Do the work, or give it up and say so."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        logger().error(else_, after_s=seconds)


def _warn(estate: Estate) -> None:
    """Log what the configuration names and is not here."""
    for reason in warnings(estate.config, estate.local):
        logger().warning("config_warning", reason=reason)


def _differing(old: Config, new: Config) -> list[str]:
    """The sections of the file that are not the same."""
    names = {"database_url": "database"}
    fields = old.__struct_fields__
    return [names.get(name, name) for name in fields if getattr(old, name) != getattr(new, name)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None while it is being replaced."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
