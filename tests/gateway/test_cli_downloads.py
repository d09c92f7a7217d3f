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

from tests.gateway.downloads.world import FILE, NAME, REPO, World, large, repository, world
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


def test_who_detaches_does_not_wait(there: World) -> None:
    command = ("models", "download", LARGE, "--name", "later", "--detach", "--json", "--url", there.gateway.url)
    job = json.loads(run(*command).stdout)
    assert job["status"] in ("queued", "running")
    assert run("jobs", "cancel", job["id"], "--url", there.gateway.url).returncode == 0


def test_what_cannot_be_had_is_refused_in_the_gateways_words(there: World) -> None:
    done = run("models", "download", "acme/nothing", "--url", there.gateway.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "acme/nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    both = run("models", "download", REPO, "--file", FILE, "--quantization", "Q8_0", "--url", there.gateway.url)
    assert both.returncode == 2


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


def test_storage_is_shown_and_cleaned(there: World) -> None:
    url = there.gateway.url
    downloaded(there)
    shown = run("storage", "show", "--url", url)
    assert shown.stdout.startswith("models: ")
    assert any(line.startswith(MODEL) for line in shown.stdout.splitlines())
    assert json.loads(run("storage", "show", "--json", "--url", url).stdout)["object"] == "storage"
    lost = there.root / "acme--lost" / "0123456789ab" / "lost.gguf"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"GGUF" * 500_000)
    assert "lost.gguf, 2 MiB" in run("storage", "show", "--url", url).stdout
    dry = run("storage", "clean", "--dry-run", "--url", url)
    assert (dry.returncode, dry.stdout) == (0, "nothing would be freed\n"), "it is too young"
    assert run("storage", "clean", "--url", url).stdout == "nothing was freed\n"
    assert json.loads(run("storage", "clean", "--dry-run", "--json", "--url", url).stdout)["dry_run"] is True


def test_without_a_gateway_a_scan_tells_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hollow.gguf").write_bytes(b"")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data_dir: {tmp_path}\nserver: {{port: 9}}\n"
        f"backends: {{local: {{kind: local, model_dirs: [{tmp_path / 'models'}]}}}}\n"
    )
    done = run("models", "scan", "--config", str(config))
    assert done.returncode == 0
    assert any(line.startswith("local/smollm2-135m-instruct") for line in done.stdout.splitlines())
    assert any("hollow.gguf" in line and line.startswith("not served: ") for line in done.stdout.splitlines())
    told = json.loads(run("models", "scan", "--json", "--config", str(config)).stdout)
    assert [one["kind"] for one in told["problems"]] == ["empty"]


def test_where_no_gateway_runs_a_download_says_how_to_start_one() -> None:
    done = run("models", "download", REPO, "--url", "http://127.0.0.1:9")
    assert (done.returncode, "pluggably serve" in done.stderr) == (1, True)
