"""What is done with files once they are here: they are looked at, become a version of a model, and go again."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from backends.ports import Local
from compat.canonical.error import Corrupted, GatewayError
from gateway import discovery
from gateway.discovery.problem import Problem
from gateway.downloads.piece import part_at
from gateway.downloads.plan import Plan
from gateway.hub.safety import check_described, unsafe
from gateway.registry.entry import Entry, Version

KEPT = 2
"""Versions of a model that stay on the disk: the one in use, and the one before."""
DESCRIBED_MAX_BYTES = 4 << 20
"""Of a JSON file that is looked into for code."""


def landed(plan: Plan, root: Path) -> Local:
    """The model in the files that have come.  Reads them; for a thread.

    Raises InvalidRequest for what could run code, Corrupted for what is no sound model.
    """
    folder = plan.folder(root)
    for file in plan.files:
        if file.path.endswith(".json") and file.size_bytes <= DESCRIBED_MAX_BYTES:
            with contextlib.suppress(msgspec.MsgspecError):  # a model that needs it is refused by whoever reads it
                check_described(file.path, msgspec.json.decode((folder / file.path).read_bytes()))
    problems: list[Problem] = []
    local = discovery.at(plan.backend, folder / plan.opens, name=plan.name, problems=problems)
    if local is None:
        raise _refused(problems)
    return local


def _refused(problems: Collection[Problem]) -> GatewayError:
    worst = next(iter(problems), None)
    if worst is None:
        return Corrupted("What was downloaded is not a model that can be run here.", code="model_unreadable")
    if worst.kind == "unsafe":
        return unsafe(f"What was downloaded is refused: {worst.reason}")
    return Corrupted(f"What was downloaded cannot be run: {worst.reason}", code=f"model_{worst.kind}")


def version(plan: Plan, local: Local, root: Path, now: float) -> Version:
    projector = local.projector
    if projector is None and plan.projector is not None:
        projector = str(plan.folder(root) / plan.projector)
    return Version(
        commit=plan.commit,
        path=local.path,
        files=tuple(str(path) for path in plan.paths(root).values()),
        size_bytes=plan.size_bytes,
        added_at=now,
        projector=projector,
    )


def serving(entry: Entry, one: Version, now: float, plan: Plan | None = None, local: Local | None = None) -> Entry:
    """The model with this version in use; plan, local: what has become known of it meanwhile."""
    others = sorted((v for v in entry.versions if v.commit != one.commit), key=lambda v: v.added_at, reverse=True)
    used = next((v for v in others if v.path == entry.path), None)
    kept = [one, *([used] if used else []), *(v for v in others if v is not used)][:KEPT]
    source = entry.source if plan is None else plan.source
    entry = replace(
        entry,
        status="ready",
        reason=None,
        path=one.path,
        projector=one.projector,
        size_bytes=one.size_bytes,
        version=one.commit,
        source=None if source is None else replace(source, commit=one.commit),
        versions=tuple(sorted(kept, key=lambda v: v.added_at, reverse=True)),
        upstream=None,
        updated_at=now,
    )
    if plan is None or local is None:
        return entry
    model = local.model
    return replace(
        entry,
        format=local.format,
        modality=model.modality,
        quantization=model.quantization or plan.quantization,
        parameters=model.parameters or plan.parameters,
        context_length=model.context_length or plan.context_length,
        capabilities=model.capabilities,
        license=plan.license or model.license,
        gated=plan.gated,
        summary=entry.summary or plan.summary,
    )


def here(plan: Plan, root: Path) -> dict[str, int]:
    """How many bytes of each file are on the disk, whole or as a part."""
    found = {}
    for name, path in plan.paths(root).items():
        for candidate in (path, part_at(path)):
            with contextlib.suppress(OSError):
                found[name] = candidate.stat().st_size
                break
    return {file.path: min(found.get(file.path, 0), file.size_bytes) for file in plan.files}


def reuse(plan: Plan, root: Path) -> None:
    """Take what is the same in the commit that is replaced from there, without a copy where the disk can."""
    if plan.replaces is None:
        return
    sizes = {file.path: file.size_bytes for file in plan.files}
    for name in plan.unchanged:
        old, new = plan.folder(root, plan.replaces) / name, plan.folder(root) / name
        with contextlib.suppress(OSError):  # then it is fetched
            if new.exists() or old.stat().st_size != sizes[name]:
                continue
            new.parent.mkdir(parents=True, exist_ok=True)
            beside = new.with_name(f"{new.name}.part.linked")
            beside.unlink(missing_ok=True)
            try:
                os.link(old, beside)
            except OSError:
                shutil.copyfile(old, beside)
            beside.replace(new)


def remove(paths: Iterable[Path], root: Path) -> None:
    """Remove files, what there is of them unfinished, and the folders that are empty then."""
    for path in paths:
        if not path.is_relative_to(root):
            continue  # adopted: somebody else's
        for one in (
            path,
            part_at(path),
            path.with_name(f"{path.name}.part.json"),
            path.with_name(f"{path.name}.part.linked"),
        ):
            with contextlib.suppress(OSError):
                one.unlink()
        for folder in path.parents:
            if folder == root:
                break
            try:
                folder.rmdir()
            except OSError:
                break
