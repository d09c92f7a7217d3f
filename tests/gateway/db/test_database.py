"""The schema and its rows, on every database the gateway runs on."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.engine import connect, head, upgrade
from gateway.db.tables import metadata
from gateway.db.usage import UsageRows, Which
from tests.gateway.conftest import config
from tests.http import CHAT, chat
from tests.process import ROOT, gateway
from tests.provider import Provider


def row(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"use_{n:012d}", "tenant_id": "acme", "owner_id": "app", "request_id": f"req_{n}",
        "created_at": 1763769600.0 + n, "route": "/v1/chat/completions", "requested_model": "smart", "backend": "up",
        "model": "m", "status": 200, "code": None, "attempts": 1, "streamed": 1, "input_tokens": 2**40,
        "output_tokens": 12, "cached_tokens": None, "reasoning_tokens": None, "cache_written_tokens": None,
        "key_id": "key_1", "cost_nanousd": 12_500, "price_source": "config", "price_date": None,
        "queue_s": 0.0, "load_s": 0.0,
        "first_token_s": 0.1, "total_s": 0.5, "said": None,
    } | changes  # fmt: skip


async def revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        found: str | None = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        return found


async def test_an_empty_database_is_brought_to_the_newest_revision(engine: AsyncEngine) -> None:
    await upgrade(engine)
    assert await revision(engine) == head()
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda c: set(inspect(c).get_table_names()))
    assert tables == set(metadata.tables) | {"alembic_version"}
    await upgrade(engine)
    assert await revision(engine) == head()


async def test_the_migrations_and_the_tables_agree(engine: AsyncEngine) -> None:
    await upgrade(engine)

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_table_has_a_tenant_and_an_owner(table: str) -> None:
    for name in ("tenant_id", "owner_id"):
        assert not metadata.tables[table].columns[name].nullable


async def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    program = (
        "import asyncio, sys\nfrom gateway.db.engine import connect, upgrade\n"
        "async def main():\n    engine = connect(sys.argv[1])\n    await upgrade(engine)\n    await engine.dispose()\n"
        "sys.stdin.read(1)\nasyncio.run(main())\n"
    )
    racing = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, cwd=ROOT, stdin=PIPE, stderr=PIPE)
        for _ in range(3)
    ]
    outcomes = await asyncio.gather(*(process.communicate(b"x") for process in racing))
    assert [(process.returncode, err) for process, (_, err) in zip(racing, outcomes, strict=True)] == [(0, b"")] * 3
    engine = connect(url)
    assert await revision(engine) == head()
    await engine.dispose()


async def test_usage_rows_are_kept_in_batches_and_told_apart_by_tenant(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = UsageRows(engine)
    await rows.add([row(n) for n in range(1200)])
    await rows.add([row(5000, tenant_id="other", input_tokens=None, code="x" * 64, request_id="r" * 128)])
    newest = await rows.page(Which(until=2e9, tenant="acme"), 3)
    assert [one["request_id"] for one in newest] == ["req_1199", "req_1198", "req_1197"]
    assert newest[0] == row(1199)
    assert [one["request_id"] for one in await rows.page(Which(until=2e9, tenant="other"), 9)] == ["r" * 128]


async def test_sqlite_is_set_up_for_a_server(tmp_path: Path) -> None:
    engine = connect(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys")
        }
    await engine.dispose()
    assert pragmas == {"journal_mode": "wal", "busy_timeout": 10000, "foreign_keys": 1}


async def test_a_gateway_keeps_its_books_there(url: str, tmp_path: Path, upstream: Provider) -> None:
    tree = config(upstream.url) | {"database": {"url": url}}
    with gateway(tmp_path, tree) as running, httpx2.Client(base_url=running.url, verify=False) as http:
        long = "up/" + "x" * 5000
        odd = "up/nul\x00and\u2028é"
        for model in ("up/answer", long, odd, "once-status:500"):
            http.post(CHAT, json=chat(model))
        assert http.get("/ready").json()["checks"]["database"] == "ok"
        assert running.stop() == 0
        engine = connect(url)
        rows = await UsageRows(engine).page(Which(until=2e9), 9)
        await engine.dispose()
    assert sorted(one["status"] for one in rows) == [200, 404, 404, 502]
    assert "usage_write_failed" not in "".join(running.lines)
