"""The proxies of `deploy/`, run from those very files: only addresses, names and certificates are put in."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.deployment.certificates import Issued
from tests.process import ROOT

PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
_NGINX = """daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
_CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


def binary(name: str) -> str | None:
    return shutil.which(name, path=PATHS)


@contextmanager
def proxy(
    name: str, folder: Path, gateway_port: int, issued: Issued, changes: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run it in front of a gateway; yields its https:// URL.  changes: further texts of its file to replace."""
    port, other = free_port(), free_port()
    folder.mkdir(exist_ok=True)
    command = binary(name)
    assert command is not None
    if name == "nginx":
        replaced = {
            "127.0.0.1:8080": f"127.0.0.1:{gateway_port}",
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "listen 80;": f"listen 127.0.0.1:{other};",
            "/etc/ssl/pluggably/fullchain.pem": str(issued.cert),
            "/etc/ssl/pluggably/privkey.pem": str(issued.key),
        }
        site = _changed((ROOT / "deploy/nginx.conf").read_text(), replaced | dict(changes or {}))
        (folder / "site.conf").write_text(site)
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
        arguments = [command, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    else:
        replaced = {
            "127.0.0.1:8080": f"127.0.0.1:{gateway_port}",
            "gateway.example.com {": f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {issued.cert} {issued.key}",
        }
        site = _changed((ROOT / "deploy/Caddyfile").read_text(), replaced | dict(changes or {}))
        (folder / "Caddyfile").write_text(_CADDY + site)
        arguments = [command, "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, env={**os.environ, **home})
    try:
        _listening(port, process, folder)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _changed(text: str, replaced: Mapping[str, str]) -> str:
    for old, new in replaced.items():
        assert text.count(old) == 1, f"{old!r} is not there once"
        text = text.replace(old, new)
    return text


def _listening(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("".join(log.read_text() for log in folder.glob("*.log")))
