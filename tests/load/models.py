"""`python -m tests.load.models [--models N] [--requests N]`: how long the list of many registered models takes.

Over HTTP, on one connection that is kept, to the last byte of the answer; and what the gateway computes for each.
"""

import argparse
import os
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

import msgspec

from tests.process import Gateway, gateway

CONFIG = {
    "backends": {"local": {"kind": "local"}, "fake": {"kind": "fake"}},
    "models": {"auto": {"routes": ["fake/fake"]}},
}


def fill(running: Gateway, count: int) -> None:
    """Register so many models."""
    models = [
        {
            "id": f"local/listed-{n:05}",
            "source": {"repo": f"Org/Listed-{n:05}-GGUF", "file": f"listed-{n:05}.Q4_K_M.gguf"},
            "aliases": [f"alias-{n:05}"],
            "tags": ["load", f"group-{n % 10}"],
            "summary": "A model that is registered so that there are many.",
        }
        for n in range(count)
    ]
    line = HTTPConnection("127.0.0.1", running.port, timeout=60)
    body = msgspec.json.encode({"models": models})
    line.request("POST", "/v1/models/import", body, {"content-type": "application/json"})
    answer = line.getresponse()
    assert answer.status == 200, answer.read()
    assert msgspec.json.decode(answer.read())["created"] == count
    line.close()


def listing(running: Gateway, requests: int, path: str = "/v1/models") -> tuple[list[float], int]:
    """The seconds that each request took, shortest first, and how many models the last one listed."""
    line = HTTPConnection("127.0.0.1", running.port, timeout=60)
    took: list[float] = []
    body = b""
    for n in range(requests + 1):
        begun = time.perf_counter()
        line.request("GET", path)
        body = line.getresponse().read()
        if n:  # the first one makes the list
            took.append(time.perf_counter() - begun)
    line.close()
    return sorted(took), len(msgspec.json.decode(body)["data"])


def cpu_s(running: Gateway) -> float:
    """The processor's seconds that the gateway has taken so far."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def p(took: list[float], share: float) -> float:
    return took[min(len(took) - 1, int(len(took) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load.models", description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder, gateway(Path(folder), CONFIG) as running:
        fill(running, options.models)
        for path in ("/v1/models", "/v1/models?tag=group-3"):
            before = cpu_s(running)
            took, listed = listing(running, options.requests, path)
            each = (cpu_s(running) - before) / (len(took) + 1)
            told = "  ".join(
                f"p{share:.0%}".replace("%", "") + f" {p(took, share) * 1e3:.1f} ms" for share in (0.5, 0.99)
            )
            print(
                f"{path}: {listed} models, {len(took)} requests: {told}  max {took[-1] * 1e3:.1f} ms  "
                f"CPU {each * 1e3:.1f} ms each"
            )


if __name__ == "__main__":
    main()
