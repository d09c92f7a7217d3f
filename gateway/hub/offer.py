"""Which models a repository's GGUF files are: each with its parts, its quantization and its projector."""

import re
from pathlib import PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from gateway.hub import quantization
from gateway.hub.fit import memory
from gateway.hub.repo import Repo, RepoFile

_shard = re.compile(r"-(\d{5})-of-(\d{5})$")
_no_model = re.compile(r"imatrix|(^|[-_.])vocab([-_.]|$)|(^|[-_.])lora([-_.]|$)", re.IGNORECASE).search
_separators = re.compile(r"[^a-z0-9]+")
_IN_A_NAME = {"mmproj", "model", "gguf", ""}
"""Words of a projector's name that say nothing of the model it belongs to."""
PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""Which kind is taken, of several."""
PARTS_MAX = 999


class Offer(Struct, frozen=True, kw_only=True):
    """A model that can be had."""

    family: str
    """Which model it is, whatever its quantization."""
    quantization: str | None
    files: tuple[RepoFile, ...]
    """Its parts, in order."""
    projector: RepoFile | None = None

    @property
    def name(self) -> str:
        """As it is called when it is found in a folder."""
        return _shard.sub("", PurePosixPath(self.files[0].path).stem).lower()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files) + (self.projector.size_bytes if self.projector else 0)

    @property
    def sized(self) -> bool:
        """Whether its size is known."""
        return all(file.sized for file in self.files) and (self.projector is None or self.projector.sized)

    def memory_bytes(self, repo: Repo) -> int:
        return memory(
            self.size_bytes,
            parameters=repo.parameters,
            context=repo.context_length,
            architecture=repo.architecture,
        )


def offers(repo: Repo) -> list[Offer]:
    """All that are whole, the best quantization first."""
    groups: dict[tuple[str, str, int], dict[int, RepoFile]] = {}
    projectors: list[RepoFile] = []
    for file in repo.files:
        path = PurePosixPath(file.path)
        if path.suffix.lower() != ".gguf" or _no_model(path.stem):
            continue
        if "mmproj" in path.name.lower():
            projectors.append(file)
            continue
        shard = _shard.search(path.stem)
        number, of = (int(shard[1]), int(shard[2])) if shard else (1, 1)
        if 1 <= number <= of <= PARTS_MAX:
            groups.setdefault((str(path.parent), _shard.sub("", path.stem), of), {})[number] = file
    whole = [_offer(*key, parts) for key, parts in groups.items() if len(parts) == key[2]]
    families = {one.family for one in whole}
    seeing = [_seeing(one, projectors, alone=len(families) == 1) for one in whole]
    return sorted(seeing, key=lambda one: (one.family, quantization.rank(one.quantization), one.files[0].path))


def is_part(path: str) -> bool:
    """Whether this file is one of several that a model is cut into."""
    return _shard.search(PurePosixPath(path).stem) is not None


def _offer(folder: str, stem: str, _: int, parts: dict[int, RepoFile]) -> Offer:
    found = quantization.named(stem)
    name, family = (found[0], found[1]) if found else (None, stem)
    if name is None and (outer := quantization.named(PurePosixPath(folder).name)):
        name = outer[0]
    return Offer(family=_key(family), quantization=name, files=tuple(parts[n] for n in sorted(parts)))


def _key(stem: str) -> str:
    return "-".join(filter(None, _separators.split(stem.lower())))


def _seeing(offer: Offer, projectors: list[RepoFile], *, alone: bool) -> Offer:
    """The model with the projector that belongs to it: by its name, or because there is no other model."""
    own = set(offer.family.split("-"))
    fitting = [one for one in projectors if (said := _said(one)) <= own and (said or alone)]
    fitting = fitting or (projectors if alone else [])
    if not fitting:
        return offer
    nearest = max(len(_said(one)) for one in fitting)
    best = min((one for one in fitting if len(_said(one)) == nearest), key=_preference)
    return replace(offer, projector=best)


def _said(projector: RepoFile) -> set[str]:
    """The words of a projector's name that say whose it is."""
    stem = PurePosixPath(projector.path).stem
    found = quantization.named(stem)
    return set(_separators.split((found[1] if found else stem).lower())) - _IN_A_NAME


def _preference(projector: RepoFile) -> tuple[int, int, str]:
    found = quantization.named(PurePosixPath(projector.path).stem)
    kind = found[0] if found else None
    # The first two are as good as each other.
    place = max(PROJECTORS.index(kind), 1) if kind in PROJECTORS else len(PROJECTORS)
    return place, projector.size_bytes, projector.path
