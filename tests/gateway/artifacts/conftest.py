"""Artifacts wherever they can be: in a folder or a bucket, with their rows in either database."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from compat.canonical.principal import Principal
from gateway.artifacts import Artifacts
from gateway.artifacts.signing import Signer
from gateway.artifacts.store import Store
from gateway.auth.principal import Grant
from gateway.config import load
from gateway.db.artifacts import ArtifactRows
from gateway.db.engine import connect, upgrade
from gateway.house import House
from gateway.keeping import Artifacts as Settings
from gateway.settings import Limits
from tests import s3
from tests.gateway.db.postgres import cluster, programs

PLACES = ["folder", "s3"]
DATABASES = ["sqlite", *(["postgresql"] if programs() else [])]
EVERYWHERE = [("folder", "sqlite"), ("s3", "sqlite"), *([("s3", "postgresql")] if programs() else [])]
"""Each place and each database at least once."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"place", "database"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("place", "database"), EVERYWHERE)
    elif "place" in metafunc.fixturenames:
        metafunc.parametrize("place", PLACES)
    elif "database" in metafunc.fixturenames:
        metafunc.parametrize("database", DATABASES)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with s3.running() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database with all tables."""
    with cluster() as url:
        asyncio.run(_migrate(url))
        yield url


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no rows, to be copied."""
    file = tmp_path_factory.mktemp("artifacts") / "gateway.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{file}"))
    return file


async def _migrate(url: str) -> None:
    engine = connect(url)
    await upgrade(engine)
    await engine.dispose()


@pytest.fixture
def artifacts_config(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The section `artifacts` of a configuration, for a store with nothing in it."""
    if place == "folder":
        return {"url": f"file://{tmp_path}/kept/artifacts"}
    return s3.settings(request.getfixturevalue("s3_server"), f"tests/{uuid4().hex}")


@pytest.fixture
def store(artifacts_config: dict[str, Any], tmp_path: Path) -> Store:
    return Store(msgspec.convert(artifacts_config, Settings), tmp_path)


@pytest.fixture
def database_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables; on PostgreSQL it may have rows."""
    if database == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_file"), tmp_path / "gateway.db")
        return f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    server: str = request.getfixturevalue("postgres_server")
    return server


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    connected = connect(database_url)
    async with connected.begin() as connection:
        for table in ("artifacts", "blobs", "artifact_uses", "audit"):
            await connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
    yield connected
    await connected.dispose()


@pytest.fixture
def rows(engine: AsyncEngine) -> ArtifactRows:
    return ArtifactRows(engine)


@pytest.fixture
def artifacts(rows: ArtifactRows, store: Store, artifacts_config: dict[str, Any]) -> Artifacts:
    return service(rows, store, artifacts_config)


def service(rows: ArtifactRows, store: Store, section: dict[str, Any], limits: Limits | None = None) -> Artifacts:
    """In a house of which only the configuration is there."""
    config = msgspec.structs.replace(
        load(None, {}), artifacts=msgspec.convert(section, Settings), limits=limits or Limits()
    )
    house = cast(House, SimpleNamespace(estate=SimpleNamespace(config=config)))
    return Artifacts(house, rows, store, Signer([b"a signing key of the tests, long enough"]))


def grant(tenant: str = "acme", user: str = "ann", key_id: str | None = "key_1", **more: Any) -> Grant:
    scopes = frozenset({"inference"})
    return Grant(principal=Principal(id=user, tenant=tenant, scopes=scopes), key_id=key_id, **more)


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """The URL of a server that takes what it is sent and never says anything."""
    done = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        done.set()
        server.close()
