# ruff: noqa: T201
"""Back up what a gateway on SQLite keeps, while it runs:  python3 backup.py DATA_DIR TARGET [FILE ...]

Copies the database as it is at one moment, the folder of artifacts, the gateway's own secrets and the files named
(its configuration) into the new folder TARGET.  To restore: put gateway.db, artifacts and secrets.json into an empty
data_dir and start the gateway.
Needs Python 3.11 and nothing else.  docs/deployment/upgrade-and-backup.md tells the rest.
"""

import os
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    data, target, *files = map(Path, arguments)
    database = data / "gateway.db"
    for file in (database, *files):
        if not file.is_file():
            print(f"backup: {file} is not there, or no file", file=sys.stderr)
            return 1
    os.umask(0o077)  # keys' hashes and conversations are in it
    try:
        target.mkdir(parents=True)
    except OSError as e:
        print(f"backup: cannot make the folder {target}: {e.strerror}", file=sys.stderr)
        return 1
    copy = target / "gateway.db"
    with closing(sqlite3.connect(database, timeout=30)) as live:
        # One read transaction: writers go on meanwhile, and what they write is not in it.
        live.execute("VACUUM INTO ?", (str(copy),))
    with closing(sqlite3.connect(copy)) as copied:
        (verdict,) = copied.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        print(f"backup: the copy is damaged: {verdict}", file=sys.stderr)
        return 1
    for file in (data / "secrets.json", *files):
        if file.exists():
            shutil.copyfile(file, target / file.name)
    # After the database: what it names was there before it, under a name that is never given to anything else.
    _copy_artifacts(data / "artifacts", target / "artifacts")
    for file in (path for path in target.rglob("*") if path.is_file()):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    print(f"{target}: {', '.join(sorted(file.name for file in target.iterdir()))}")
    return 0


def _copy_artifacts(source: Path, target: Path) -> None:
    for file in source.rglob("*") if source.is_dir() else ():
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # One that has expired since then may be gone by now.
        with suppress(FileNotFoundError):
            if file.is_file():
                shutil.copyfile(file, copy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
