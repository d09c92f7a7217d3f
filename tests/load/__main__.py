"""`python -m tests.load [WHAT] [--quick] [--minutes M]`: plays the scenes, prints their figures."""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import msgspec

from tests.load import downloads, sessions
from tests.load.plan import FULL, QUICK
from tests.load.pool import pool
from tests.load.result import Progress, Result, markdown, text
from tests.load.scenes import play, scenes
from tests.load.stage import provider, raise_file_limit, stage


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("load", "soak", "pool", "downloads", "sessions", "all"), default="all"
    )
    parser.add_argument("--quick", action="store_true", help="the sizes of `make test`")
    parser.add_argument("--latency", action="store_true", help="of sessions: what one adds to a generation")
    parser.add_argument("--minutes", type=float, help="of the soak")
    parser.add_argument("--only", type=lambda s: s.split(","), default=[], help="scenes, by name")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    known = (
        {}
        if options.what in ("pool", "downloads", "sessions")
        else scenes(options.what, QUICK if options.quick else FULL)
    )
    if strange := [name for name in options.only if name not in known]:
        parser.error(f"unknown: {', '.join(strange)}; known are {', '.join(known)}")
    return options


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = _options()
    size = QUICK if options.quick else FULL
    if options.minutes:
        size = msgspec.structs.replace(size, soak_s=options.minutes * 60)
    signal.signal(signal.SIGTERM, _stop)
    raise_file_limit()
    say, results, begun = Progress(), list[Result](), time.monotonic()
    if options.what == "pool":
        with tempfile.TemporaryDirectory(prefix="load-") as name:
            results.append(pool(Path(name), 60 if options.quick else 2000, say))
        print(text(results))
        return int(any(result.missed for result in results))
    if options.what == "downloads":
        extent = downloads.QUICK if options.quick else downloads.FULL
        with tempfile.TemporaryDirectory(prefix="load-") as name, provider(Path(name)) as port:
            results.append(downloads.downloads(Path(name) / "downloads", port, extent, say))
        say.clear()
        print(text(results))
        return int(any(result.missed for result in results))
    if options.what == "sessions":
        with tempfile.TemporaryDirectory(prefix="load-") as name:
            if options.latency:
                results.append(sessions.latency(Path(name), 100 if options.quick else 1000, say))
            else:
                results.append(sessions.sessions(Path(name), sessions.QUICK if options.quick else sessions.FULL, say))
        say.clear()
        print(text(results))
        return int(any(result.missed for result in results))
    with tempfile.TemporaryDirectory(prefix="load-") as name, provider(Path(name)) as port:
        for n, (scene, act) in enumerate(scenes(options.what, size).items()):
            if options.only and scene not in options.only:
                continue
            say.scene = scene
            with stage(Path(name) / str(n), port, size) as here:
                results.append(play(act, here, say, size))
            say.clear()
            print(text(results[-1:]), end="\n\n", flush=True)
    about = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; "
        f"{time.monotonic() - begun:.0f} s"
    )
    missed = [target for result in results for target in result.missed]
    print("\n".join([about, *(f"missed: {target}" for target in missed)]))
    if options.markdown:
        options.markdown.write_text(f"{about}.\n\n{markdown(results)}\n")
    return int(bool(missed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
