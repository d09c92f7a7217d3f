"""A newer gateway on the data of an older one."""

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from gateway.db.engine import head
from tests.process import ROOT, gateway

_OLDER = """
import os, sqlite3, sys
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from gateway.db.engine import MIGRATIONS
file = sys.argv[1]
config = Config()
config.set_main_option("script_location", str(MIGRATIONS))
with create_engine(f"sqlite:///{file}").begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
live = sqlite3.connect(file)
live.execute("PRAGMA journal_mode=WAL")
names = [row[1] for row in live.execute("PRAGMA table_info(models)") if row[3]]
live.execute(f"INSERT INTO models ({','.join(names)}) VALUES ({','.join('?' * len(names))})", ["1"] * len(names))
live.commit()
os._exit(9)  # a crash: the row is in the log beside the file
"""


def test_the_database_is_copied_whole_before_it_is_migrated(tmp_path: Path) -> None:
    file = tmp_path / "data" / "gateway.db"
    file.parent.mkdir()
    ended = subprocess.run([sys.executable, "-c", _OLDER, str(file)], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 9
    assert file.with_name("gateway.db-wal").stat().st_size
    with gateway(tmp_path, {"backends": {"fake": {"kind": "fake"}}}):
        pass
    copy = file.with_name(f"gateway.db.before-{head()}")
    for database, revision in ((copy, "0001"), (file, head())):
        with closing(sqlite3.connect(database)) as opened:
            assert opened.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    with closing(sqlite3.connect(copy)) as opened:
        assert opened.execute("SELECT count(*) FROM models").fetchone() == (1,)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_what_is_kept_is_closed_to_other_users(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with gateway(tmp_path, {"backends": {"fake": {"kind": "fake"}}}):
            kept = list((tmp_path / "data").iterdir())
            assert "gateway.db" in {file.name for file in kept}
            assert [file.name for file in kept if stat.S_IMODE(file.stat().st_mode) & 0o077] == []
    finally:
        os.umask(before)
