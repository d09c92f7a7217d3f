"""Whoever is killed while it fetches goes on from the byte it had."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import msgspec

from tests.gateway.downloads.fetching import LARGE, MIB, contents, left, piece_of, repository
from tests.hub import hub
from tests.hub.files import sent
from tests.process import ROOT

SIZE, KILLS = 64 * MIB, 10
AGAIN_MAX = 16 * MIB


def test_a_file_comes_whole_through_kills_at_any_moment(tmp_path: Path) -> None:
    with hub(repository(SIZE)) as server:
        piece = piece_of(server, tmp_path)
        given = msgspec.json.encode(piece, enc_hook=str).decode()
        command = [sys.executable, "-m", "tests.gateway.downloads.killed", given, str(KILLS), "7"]
        subprocess.run(command, check=True, cwd=ROOT, timeout=60)
        assert piece.path.read_bytes() == contents(server)
        assert left(tmp_path) == {LARGE}
        end = time.monotonic() + 5
        while len(sent(server)) < len(server.asked(cdn=True)) and time.monotonic() < end:
            time.sleep(0.05)  # until the hub has noticed all that were killed
        spans = sorted((start, until) for _, start, until in sent(server))
    assert len(spans) > KILLS / 2
    again = [until - start for (_, until), (start, _) in pairwise(spans)]
    assert max(again) <= AGAIN_MAX, again
    assert spans[-1][1] == SIZE
