"""`pluggably models search|download|remove|…` and `pluggably storage …`, as processes before a gateway and a hub."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.downloads.world import FILE, NAME, REPO, World, large, ranker, repository, world
from tests.gateway.test_cli import run
from tests.http import until
from tests.hub import HubRepo
from tests.process import ROOT

MODEL, LARGE = f"local/{NAME}", "acme/large-gguf"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    repos = (
        repository(),
        repository(LARGE, {FILE: large(96)}),
        HubRepo("org/small-GGUF", {"s-Q4_0.gguf": b"s"}, tags=["gguf"], pipeline_tag="text-generation", license="mit"),
    )
    with world(tmp_path_factory.mktemp("cli"), *repos, hub={"bytes_per_s": "4MiB"}) as one:
        yield one


def downloaded(there: World) -> None:
    if there.listed() is None:
        assert run("models", "download", REPO, "--name", NAME, "--url", there.gateway.url).returncode == 0


def test_a_model_is_found_downloaded_and_removed(there: World) -> None:
    url = there.gateway.url
    head, *lines = run("models", "search", "small", "--url", url).stdout.splitlines()
    assert head.split() == ["REPO", "MODALITY", "SIZE", "FIT", "DOWNLOADS", "LICENCE"]
    assert any(line.startswith("org/small-GGUF") and "mit" in line for line in lines)
    done = run("models", "download", REPO, "--name", NAME, "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{MODEL}: downloaded, ")
    assert any(line.startswith(MODEL) for line in run("models", "scan", "--url", url).stdout.splitlines())
    again = json.loads(run("models", "download", REPO, "--name", NAME, "--json", "--url", url).stdout)
    assert (again["object"], again["status"]) == ("job", "done")
    removed = run("models", "remove", MODEL, "--files", "--url", url)
    assert (removed.returncode, removed.stdout.startswith(f"{MODEL}: removed")) == (0, True)
    assert there.listed() is None


def test_a_terminal_is_shown_a_bar_and_an_interrupt_leaves_the_job(there: World) -> None:
    url = there.gateway.url
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway", "models", "download", LARGE, "--name", "large", "--url", url]
    process = subprocess.Popen(command, cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE, text=True)
    os.close(theirs)
    shown = ""
    while "MiB/s" not in shown:
        shown += os.read(ours, 65536).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    shown += os.read(ours, 65536).decode()
    os.close(ours)
    assert process.stdout is not None
    process.stdout.close()
    assert "local/large: downloading" in shown
    assert " left" in shown
    assert "of 96 MiB" in shown
    id_ = shown.split("pluggably jobs cancel ")[1].split()[0]
    assert there.job(id_)["status"] == "running"
    listed = run("jobs", "list", "--url", url).stdout.splitlines()
    assert listed[0].split() == ["ID", "KIND", "TARGET", "STATUS", "DONE", "SIZE", "CREATED"]
    assert listed[1].split()[:4] == [id_, "download", "local/large", "running"]
    assert "paused" in run("jobs", "pause", id_, "--url", url).stdout
    assert json.loads(run("jobs", "resume", id_, "--json", "--url", url).stdout)["id"] == id_
    following = subprocess.Popen(
        [sys.executable, "-m", "gateway", "jobs", "status", id_, "--follow", "--url", url],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: there.job(id_)["status"] == "running")
    time.sleep(1.0)  # it watches by now, or is told the same
    cancelled = run("jobs", "cancel", id_, "--url", url)
    assert (cancelled.returncode, "cancelled" in cancelled.stdout) == (0, True)
    _, said = following.communicate(timeout=10)
    assert (following.returncode, said) == (1, f"pluggably: The job {id_} was cancelled.\n")
    over = run("jobs", "resume", id_, "--url", url)
    assert (over.returncode, over.stdout) == (1, "")
    assert "cannot be resumed" in over.stderr


def test_who_detaches_does_not_wait_and_who_asks_again_goes_on(there: World) -> None:
    url = there.gateway.url
    command = ("models", "download", LARGE, "--name", "later", "--detach", "--json", "--url", url)
    job = json.loads(run(*command).stdout)
    assert job["status"] in ("queued", "running")
    removed = run("models", "remove", "local/later", "--url", url)
    assert (removed.returncode, f"pluggably jobs cancel {job['id']}" in removed.stderr) == (1, True)
    assert run("jobs", "pause", job["id"], "--url", url).returncode == 0
    listed = run("models", "list", "--url", url).stdout.splitlines()
    assert any(line.startswith("local/later ") and line.split()[-1] == "paused" for line in listed)
    assert any(line.startswith("paused: local/later: ") and "jobs resume" in line for line in listed)
    for what in ((LARGE, "--name", "later"), ("local/later",)):
        again = run("models", "download", *what, "--detach", "--json", "--url", url)
        assert "it goes on" in again.stderr
        assert json.loads(again.stdout)["id"] == job["id"]
        there.until(job["id"], lambda one: one["status"] == "running")
        run("jobs", "pause", job["id"], "--url", url)
    assert run("jobs", "cancel", job["id"], "--url", url).returncode == 0


def test_what_failed_is_told_with_its_reason(there: World) -> None:
    url = there.gateway.url
    there.hub.repos["acme/broken-gguf"] = repository("acme/broken-gguf", {FILE: b"this is no model at all"})
    failed = run("models", "download", "acme/broken-gguf", "--name", "broken", "--url", url)
    assert (failed.returncode, failed.stdout) == (1, "")
    code = failed.stderr.rpartition("(")[2].rstrip(")\n")
    assert f"failed ({code})" in run("jobs", "list", "--status", "failed", "--url", url).stdout
    lines = run("models", "list", "--status", "failed", "--url", url).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["local/broken", "failed:"]
    assert lines[1].startswith("failed: local/broken: ")
    again = run("models", "download", "local/broken", "--url", url)
    assert (again.returncode, again.stderr) == (1, failed.stderr), "it is tried again"
    assert run("models", "remove", "local/broken", "--url", url).returncode == 0


def test_what_cannot_be_had_is_refused_in_the_gateways_words(there: World) -> None:
    done = run("models", "download", "acme/nothing", "--url", there.gateway.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "acme/nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    both = run("models", "download", REPO, "--file", FILE, "--quantization", "Q8_0", "--url", there.gateway.url)
    assert both.returncode == 2
    taken = run("models", "download", "org/small-GGUF", "--name", "smollm2-135m-instruct", "--url", there.gateway.url)
    assert (taken.returncode, "another --name" in taken.stderr) == (1, True)


def test_a_model_is_named_as_its_page_is(there: World) -> None:
    page = f"{there.hub.url}/{REPO}/blob/main/{FILE}"
    endpoint = {"PLUGGABLY__HUB__ENDPOINT": there.hub.url}
    done = run("models", "download", page, "--name", "paged", "--url", there.gateway.url, **endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    other = run("models", "download", f"{REPO}:Q4_K_M", "--url", there.gateway.url)
    assert (other.returncode, "no quantization 'Q4_K_M'" in other.stderr) == (1, True)
    assert run("models", "remove", "local/paged", "--url", there.gateway.url).returncode == 0


def test_what_is_said_of_a_model_is_changed(there: World) -> None:
    url = there.gateway.url
    downloaded(there)
    said = ("--alias", "noisy", "--tag", "small", "--default", "top_p=0.5", "--summary", "Ranks.", "--pin")
    done = run("models", "set", MODEL, *said, "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{MODEL}: aliases noisy; tags small; ")
    listed = run("models", "list", "--tag", "small", "--url", f"{url}/v1/").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["MODEL", MODEL]
    assert (listed[0].split()[-1], listed[1].split()[-1]) == ("ALIASES", "noisy")
    more = ("--default", "temperature=0", "--default", "top_p=", "--unpin", "--alias", "", "--tag", "", "--json")
    told = json.loads(run("models", "set", "noisy", *more, "--url", url).stdout)
    assert (told["defaults"], told["pinned"], told["aliases"], told["tags"]) == ({"temperature": 0}, False, [], [])
    wrong = run("models", "set", MODEL, "--tag", "x" * 99, "--url", url)
    assert (wrong.returncode, "Invalid value for --tag" in wrong.stderr) == (1, True)
    assert run("models", "set", MODEL, "--default", "temperature=", "--hide", "--url", url).returncode == 0
    assert there.listed() is None
    assert run("models", "set", MODEL, "--show", "--url", url).returncode == 0
    assert there.listed() is not None
    assert run("models", "set", MODEL, "--url", url).returncode == 1


def test_the_registry_is_written_to_a_file_and_read_again(there: World, tmp_path: Path) -> None:
    url = there.gateway.url
    downloaded(there)
    file = tmp_path / "registry.json"
    assert run("models", "export", str(file), "--url", url).returncode == 0
    assert MODEL in {one["id"] for one in json.loads(file.read_text())["models"]}
    assert list(tmp_path.iterdir()) == [file]
    assert json.loads(run("models", "export", "--url", url).stdout)["object"] == "registry"
    read = run("models", "import", str(file), "--url", url)
    assert (read.returncode, read.stdout.startswith("0 created, 0 updated, ")) == (0, True)
    named = run("models", "register", "local/known", "--repo", REPO, "--file", FILE, "--url", url)
    assert named.stdout == "local/known: registered\n"
    assert run("models", "remove", "local/known", "--url", url).returncode == 0
    file.write_text("{")
    for faulty, word in ((file, "no JSON"), (tmp_path / "nowhere", "No such file")):
        done = run("models", "import", str(faulty), "--url", url)
        assert (done.returncode, word in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    away = run("models", "export", str(tmp_path / "no" / "folder.json"), "--url", url)
    assert (away.returncode, "Traceback" in away.stderr) == (1, False)


def test_versions_are_looked_after(there: World) -> None:
    downloaded(there)
    done = run("models", "update", MODEL, "--url", there.gateway.url)
    assert (done.returncode, "up to date" in done.stdout) == (0, True)
    back = run("models", "rollback", MODEL, "--url", there.gateway.url)
    assert (back.returncode, back.stdout, len(back.stderr.splitlines())) == (1, "", 1)
    first = there.hub.repos[REPO].commits[-1].id
    second = there.hub.repos[REPO].push({FILE: ranker() + b"2" * 64})
    newer = run("models", "update", MODEL, "--url", there.gateway.url)
    assert (newer.returncode, newer.stdout.startswith(f"{MODEL}: downloaded, ")) == (0, True), newer.stderr
    model = there.listed()
    assert model is not None
    assert model["version"] == second
    back = run("models", "rollback", MODEL, "--url", there.gateway.url)
    assert (back.returncode, back.stdout) == (0, f"{MODEL} went back: {first[:12]} is served\n")
    forth = run("models", "rollback", MODEL, "--commit", second[:12], "--url", there.gateway.url)
    assert forth.stdout == f"{MODEL} went back: {second[:12]} is served\n"


def test_storage_is_shown_and_cleaned(there: World) -> None:
    url = there.gateway.url
    downloaded(there)
    shown = run("storage", "show", "--url", url)
    assert shown.stdout.startswith("models: ")
    assert "to come" not in shown.stdout, "nothing is on its way"
    assert any(line.startswith(MODEL) for line in shown.stdout.splitlines())
    assert json.loads(run("storage", "show", "--json", "--url", url).stdout)["object"] == "storage"
    lost = there.root / "acme--lost" / "0123456789ab" / "lost.gguf"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"GGUF" * 500_000)
    assert "lost.gguf, 2 MiB" in run("storage", "show", "--url", url).stdout
    dry = run("storage", "clean", "--dry-run", "--url", url)
    assert (dry.returncode, dry.stdout) == (0, "nothing would be freed\n"), "it is too young"
    assert run("storage", "clean", "--yes", "--url", url).stdout == "nothing was freed\n"
    assert json.loads(run("storage", "clean", "--json", "--url", url).stdout)["dry_run"] is True
    there.hub.repos["acme/cut-gguf"] = repository("acme/cut-gguf", {FILE: large(3)})
    assert run("models", "download", "acme/cut-gguf", "--name", "cut", "--url", url).returncode == 0
    (cut,) = (there.root / "acme--cut-gguf").rglob("*.gguf")
    os.truncate(cut, 2 << 20)
    asked = run("storage", "clean", "--url", url)
    assert (asked.returncode, asked.stdout.splitlines()[-1]) == (0, "2 MiB would be freed")
    assert ("pluggably storage clean --yes" in asked.stderr, cut.exists()) == (True, True)
    done = run("storage", "clean", "--yes", "--url", url)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "2 MiB was freed")
    assert (cut.exists(), lost.exists()) == (False, True)


def test_without_a_gateway_a_scan_tells_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hollow.gguf").write_bytes(b"")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data_dir: {tmp_path}\nserver: {{port: 9}}\n"
        f"backends: {{local: {{kind: local, model_dirs: [{tmp_path / 'models'}]}}}}\n"
    )
    done = run("models", "scan", "--config", str(config))
    assert (done.returncode, "pluggably serve" in done.stderr) == (0, True)
    assert any(line.startswith("local/smollm2-135m-instruct") for line in done.stdout.splitlines())
    assert any("hollow.gguf" in line and line.startswith("not served: ") for line in done.stdout.splitlines())
    told = json.loads(run("models", "scan", "--json", "--config", str(config)).stdout)
    assert [one["kind"] for one in told["problems"]] == ["empty"]


def test_where_no_gateway_runs_a_download_says_how_to_start_one() -> None:
    done = run("models", "download", REPO, "--url", "http://127.0.0.1:9")
    assert (done.returncode, "pluggably serve" in done.stderr) == (1, True)
