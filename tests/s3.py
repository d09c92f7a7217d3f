"""A server that speaks S3, for tests: moto's, in a process of its own on a free port of loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

BUCKET = "artifacts-of-tests"
KEY_ID, SECRET = "AKIAFORTESTS", "s3-secret-canary-52e1c90b"
START_S = 30.0


def settings(url: str, prefix: str = "", **changes: Any) -> dict[str, Any]:
    """The section `artifacts` of a configuration that keeps them there."""
    server = {"endpoint": url, "access_key_id": KEY_ID, "secret_access_key": SECRET, "allow_http": True}
    return {"url": f"s3://{BUCKET}/{prefix}".rstrip("/"), "s3": server} | changes


@contextmanager
def running() -> Iterator[str]:
    """Its URL; there is one bucket, which is empty."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + START_S
    try:
        while True:
            try:
                # Unsigned: it believes everybody.
                httpx2.put(f"{url}/{BUCKET}").raise_for_status()
                break
            except httpx2.TransportError:
                assert process.poll() is None and time.monotonic() < end, "no S3 server"  # noqa: PT018
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)
