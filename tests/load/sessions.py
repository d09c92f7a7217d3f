"""Scenes of sessions: written through kills without losing what was acknowledged, and what that costs.

A gateway is killed in the middle of many clients' turns, again and again, on one folder.  Afterwards each message whose
client was told of it stands in its session's line, the database is whole, and no object is left that nobody knows.
"""

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from msgspec import Struct, field

from tests.load.result import Figure, Progress, Result, rank
from tests.process import Gateway, gateway

GRACE_S = 1.0
ADDED_MAX_MS = 8.0
PICTURES = 5
"""Of so many turns, one is a picture."""
SWEEP = "import gateway.artifacts.cleanup as c; c.FIRST_S, c.EVERY_S, c.LIST_S = 0.2, 0.2, 0.2"
"""The sweeper looks more often than it does, not to be waited for."""
SWEPT_S = 30.0


class Extent(Struct, frozen=True, kw_only=True):
    """How large the scene is."""

    kills: int
    writers: int = 6
    life_s: float = 0.4
    """How long a life lasts, about, between its first acknowledged message and the kill."""


FULL = Extent(kills=100)
QUICK = Extent(kills=15)
SHORT = Extent(kills=15, writers=4, life_s=0.15)
"""For `make test`."""


class Book(Struct):
    """What clients were told."""

    told: dict[str, str] = field(default_factory=dict)
    """Session by message."""
    wrong: list[str] = field(default_factory=list)
    """Answers that were neither good nor cut off by a kill."""
    first: threading.Event = field(default_factory=threading.Event)


def sessions(folder: Path, extent: Extent, say: Progress) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    book, rng, starts = Book(), random.Random(8), list[float]()  # noqa: S311
    for n in range(extent.kills):
        begun = time.monotonic()
        with _house(folder) as running:
            starts.append(time.monotonic() - begun)
            book.first.clear()
            writers = [threading.Thread(target=_write, args=(running, book)) for _ in range(extent.writers)]
            for writer in writers:
                writer.start()
            book.first.wait(20)
            time.sleep(rng.uniform(0, 2 * extent.life_s))
            running.stop(signal.SIGKILL)
            for writer in writers:
                writer.join()
        say(f"{n + 1} of {extent.kills} kills, {len(book.told):,} messages acknowledged")
    with _house(folder, SWEEP):
        orphans = _orphans(folder)
    lost, whole, dangling = _looked(folder, book)
    return Result(
        f"{extent.writers} clients write to sessions through {extent.kills} kills",
        [
            Figure("acknowledged messages", float(len(book.told)), least=float(extent.kills)),
            Figure("of these lost", float(len(lost)), most=0, note=" ".join(lost[:3])),
            Figure(
                "answers that were neither good nor cut off", len(book.wrong), most=0, note=" ".join(book.wrong[:2])
            ),
            Figure("the database is whole", float(whole == "ok"), least=1, note=whole),
            Figure("turns, items and uses of nothing", float(dangling), most=0),
            Figure("orphaned objects older than their grace", float(orphans), most=0),
            Figure("start after a kill, p50", rank(starts, 0.5), "s"),
        ],
    )


def latency(folder: Path, turns: int, say: Progress) -> Result:
    """What a session adds to a generation: both kinds in turn, on one connection, ten turns to a session."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, kept = list[float](), list[float]()
    with _house(folder) as running, _client(running) as http:
        session = ""
        for n in range(-20, turns):
            if n % 10 == 0:
                session = _begun(http)
            for path, took in (("/v1/generate", plain), (f"/v1/sessions/{session}/generate", kept)):
                begun = time.perf_counter()
                answer = http.post(path, json=_asked(n))
                took.append(time.perf_counter() - begun)
                assert answer.status_code == 200, answer.text
            if n % 50 == 0:
                say(f"{n} of {turns} turns")
    without, within = (rank(took[20:], 0.5) * 1000 for took in (plain, kept))
    return Result(
        f"{turns} generations with a session and without",
        [
            Figure("generate, p50", without, "ms"),
            Figure("generate in a session, p50", within, "ms"),
            Figure("a session adds, p50", within - without, "ms", most=ADDED_MAX_MS),
            Figure("generate in a session, p99", rank(kept[20:], 0.99) * 1000, "ms"),
        ],
    )


@contextmanager
def _house(folder: Path, prelude: str = "") -> Iterator[Gateway]:
    config = {
        "backends": {"fake": {"kind": "fake"}},
        "models": {"auto": {"routes": ["fake/fake"]}},
        "artifacts": {"grace_s": GRACE_S},
    }
    with gateway(folder, config, environ={"NO_PROXY": "*"}, prelude=prelude) as running:
        yield running


def _client(running: Gateway) -> httpx2.Client:
    return httpx2.Client(base_url=running.url, timeout=30, trust_env=False)


def _asked(n: int, modality: str = "text") -> dict[str, Any]:
    return {"input": {"prompt": f"Say hello, for the {n}th time."}, "modality": modality}


def _begun(http: httpx2.Client) -> str:
    answer = http.post("/v1/sessions", json={})
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def _write(running: Gateway, book: Book) -> None:
    """Turn after turn, until nobody answers any more."""
    try:
        with _client(running) as http:
            session, n = _begun(http), 0
            while True:
                n += 1
                # Of each kind: whole answers, streams, pictures.
                modality = "image" if n % PICTURES == 0 else "text"
                body = _asked(n * 1000 + id(http) % 1000, modality) | {"stream": n % 2 == 0}
                answer = http.post(f"/v1/sessions/{session}/generate", json=body)
                if answer.status_code != 200:
                    book.wrong.append(answer.text[:200])
                    return
                if (id_ := _id(answer)) is None:
                    return
                book.told[id_] = session
                book.first.set()
    except httpx2.HTTPError:
        return


def _id(answer: httpx2.Response) -> str | None:
    """The message's, if its client was told that it is there."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        if "event: generation.completed" not in answer.text:
            return None
        return answer.text.rpartition('"message_id":"')[2].partition('"')[0]
    return str(answer.json()["message_id"])


def _orphans(folder: Path) -> int:
    """Objects older than their grace that no row has, once they have been swept, or have not been for long."""
    end = time.monotonic() + SWEPT_S
    while (found := _unknown(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return len(found)


def _unknown(folder: Path) -> list[Path]:
    root, before = folder / "data" / "artifacts", time.time() - GRACE_S
    with closing(sqlite3.connect(folder / "data" / "gateway.db", timeout=10)) as database:
        known = {row[0] for row in database.execute("SELECT key FROM blobs")}
    found = []
    for path in root.rglob("*"):
        try:
            old = path.is_file() and path.stat().st_mtime < before
        except FileNotFoundError:
            continue
        if old and str(path.relative_to(root)) not in known:
            found.append(path)
    return found


def _looked(folder: Path, book: Book) -> tuple[list[str], str, int]:
    """What was lost, what the database says of itself, and how many rows lead nowhere."""
    with closing(sqlite3.connect(folder / "data" / "gateway.db", timeout=10)) as database:
        whole = database.execute("PRAGMA integrity_check").fetchone()[0]
        broken = database.execute("PRAGMA foreign_key_check").fetchall()
        before = dict(database.execute("SELECT id, previous_id FROM turns WHERE status = 'completed'"))
        said = {row[0] for row in database.execute("SELECT turn_id FROM items WHERE output = 1")}
        lines: dict[str, set[str]] = {}
        for id_, head in database.execute("SELECT id, head FROM sessions"):
            line = lines[id_] = set[str]()
            while head is not None and head in before:
                line.add(head)
                head = before[head]
        nowhere = database.execute(
            "SELECT (SELECT count(*) FROM artifact_uses WHERE artifact_id NOT IN (SELECT id FROM artifacts))"
            " + (SELECT count(*) FROM artifacts a WHERE NOT EXISTS"
            " (SELECT 1 FROM blobs b WHERE b.tenant_id = a.tenant_id AND b.sha256 = a.sha256))"
            " + (SELECT count(*) FROM turns"
            " WHERE session_id IS NOT NULL AND session_id NOT IN (SELECT id FROM sessions))"
        ).fetchone()[0]
    lost = [id_ for id_, session in book.told.items() if id_ not in lines.get(session, ()) or id_ not in said]
    return lost, str(whole), len(broken) + int(nowhere)
