"""A PostgreSQL that hangs, instead of refusing, holds up neither whoever asks nor the end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from tests.gateway.conftest import ADMIN_KEY, AUTH, speaking
from tests.gateway.db.postgres import cluster, programs
from tests.http import CHAT, chat
from tests.process import gateway


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Every process of the server stands still."""
    port = make_url(url).port
    main = next(p for p in psutil.process_iter(["cmdline"]) if f"-p {port}" in " ".join(p.info["cmdline"] or ()))
    main = next((p for p in [main, *main.children(recursive=True)] if p.name().startswith("postgres")), main)
    everybody = [main, *main.children(recursive=True)]
    for process in everybody:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in everybody:
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_a_gateway_stops_while_its_database_hangs(tmp_path: Path) -> None:
    with cluster() as url:
        config = {"auth": AUTH, "database": {"url": url}, "backends": {"fake": {"kind": "fake"}}}
        with gateway(tmp_path, config) as running, speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as http:
            assert http.post(CHAT, json=chat("fake/fake")).status_code == 200
            with stopped(url):
                assert http.post(CHAT, json=chat("fake/fake")).status_code == 200, "no answer needs it"
                assert http.get("/ready").status_code == 503
                began = time.monotonic()
                running.stop(timeout_s=60)
                assert time.monotonic() - began < 40
