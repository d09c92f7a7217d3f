"""A PostgreSQL of one's own, where it is installed: a cluster in a temporary folder, on a free port."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def programs() -> Path | None:
    """The folder that holds initdb and pg_ctl; None when PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    for folder in (*debian, *([Path(on_path).parent] if on_path else [])):
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return None


@contextmanager
def cluster() -> Iterator[str]:
    """Run a server and yield the URL of an empty database of its."""
    bin_ = programs()
    assert bin_ is not None
    root = os.geteuid() == 0  # as which PostgreSQL refuses to run
    user = "postgres" if root else None
    name = "postgres" if root else pwd.getpwuid(os.geteuid()).pw_name
    with TemporaryDirectory(prefix="postgres-") as folder:
        if root:
            shutil.chown(folder, "postgres", "postgres")
        data = Path(folder) / "cluster"

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(bin_ / program), *arguments],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=60,
                user=user,
                group=user,
                extra_groups=[] if root else None,
            )

        run("initdb", "-D", str(data), "-U", name, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"), "-o", options, "start")
        try:
            yield f"postgresql+asyncpg://{name}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
