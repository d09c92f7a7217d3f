"""How much of a download is here, over all of its files."""

from collections.abc import Callable

from gateway.downloads.plan import Plan
from gateway.jobs.job import Progress, Report


class Tally:
    """Rate and time to go are the jobs' own to reckon."""

    def __init__(self, plan: Plan, report: Report, share: Callable[[str, float | None], None]) -> None:
        """share: told how far the model is, 0 to 1, for whoever looks at it."""
        self._report = report
        self._share = share
        self._target = plan.target
        self._sizes = {file.path: file.size_bytes for file in plan.files}
        self._total = plan.size_bytes
        self._here = dict.fromkeys(self._sizes, 0)
        self._whole: set[str] = set()
        self._file: str | None = None

    def begin(self, here: dict[str, int]) -> None:
        """Tell what was there before."""
        self._here |= here
        self.say("downloading")

    def at(self, path: str, size_bytes: int) -> None:
        """So much of a file is here."""
        self._file, self._here[path] = path, min(size_bytes, self._sizes[path])
        self.say("downloading")

    def whole(self, path: str) -> None:
        """It is here, and what its hash says."""
        self._here[path] = self._sizes[path]
        self._whole.add(path)
        self.say("downloading")

    def say(self, phase: str) -> None:
        done = sum(self._here.values())
        self._share(self._target, done / self._total if self._total else None)
        self._report(
            Progress(
                phase=phase,
                bytes_done=done,
                bytes_total=self._total,
                file=self._file if phase in ("downloading", "verifying") else None,
                files_done=len(self._whole),
                files_total=len(self._sizes),
            )
        )
