"""Each database the gateway runs on; PostgreSQL only where it is installed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import connect
from tests.gateway.db.postgres import cluster, programs

KINDS = ["sqlite", *(["postgresql"] if programs() else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)


def pytest_report_collectionfinish() -> str:
    return f"databases under test: {', '.join(KINDS)}"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with cluster() as url:
        yield url


@pytest.fixture
async def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/deep/gateway.db"
    server: str = request.getfixturevalue("server")
    engine = connect(server)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return server


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    connected = connect(url)
    yield connected
    await connected.dispose()
