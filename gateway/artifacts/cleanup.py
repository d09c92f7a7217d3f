"""What is removed by itself: artifacts that have expired, and bytes that no artifact has.

What a write that was cut off has left is in the store, and nobody knows of it: it is an orphan, which goes when it is
older than its grace.  Only what is called as our own objects are is ever taken for one.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.artifacts.store import Stored
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.artifacts import Artifacts

REASONS = ("expired", "orphan")
FIRST_S = 2.0
"""How long after the start it is looked first: not while others want to start as well."""
EVERY_S = 60.0
LIST_S = 3600.0
"""How often all of the store is listed: a bucket's server is paid for it."""
LISTED = 500
"""Objects that are looked up at a time."""
_is_ours = re.compile(r"[0-9a-f]{16}/[0-9a-f]{32}").fullmatch


def folder_of(tenant: str) -> str:
    """What a tenant's objects begin with: its name may be anything."""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:16]


async def watch(artifacts: "Artifacts", grace_s: Callable[[], float]) -> None:
    await asyncio.sleep(FIRST_S * random.uniform(1, 2))  # noqa: S311  several gateways on one store take turns
    listed: float | None = None
    while True:
        try:
            await expire(artifacts)
            if listed is None or time.monotonic() - listed >= LIST_S:
                await sweep(artifacts, grace_s())
                listed = time.monotonic()
            count, size = await artifacts.rows.totals()
            artifacts.figures = {"count": count, "bytes": size}
        except Exception as e:
            logger().error("artifacts_sweep_failed", error=type(e).__name__)
        await asyncio.sleep(EVERY_S)


async def expire(artifacts: "Artifacts") -> int:
    """Remove the artifacts whose time is over and that no session holds, with their bytes; how many of these."""
    gone = 0
    while blobs := await artifacts.rows.expire(time.time()):
        for blob in blobs:
            await artifacts.free(blob)
        gone += len(blobs)
    _tell(artifacts, "expired", gone)
    return gone


async def sweep(artifacts: "Artifacts", grace_s: float) -> int:
    """Remove what is older than its grace and that no artifact has; how many objects."""
    before = time.time() - grace_s
    gone = await artifacts.store.clear(before)
    while blobs := await artifacts.rows.unused(before):
        freed = sum([await artifacts.free(blob) for blob in blobs])
        gone += freed
        if not freed:
            break  # all of them are wanted by now
    page: list[Stored] = []
    async for found in artifacts.store.list():
        if _is_ours(found.key) and found.modified_at.timestamp() < before:
            page.append(found)
        if len(page) >= LISTED:
            gone += await _orphans(artifacts, page)
            page = []
    gone += await _orphans(artifacts, page)
    _tell(artifacts, "orphan", gone)
    return gone


async def _orphans(artifacts: "Artifacts", page: list[Stored]) -> int:
    known = await artifacts.rows.known([one.key for one in page]) if page else set()
    orphans = [one.key for one in page if one.key not in known]
    for key in orphans:
        await artifacts.store.delete(key)
    return len(orphans)


def _tell(artifacts: "Artifacts", reason: str, gone: int) -> None:
    if gone:
        artifacts.removed[reason] += gone
        logger().info("artifacts_removed", reason=reason, count=gone)
