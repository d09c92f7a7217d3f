"""A hub in a process of its own, whose files are models with so many MiB behind them: `python -m tests.load.hub MIB`.

Prints its address when it listens, and ends when stdin closes.  Lines that it takes, each answered by one:

    spans REPO     what was handed out of a repository's file, from where up to where, once nothing is under way
    corrupt REPO   the next answers have a wrong byte
"""

import os
import sys
import time

import msgspec

from tests.gateway.downloads.world import large
from tests.hub import HubRepo, hub
from tests.hub.files import sent, twist

ORGANISATION, FILE = "load", "model-Q8_0.gguf"
REPOS = ("quiet", "shared", "killed", "corrupt")
SETTLED_S = 5.0


def main(mib: int) -> None:
    os.nice(10)  # it stands for a machine elsewhere
    repos = [HubRepo(f"{ORGANISATION}/{name}", {FILE: large(mib, seed)}) for seed, name in enumerate(REPOS)]
    for repo in repos:
        _ = repo.files[FILE].sha256  # now, and not when it is asked for
    with hub(*repos) as server:
        print(server.url, flush=True)
        for line in sys.stdin:
            verb, _, name = line.strip().partition(" ")
            prefix = f"/repos/{ORGANISATION}/{name}/"
            told: object = None
            if verb == "corrupt":
                twist(server, prefix, times=99, cdn=True, corrupt_at=mib << 19)
            else:
                end = time.monotonic() + SETTLED_S
                spans: list[tuple[int, int]] = []
                while time.monotonic() < end:
                    spans = [(start, until) for path, start, until in sent(server) if path.startswith(prefix)]
                    if len(spans) == len(server.asked(prefix, cdn=True)):
                        break
                    time.sleep(0.05)
                told = spans
            print(msgspec.json.encode(told).decode(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
