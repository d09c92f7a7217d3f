"""`pluggably jobs list|status|pause|resume|cancel`: long work of a running gateway; and following a job to its end."""

import argparse
import sys
import time
from functools import partial
from typing import Any

from gateway.commands.remote import WORK_S, Gateway, Refused, Unanswered, add_command, note, say, say_json, size, table
from gateway.commands.words import spoken

LOOK_S = 0.5
"""How often a job is asked for that is followed."""
GONE_S = 120.0
"""How long a gateway may be gone meanwhile: it goes on with its jobs when it is back."""
_BAR = 30
_OVER = ("done", "failed", "cancelled")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands below `jobs`."""
    command = partial(add_command, commands)
    listing = command("list", _list, "List jobs, the newest first.")
    listing.add_argument("--status", help="only those that stand so: queued, running, paused, done, failed, cancelled")
    watching = command("status", _status, "Show how a job stands.")
    watching.add_argument("--follow", action="store_true", help="watch it to its end")
    told = {"pause": "Stop a job so that it can be gone on with.", "cancel": "End a job for good."}
    told["resume"] = "Go on with a job that is paused or has failed."
    verbs = [command(verb, partial(_act, verb), help_) for verb, help_ in told.items()]
    for sub in (watching, *verbs):
        sub.add_argument("id", metavar="ID")


def follow(gateway: Gateway, job: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """The job when it is over, or paused; a terminal is shown how far it is.  Raises Refused, where it did not succeed.

    Whoever is interrupted leaves it running, and is told how to end it.
    """
    shown = sys.stderr.isatty() and not quiet
    seen = time.monotonic()
    try:
        while job["status"] not in (*_OVER, "paused"):
            if shown:
                sys.stderr.write(f"\r\033[K{line(job)}")
                sys.stderr.flush()
            time.sleep(LOOK_S)
            try:
                job = gateway.ask("GET", f"/v1/jobs/{job['id']}")
                seen = time.monotonic()
            except Unanswered:
                if time.monotonic() - seen > GONE_S:
                    raise
    except KeyboardInterrupt:
        cure = f"To end it: pluggably jobs cancel {job['id']}"
        note(f"{_cleared(shown)}The job goes on in the gateway. {cure}")
        raise
    sys.stderr.write(_cleared(shown))
    if job["status"] == "failed":
        raise Refused(_why(job["error"]))
    if job["status"] != "done":
        raise Refused(f"The job {job['id']} was {job['status']}.")
    return job


def line(job: dict[str, Any]) -> str:
    """How far a job is, on one line."""
    told = job["progress"]
    done, total = told["bytes_done"], told["bytes_total"]
    what = told["phase"] if job["status"] == "running" and told["phase"] else job["status"]
    facts = [f"{job['target'] or job['id']}: {what}"]
    if total:
        part = min(1.0, done / total)
        facts.append(f"{part:4.0%} [{'#' * round(part * _BAR):{_BAR}}] {size(done)} of {size(total)}")
    if told["bytes_per_s"]:
        facts.append(f"{told['bytes_per_s'] / 2**20:.1f} MiB/s")
    if told["eta_s"] is not None:
        facts.append(f"{_duration(told['eta_s'])} left")
    return "  ".join(facts)


def tell(asked: argparse.Namespace, job: dict[str, Any]) -> None:
    if asked.json:
        say_json(job)
        return
    say(f"{job['id']}  {line(job)}")
    if job["error"] is not None:
        say(f"  {_why(job['error'])}")


def going_on(gateway: Gateway, job: dict[str, Any]) -> dict[str, Any]:
    """The job; one that is paused is gone on with, and that is told: somebody asks for what it does."""
    if job["status"] != "paused":
        return job
    note(f"The job {job['id']} was paused: it goes on.")
    resumed: dict[str, Any] = gateway.ask("POST", f"/v1/jobs/{job['id']}/resume", {}, WORK_S)
    return resumed


def of_model(gateway: Gateway, id_: str) -> dict[str, Any] | None:
    """The job that is not over and has to do with a model."""
    standing = (one for status in ("running", "queued", "paused") for one in gateway.all("/v1/jobs", status=status))
    return next((one for one in standing if one["target"] == id_), None)


def _why(error: dict[str, Any]) -> str:
    return f"{spoken(error['message'])} ({error['code']})"


def _list(asked: argparse.Namespace) -> None:
    found = Gateway(asked).all("/v1/jobs", status=asked.status)
    if asked.json:
        say_json(found)
        return
    if not found:
        note("No jobs.")
        return
    table([("ID", "KIND", "TARGET", "STATUS", "DONE", "SIZE", "CREATED"), *map(_line, found)])


def _line(job: dict[str, Any]) -> tuple[str, ...]:
    done, total = job["progress"]["bytes_done"], job["progress"]["bytes_total"]
    far = f"{min(1.0, done / total):.0%}" if total else "-"
    status = job["status"] if job["error"] is None else f"{job['status']} ({job['error']['code']})"
    return job["id"], job["kind"], job["target"] or "-", status, far, size(total), job["created_at"]


def _status(asked: argparse.Namespace) -> None:
    gateway = Gateway(asked)
    job = gateway.ask("GET", f"/v1/jobs/{asked.id}")
    tell(asked, follow(gateway, job, quiet=asked.json) if asked.follow else job)


def _act(verb: str, asked: argparse.Namespace) -> None:
    tell(asked, Gateway(asked).ask("POST", f"/v1/jobs/{asked.id}/{verb}", {}, WORK_S))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _cleared(shown: bool) -> str:
    return "\r\033[K" if shown else ""
