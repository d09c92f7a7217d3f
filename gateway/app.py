"""The composition root: builds the application from a configuration."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from litestar import Litestar
from litestar.types import ASGIApp

from backends.base import Backend
from gateway.api import (
    chat,
    completions,
    document,
    embeddings,
    errors,
    generate,
    health,
    images,
    messages,
    models,
    responses,
    responses_kept,
)
from gateway.api.door import Door, Paths
from gateway.auth.guard import guard
from gateway.config import load
from gateway.db import engine as database
from gateway.db.models import ModelRows
from gateway.db.responses import ResponseRows
from gateway.db.usage import UsageRows
from gateway.estate import build, retired, secrets
from gateway.house import House
from gateway.secrets import own_secrets
from gateway.settings import Config, ConfigError
from gateway.telemetry.logging import Redactor, configure, logger
from gateway.visit import Visit

RELOAD_S = 1.0
"""How often the configuration file is looked at."""

GENERATING = (chat, completions, embeddings, images, messages, responses, generate)
RESOURCES = (models, responses_kept, health, document)


class Application:
    """The ASGI application, and the house behind it for whoever runs it."""

    def __init__(self, config: Config, *, path: Path | None = None) -> None:
        self.redactor = Redactor()
        self.redactor.learn(secrets(config))
        configure(config.telemetry.log_level, config.telemetry.log_format, self.redactor)
        self.house = House(build(config))
        self._path = path
        self._retiring: list[asyncio.Task[None]] = []
        self.litestar = Litestar(
            route_handlers=[handler for resource in RESOURCES for handler in resource.routes(self.house)],
            guards=[guard],
            exception_handlers=errors.HANDLERS,
            openapi_config=document.config(),
            lifespan=[self._lifespan],
            logging_config=None,
            request_max_body_size=config.server.body_limit_bytes,
        )
        # Litestar's routing and exception layers cost as much as the whole relay; generating endpoints are
        # reached past them, behind the same door and the same check of scopes.
        self.endpoints = {path: app for part in GENERATING for path, app in part.endpoints(self.house).items()}
        self.asgi: ASGIApp = Door(Paths(self.endpoints, self.litestar), self.house)

    def reload(self) -> None:
        """Read the configuration file again and swap it in whole.  Raises ConfigError, changing nothing.

        Requests under way finish on the old one; its backends are closed after them.
        """
        house = self.house
        old = house.estate
        new = build(load(self._path), old)
        if new.config.server != old.config.server or new.config.database_url != old.config.database_url:
            logger().warning("config_needs_restart", sections="server, database")
        self.redactor.learn(secrets(new.config) + secrets(old.config))
        house.move(new)
        logger().info("config_reloaded")
        if leaving := retired(old, new):
            self._retiring.append(asyncio.create_task(self._retire(leaving, house.guests, old.config)))

    async def _retire(self, leaving: Mapping[str, Backend], guests: list[Visit], config: Config) -> None:
        longest_s = max((entry.timeouts.total_s for entry in config.models.values()), default=600.0)
        await self.house.outlive(guests, longest_s)
        for backend in leaving.values():
            await backend.aclose()

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        house = self.house
        own = own_secrets(house.estate.config)
        self.redactor.learn((getattr(own, name).decode() for name in own.__struct_fields__), "own")
        engine = database.connect(house.estate.config.database_url)
        tasks: list[asyncio.Task[None]] = []
        try:
            await database.upgrade(engine)
            await ModelRows(engine).put(found for models in house.estate.local.values() for found in models.values())
            house.database_answers = partial(database.answers, engine)
            house.turns = ResponseRows(engine)
            tasks.append(asyncio.create_task(house.ledger.write_to(UsageRows(engine))))
            if self._path is not None:
                tasks.append(asyncio.create_task(self._watch(self._path)))
            yield
        finally:
            for task in (*tasks, *self._retiring):
                task.cancel()
            await asyncio.gather(*tasks, *self._retiring, return_exceptions=True)
            await asyncio.gather(*(b.aclose() for b in house.estate.backends.values()), return_exceptions=True)
            if house.turns is not None:
                await house.turns.settle()
            await engine.dispose()

    async def _watch(self, path: Path) -> None:
        # One stat a second instead of a watch on the folder, which wakes for every log line written there.
        seen = _stamp(path)
        while True:
            await asyncio.sleep(RELOAD_S)
            stamp = _stamp(path)
            if stamp in (seen, None):
                continue
            seen = stamp
            try:
                self.reload()
            except ConfigError as e:
                logger().error("config_refused", reason=str(e))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None while it is being replaced."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
