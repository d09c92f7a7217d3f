"""Which files of a repository a model is made of: one that was named, one of the quantization wanted, or the best that
fits this machine.  What could run code is refused here, before a byte is fetched."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from backends.ports import Format
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from gateway.hub import quantization
from gateway.hub.fit import ENCODERS, OVERHEAD, Fit, fit, pipeline_memory
from gateway.hub.folder import folder_of
from gateway.hub.offer import Offer, is_part, offers
from gateway.hub.repo import Repo, RepoFile, words
from gateway.hub.safety import INDEX, PICKLES, check_files, check_harmless, check_path, unsafe

BEST_FIT = frozenset({"best fit", "best-fit", "best_fit", "auto"})
_LISTED = 12
_PIPELINES: dict[str, Modality] = {
    "feature-extraction": "embedding",
    "sentence-similarity": "embedding",
    "text-ranking": "rerank",
}
_PICTURES = ("text-to-image", "image-to-image", "text-to-video", "image-to-video", "unconditional-image-generation")
_PICTURE_ARCHITECTURES = frozenset({"flux", "sd1", "sd3", "sdxl", "wan", "ltxv", "hidream", "lumina2", "qwen_image"})
_FITS: dict[Fit, str] = {
    "fits": "it fits this machine",
    "tight": "it is a tight fit on this machine",
    "no": "none fits this machine's memory for models, this is the smallest",
}


class Wanted(Struct, frozen=True, kw_only=True):
    """What a client asks to have downloaded."""

    repo: str
    file: str | None = None
    """A path inside the repository; of a split file any part."""
    quantization: str | None = None
    """`Q4_K_M`; `best fit` or None: the best that fits this machine."""
    revision: str | None = None


class Choice(Struct, frozen=True, kw_only=True):
    """A model to be made of a repository's files."""

    name: str
    """What it is to be called here, unless somebody says otherwise."""
    format: Format
    modality: Modality
    files: tuple[RepoFile, ...]
    """All that is needed, what the engine opens first."""
    opens: str
    """Path inside the repository of what the engine opens: a file, or `` for the whole folder."""
    projector: str | None = None
    quantization: str | None = None
    size_bytes: int
    """Without the files whose sizes are not known."""
    memory_bytes: int | None = None
    """An estimate; None where a size is not known."""
    fit: Fit | None = None
    """Into the memory that models may take."""
    reason: str
    """Why these, in words."""


def choose(repo: Repo, wanted: Wanted, *, memory_bytes: int) -> Choice:
    """memory_bytes: what models may take here.  Raises InvalidRequest that says what there is, or what is unsafe."""
    if wanted.file is not None:
        check_path(wanted.file)
    there = offers(repo)
    if wanted.file is not None and wanted.file != INDEX:
        return _of_offer(repo, _by_file(repo, there, wanted.file), memory_bytes, "the file that was asked for")
    if there and wanted.file is None:
        return _gguf(repo, wanted, there, memory_bytes)
    folder = folder_of(repo)
    if folder is None:
        raise _nothing(repo)
    if (kind := _kind(wanted.quantization)) is not None:
        raise InvalidRequest(
            f"The repository '{repo.id}' has no GGUF files, so there is no quantization '{words(kind, 40)}'; leave "
            "'quantization' out.",
            param="quantization",
        )
    check_files(folder.files)
    size, sized = sum(file.size_bytes for file in folder.files), all(file.sized for file in folder.files)
    memory = pipeline_memory(size) if folder.modality != "embedding" else int(size * OVERHEAD)
    return Choice(
        name=repo.id.rpartition("/")[2].lower(),
        format=folder.format,
        modality=folder.modality,
        files=folder.files,
        opens="",
        size_bytes=size,
        memory_bytes=memory if sized else None,
        fit=fit(memory, memory_bytes) if sized else None,
        reason=f"the folder's {len(folder.files)} files that are needed to run it",
    )


def best(repo: Repo, there: Sequence[Offer], memory_bytes: int) -> Offer:
    """Of these the best that fits comfortably, within reason; else the smallest."""
    if not any(one.sized for one in there):
        # Then the coarsest that is sensible is the likeliest to fit.
        return max(
            there, key=lambda one: (quantization.is_sensible(one.quantization), quantization.rank(one.quantization))
        )
    there = [one for one in there if one.sized]
    ordered = sorted(there, key=lambda one: (quantization.rank(one.quantization), -one.size_bytes))
    easy = [one for one in ordered if fit(one.memory_bytes(repo), memory_bytes) == "fits"]
    sensible = [one for one in easy if quantization.is_sensible(one.quantization)]
    finer = [one for one in easy if quantization.rank(one.quantization) < quantization.rank(quantization.BEST)]
    if sensible:
        return sensible[0]
    if finer:
        return finer[-1]
    return easy[0] if easy else min(there, key=lambda one: one.size_bytes)


def _kind(given: str | None) -> str | None:
    """The quantization that is meant, or None for the best."""
    given = (given or "").strip()
    return None if not given or given.lower() in BEST_FIT else given


def _gguf(repo: Repo, wanted: Wanted, there: list[Offer], memory_bytes: int) -> Choice:
    kind = _kind(wanted.quantization)
    if kind is None:
        _check_single(repo, there)
        found = best(repo, there, memory_bytes)
        verdict = _FITS[fit(found.memory_bytes(repo), memory_bytes)] if found.sized else "its size is not known"
        return _of_offer(repo, found, memory_bytes, verdict if len(there) > 1 else f"the only one there is; {verdict}")
    matching = _of_kind(there, kind)
    if not matching:
        raise InvalidRequest(
            f"The repository '{repo.id}' has no quantization '{words(kind, 40)}'; it has {_kinds(there)}.",
            param="quantization",
            code="invalid_value",
        )
    _check_single(repo, matching)
    return _of_offer(repo, matching[0], memory_bytes, "the quantization that was asked for")


def _of_kind(there: list[Offer], kind: str) -> list[Offer]:
    """Those of this quantization: by its whole name, or else whatever was done to make them (`UD-Q4_K_XL`)."""
    name = quantization.normal(kind)
    exact = [one for one in there if one.quantization == name]
    return exact or [one for one in there if (one.quantization or "").removeprefix("UD-") == name]


def _check_single(repo: Repo, there: list[Offer]) -> None:
    """Raises InvalidRequest where these are several models, so that it cannot be known which is meant."""
    if len({one.family for one in there}) > 1:
        several = [words(one.files[0].path, 150) for one in there[:_LISTED]]
        more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
        raise InvalidRequest(
            f"The repository '{repo.id}' has several models: name one by 'file'.  "
            f"There are {', '.join(several)}{more}.",
            param="file",
            code="missing_required_parameter",
        )


def _by_file(repo: Repo, there: list[Offer], path: str) -> Offer:
    found = next((one for one in there if any(file.path == path for file in one.files)), None)
    if found is not None:
        return found
    shown = words(path, 150)
    if not any(file.path == path for file in repo.files):
        near = [one.files[0].path for one in there if PurePosixPath(one.files[0].path).name.lower() == path.lower()]
        listed = [words(name, 150) for name in near or [one.files[0].path for one in there]]
        has = f"it has {', '.join(listed[:_LISTED])}" if listed else "it has no GGUF files"
        raise InvalidRequest(
            f"The repository '{repo.id}' has no file '{shown}' at this revision; {has}.",
            param="file",
            code="invalid_value",
        )
    check_harmless(path)
    if not path.lower().endswith(".gguf"):
        why = "is no GGUF file; a model in a folder is downloaded whole, without 'file'"
    elif "mmproj" in path.lower():
        why = "is a projector, which comes with its model: name that one"
    elif is_part(path):
        why = "is a part of a model whose other parts are not there"
    else:
        why = "is no model"
    raise InvalidRequest(f"The file '{shown}' {why}.", param="file", code="invalid_value")


def _of_offer(repo: Repo, offer: Offer, memory_bytes: int, reason: str) -> Choice:
    if makes_pictures(repo):
        raise InvalidRequest(
            f"'{repo.id}' makes images from GGUF, which nothing here can run; take a diffusers folder of safetensors.",
            param="repo",
        )
    files = (*offer.files, *((offer.projector,) if offer.projector else ()))
    check_files(files)
    need = offer.memory_bytes(repo)
    return Choice(
        name=offer.name,
        format="gguf",
        modality=modality_of(repo),
        files=files,
        opens=offer.files[0].path,
        projector=offer.projector.path if offer.projector else None,
        quantization=offer.quantization,
        size_bytes=offer.size_bytes,
        memory_bytes=need if offer.sized else None,
        fit=fit(need, memory_bytes) if offer.sized else None,
        reason=f"{offer.quantization or 'this file'}: {reason}",
    )


def makes_pictures(repo: Repo) -> bool:
    """Whether its GGUF files make images or films, for which nothing here has an engine."""
    return repo.pipeline in _PICTURES or (repo.architecture or "").lower() in _PICTURE_ARCHITECTURES


def modality_of(repo: Repo) -> Modality:
    """What its GGUF files make; those say so themselves, once they are here."""
    if (told := _PIPELINES.get(repo.pipeline or "")) is not None:
        return told
    if (repo.architecture or "").lower() in ENCODERS:
        return "rerank" if "rerank" in repo.id.lower() else "embedding"
    return "text"


def _kinds(there: Sequence[Offer]) -> str:
    names = list(dict.fromkeys(one.quantization or words(one.files[0].path, 150) for one in there))
    return ", ".join(names[: 3 * _LISTED])


def _nothing(repo: Repo) -> InvalidRequest:
    """Why nothing of this repository can be run here."""
    endings = {PurePosixPath(file.path).suffix.lower() for file in repo.files}
    if ".safetensors" in endings:
        return InvalidRequest(
            f"The repository '{repo.id}' has no GGUF, and its safetensors are no model that can be run here; a GGUF "
            f"conversion is usually at '{repo.id}-GGUF' or found by GET /v1/models/search.",
            param="repo",
        )
    if ".gguf" in endings:
        return InvalidRequest(
            f"The repository '{repo.id}' has no GGUF model that is whole: parts of it are missing.", param="repo"
        )
    if pickles := sorted(endings & PICKLES):
        return unsafe(
            f"The repository '{repo.id}' has its model only as {', '.join(pickles)}, which can run code when it is "
            "loaded; take one with GGUF or safetensors."
        )
    return InvalidRequest(f"The repository '{repo.id}' has no files of a model that can be run here.", param="repo")
