"""Tells what lies in the folder of models, and what was removed, as clients read it."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from gateway.registry.entry import Entry
from gateway.storage.inventory import View, pinned, versions
from gateway.storage.report import (
    Removed,
    StorageReport,
    StoredModel,
    StoredOrphan,
    StoredPartial,
    StoredVersion,
)
from gateway.storage.retention import Policy, Removal, Thing


def report(
    view: View,
    policy: Policy,
    entries: Iterable[Entry],
    *,
    keep: str,
    used: Collection[str],
    pins: Collection[str],
    jobs: Collection[str],
) -> StorageReport:
    """Everything that lies there.

    used: the models that are in use.  jobs: those that may be named.
    """
    of: defaultdict[str, list[Thing]] = defaultdict(list)
    partials, orphans = [], []
    for thing in view.inventory.things:
        if thing.kind == "partial":
            partials.append(thing)
        elif thing.kind == "orphan":
            orphans.append(thing)
        elif thing.model is not None:
            of[thing.model].append(thing)
    by_id = {entry.id: entry for entry in entries}
    models = [_model(by_id[id_], things, used, pins) for id_, things in sorted(of.items()) if id_ in by_id]
    registered = {path: size for things in of.values() for thing in things for path, size in thing.files}
    return StorageReport(
        models_bytes=sum(registered.values()),
        partials_bytes=sum(thing.size_bytes for thing in partials),
        orphans_bytes=sum(thing.size_bytes for thing in orphans),
        limit_bytes=policy.limit_bytes,
        reserved_bytes=view.room().reserved_bytes,
        free_bytes=view.free_bytes,
        min_free_bytes=policy.min_free_bytes,
        disk_bytes=view.disk_bytes,
        keep=keep,
        models=models,
        partials=[
            StoredPartial(
                path=thing.path,
                size_bytes=thing.size_bytes,
                model=thing.model if thing.job in jobs else None,
                job=thing.job if thing.job in jobs else None,
                written_at=_moment(thing.used_at),
            )
            for thing in partials
        ],
        orphans=[
            StoredOrphan(path=thing.path, size_bytes=thing.size_bytes, written_at=_moment(thing.used_at))
            for thing in orphans
        ],
    )


def removed(removal: Removal) -> Removed:
    thing = removal.thing
    return Removed(
        path=thing.path,
        model=thing.model,
        kind=thing.kind,
        size_bytes=removal.size_bytes,
        reason=removal.reason,
        last_used_at=None if thing.last_used_at is None else _moment(thing.last_used_at),
    )


def _model(entry: Entry, things: list[Thing], used: Collection[str], pins: Collection[str]) -> StoredModel:
    here = {thing.commit: thing for thing in things}
    sizes = dict(pair for thing in things for pair in thing.files)
    return StoredModel(
        id=entry.id,
        size_bytes=sum(sizes.values()),
        files=len(sizes),
        last_used_at=None if entry.last_used_at is None else _moment(entry.last_used_at),
        pinned=pinned(entry, pins),
        in_use=entry.id in used,
        # Whether it is in memory too is for /v1/models to say.
        status="here" if entry.status == "ready" else entry.status,
        protected=things[0].kept,
        versions=[
            StoredVersion(
                commit=version.commit,
                size_bytes=thing.size_bytes,
                files=len(thing.files),
                added_at=_moment(version.added_at),
                served=served,
                truncated=thing.kind == "truncated",
            )
            for version, served in versions(entry)
            if (thing := here.get(version.commit)) is not None
        ],
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(int(at), UTC)
