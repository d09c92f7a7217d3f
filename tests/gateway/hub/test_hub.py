"""The hub as we ask it, through the real `huggingface_hub`, before a hub on loopback."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    GatedRepo,
    GatewayError,
    InvalidRequest,
    NotFound,
    RateLimited,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from gateway import hub as package
from gateway.hub import Hub, catalogue
from gateway.hub.choice import Wanted, choose
from gateway.hub.repo import RepoFile
from gateway.keeping import Hub as Settings
from tests.hub import Handler, HubRepo, HubServer, Made, hub
from tests.hub.metadata import Lack, leave_out

CARD = b"---\nlicense: mit\n---\n# One\n\nA model that is made for these tests and does nothing.\n"
PIPELINE = b'{"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"]}'
TOKEN = "hf_me_canary_77"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    one = HubRepo(
        "org/one",
        {"README.md": CARD, "one-Q4_K_M.gguf": Made(3 << 20), "one-Q8_0.gguf": Made(5 << 20, 1)},
        license="mit",
        tags=["gguf", "bad\x1b[31m tag"],
        pipeline_tag="text-generation",
        gguf={"total": 135_000_000, "architecture": "llama", "context_length": 8192},
    )
    folder = {
        "model_index.json": PIPELINE,
        "vae/config.json": b'{"a": 1}',
        "vae/diffusion_pytorch_model.safetensors": b"0" * 99,
        "scheduler/scheduler_config.json": b"{}",
    }
    gated = HubRepo("org/gated", {"g.gguf": b"g", "README.md": CARD}, gated="manual", readers=["me"])
    private = HubRepo("org/private", {"p.gguf": b"p", "big.json": Made(2 << 20)}, private=True, readers=["me"])
    with hub(one, HubRepo("org/folder", folder), gated, private) as running:
        running.tokens |= {TOKEN: "me", "hf_you": "you"}
        yield running


def asking(server: HubServer, token: str | None = None) -> Hub:
    return Hub(Settings(endpoint=f"{server.url}/", token=token))


def sent(server: HubServer) -> str | None:
    """The token that came with the last question."""
    return server.requests[-1].token


async def error_of(hub: Hub, id_: str, revision: str | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await hub.repo(id_, revision)
    assert "127.0.0.1" not in caught.value.message or isinstance(caught.value, GatedRepo)
    assert TOKEN not in caught.value.message
    return caught.value


async def test_a_repository_is_told_with_sizes_and_hashes(server: HubServer) -> None:
    repo = await asking(server).repo("org/one")
    there = server.repos["org/one"]
    assert (repo.id, repo.commit, repo.license, repo.parameters) == ("org/one", there.commits[0].id, "mit", 135_000_000)
    assert (repo.context_length, repo.architecture, repo.pipeline) == (8192, "llama", "text-generation")
    assert repo.tags == ("gguf", "bad [31m tag", "license:mit")
    by_path = {file.path: file for file in repo.files}
    large = by_path["one-Q4_K_M.gguf"]
    assert (large.size_bytes, large.sha256, large.blob) == (3 << 20, there.files["one-Q4_K_M.gguf"].sha256, None)
    card = by_path["README.md"]
    assert (card.size_bytes, card.sha256, card.blob) == (len(CARD), None, there.files["README.md"].blob_id)
    assert choose(repo, Wanted(repo=repo.id), memory_bytes=1 << 30).opens == "one-Q8_0.gguf"


async def test_a_revision_is_a_branch_a_tag_or_a_commit(server: HubServer) -> None:
    there, hub = server.repos["org/one"], asking(server)
    first = there.commits[0].id
    second = there.push({"new.gguf": b"n"})
    there.git_tags["v1.0"] = first
    there.branches["refs/pr/1"] = first
    assert (await hub.repo("org/one")).commit == second
    for revision in ("v1.0", first, first[:8], "refs/pr/1"):
        assert (await hub.repo("org/one", revision)).commit == first
    error = await error_of(hub, "org/one", "v2")
    assert (type(error), error.param) == (NotFound, "revision")


async def test_what_is_known_serves_for_a_minute_unless_it_is_to_be_fresh(server: HubServer) -> None:
    hub = asking(server)
    first = await hub.repo("org/one")
    second = server.repos["org/one"].push({"new.gguf": b"n"})
    assert (await hub.repo("org/one")) == first
    assert len(server.asked("/api/models/org/one")) == 1
    assert (await hub.repo("org/one", fresh=True)).commit == second
    assert (await hub.repo("org/one")).commit == second


async def test_a_gated_repository_says_where_its_licence_is_and_what_is_missing(server: HubServer) -> None:
    page = f"{server.url}/org/gated"
    error = await error_of(asking(server), "org/gated")
    assert (type(error), error.status, error.code) == (GatedRepo, 403, "gated_repo")
    assert page in error.message
    assert "set hub.token (or HF_TOKEN)" in error.message
    error = await error_of(asking(server, "hf_you"), "org/gated")
    assert (type(error), page in error.message, "not been let in" in error.message) == (GatedRepo, True, True)
    repo = await asking(server, TOKEN).repo("org/gated")
    assert (repo.gated, repo.license_url) == (True, page)


async def test_a_mirror_that_does_not_know_who_may_read_is_asked_for_a_file(server: HubServer) -> None:
    leave_out(server, "auth-check")
    for token in (None, "hf_you"):
        assert isinstance(await error_of(asking(server, token), "org/gated"), GatedRepo)
    assert server.requests[-1].method == "HEAD"
    assert "/g.gguf" in server.requests[-1].path
    assert (await asking(server, TOKEN).repo("org/gated")).gated
    # Nor need it know HEAD.
    server.refuse("/org/gated/resolve", 405)
    assert (await asking(server).repo("org/gated")).gated


@pytest.mark.parametrize("status", [401, 403])
async def test_a_mirror_that_refuses_a_repository_without_a_word_is_gated(server: HubServer, status: int) -> None:
    for token in (None, TOKEN):
        server.refuse("/api/models/org/one", status)
        error = await error_of(asking(server, token), "org/one")
        assert (type(error), error.code, error.param) == (GatedRepo, "gated_repo", "repo")
    server.refuse("/api/models/org/one", 404)
    assert isinstance(await error_of(asking(server), "org/one"), NotFound)


@pytest.mark.parametrize(("status", "code"), [(401, "RepoNotFound"), (403, None), (404, "RepoNotFound")])
async def test_a_private_repository_that_may_be_seen_and_not_read_is_gated(
    server: HubServer, status: int, code: str | None
) -> None:
    server.refuse("/api/models/org/private/auth-check", status, code=code)
    server.refuse("/org/private/resolve", status, code=code)
    assert isinstance(await error_of(asking(server, TOKEN), "org/private"), GatedRepo)


@pytest.mark.parametrize(
    "lacks", [("files",), ("sizes", "hashes"), ("sizes", "hashes", "tree"), ("sizes", "tree"), ("hashes",)]
)
async def test_a_mirror_need_not_list_sizes_and_hashes(server: HubServer, lacks: tuple[Lack, ...]) -> None:
    whole = await asking(server).repo("org/one")
    server.requests.clear()
    leave_out(server, *lacks)
    there = asking(server)
    repo = await there.repo("org/one")
    assert repo.commit == whole.commit
    choice = choose(repo, Wanted(repo=repo.id), memory_bytes=1 << 30)
    assert (choice.opens, choice.size_bytes, choice.fit) == ("one-Q8_0.gguf", 5 << 20, "fits")
    assert await there.measured(repo, repo.files) == whole.files
    heads = [one for one in server.requests if one.method == "HEAD"]
    asked = len(server.requests)
    assert await there.measured(whole, whole.files) == whole.files
    assert len(server.requests) == asked
    # Only those of which something is not known are asked about, and each once.
    assert len({one.path for one in heads}) == len(heads)
    assert {one.cdn for one in heads} <= {False}
    assert bool(heads) == (lacks not in (("files",), ("sizes", "hashes")))


async def test_files_are_measured_within_bounds_and_refusals_are_told(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = replace(await asking(server).described("org/gated"), gated=False)
    bare = tuple(RepoFile(path=file.path, size_bytes=0, sized=False) for file in repo.files)
    for token, kind in ((None, GatedRepo), ("hf_you", GatedRepo), (TOKEN, None)):
        if kind is None:
            assert await asking(server, token).measured(repo, bare) == repo.files
            continue
        with pytest.raises(kind):
            await asking(server, token).measured(repo, bare)
    gone = (RepoFile(path="gone.gguf", size_bytes=0, sized=False),)
    with pytest.raises(NotFound):
        await asking(server, TOKEN).measured(repo, gone)
    # Of a model nothing is as good as no answer.
    server.fault("/org/gated/resolve", sends(b""))
    with pytest.raises(BadResponse):
        await asking(server).measured(repo, bare[-1:])
    monkeypatch.setattr(package, "DEADLINE_S", 0.3)
    server.hang("/org/gated/resolve", 1.0, times=9)
    with pytest.raises(TimedOut):
        await asking(server, TOKEN).measured(repo, bare)


async def test_a_mirror_that_sends_on_without_a_size_is_followed_without_the_token(server: HubServer) -> None:
    repo = await asking(server, TOKEN).repo("org/private")
    file = next(file for file in repo.files if file.path == "p.gguf")
    address = f"{server.cdn_url}/elsewhere"

    def send_on(handler: Handler) -> bool:
        handler.send_body(b"", status=302, headers={"location": address, "etag": f'"{file.sha256}"'})
        return True

    server.fault("/org/private/resolve", send_on)
    server.fault("/elsewhere", sends(b"p"), cdn=True)
    bare = RepoFile(path="p.gguf", size_bytes=0, sized=False)
    assert await asking(server, TOKEN).measured(repo, (bare,)) == (file,)
    assert [one.token for one in server.asked(cdn=True)] == [None]


async def test_a_mirror_may_name_commits_as_it_likes_and_a_repository_may_have_one_word(server: HubServer) -> None:
    old = server.add(HubRepo("gpt2", {"gpt2-Q4_0.gguf": b"g", "config.json": b"{}"}))
    old.commits[0] = replace(old.commits[0], id="2024.06-r_1")
    old.branches["main"] = "2024.06-r_1"
    leave_out(server, "sizes", "tree")
    for revision in (None, "main", "2024.06-r_1"):
        repo = await asking(server).repo("gpt2", revision)
        assert (repo.id, repo.commit, repo.files[1].size_bytes) == ("gpt2", "2024.06-r_1", 1)
    assert choose(repo, Wanted(repo="gpt2"), memory_bytes=1 << 30).name == "gpt2-q4_0"
    old.commits[0] = replace(old.commits[0], id="../2024")
    old.branches["main"] = "../2024"
    assert isinstance(await error_of(asking(server), "gpt2"), BadResponse)


def test_nobody_else_is_asked_anything(server: HubServer, tmp_path: Path) -> None:
    """Of a new process, all of whose other requests would go through a proxy."""
    code = (
        "import asyncio, sys\n"
        "from gateway.hub import Hub, catalogue\n"
        "from gateway.settings import Hub as Settings\n"
        "async def main():\n"
        "    hub = Hub(Settings(endpoint=sys.argv[1]))\n"
        "    await hub.listed({'search': 'one'})\n"
        "    repo = await hub.enrich(await hub.repo('org/one'))\n"
        "    await hub.measured(repo, repo.files)\n"
        "asyncio.run(main())\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        env = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            env[name] = env[name.upper()] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        subprocess.run([sys.executable, "-c", code, server.url], env=env, check=True, timeout=30)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    resolved = f"/org/one/resolve/{server.repos['org/one'].commits[0].id}/README.md"
    assert [urlsplit(one.path).path for one in server.requests] == ["/api/models", "/api/models/org/one", resolved]
    assert not list(tmp_path.iterdir())


async def test_a_private_repository_is_not_there_for_others(server: HubServer) -> None:
    for token in (None, "hf_you"):
        private = await error_of(asking(server, token), "org/private")
        missing = await error_of(asking(server, token), "org/none")
        assert isinstance(private, NotFound)
        assert private.message == missing.message.replace("none", "private")
    assert (await asking(server, TOKEN).repo("org/private")).private


async def test_the_token_is_the_configured_one_and_no_other(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hf_from_a_home")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    await asking(server).repo("org/one")
    assert sent(server) is None
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    await asking(server).repo("org/one")
    assert sent(server) == TOKEN
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert (await Hub(Settings(token="hf_you")).repo("org/one")).id == "org/one"
    assert sent(server) == "hf_you"
    assert server.requests[-1].headers["user-agent"] == "pluggably"
    assert isinstance(await error_of(asking(server, "hf_wrong"), "org/one"), AuthFailed)


@pytest.mark.parametrize(
    "id_", ["a--b", "org/one/two", "../one", "org/..", "org/a b", "org/a?b", "org/a#b", "/one", "org/", "-o/x", ""]
)
async def test_a_name_that_cannot_be_is_refused_unasked(server: HubServer, id_: str) -> None:
    error = await error_of(asking(server), id_)
    assert (type(error), error.param) == (InvalidRequest, "repo")
    assert not server.requests


@pytest.mark.parametrize("revision", ["../x", "a b", "", "x?y", "a//b", "x" * 300])
async def test_so_is_a_revision(server: HubServer, revision: str) -> None:
    error = await error_of(asking(server), "org/one", revision)
    assert (type(error), error.param) == (InvalidRequest, "revision")
    assert not server.requests


async def test_a_rate_limit_says_when_to_come_back_and_is_asked_once(server: HubServer) -> None:
    server.refuse("/api/", 429, retry_after="7")
    error = await error_of(asking(server), "org/one")
    assert (type(error), error.retry_after_s) == (RateLimited, 7)
    server.refuse("/api/", 429, ratelimit='"api";r=0;t=55')
    assert (await error_of(asking(server), "org/one")).retry_after_s == 55
    server.refuse("/api/", 429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    assert (await error_of(asking(server), "org/one")).retry_after_s is None
    assert len(server.requests) == 3


def sends(body: bytes, **headers: str):  # type: ignore[no-untyped-def]
    def act(handler: Handler) -> bool:
        handler.send_body(body, headers={"content-type": "application/json"} | headers)
        return True

    return act


ROW = b'{"id": "org/one", "sha": "%s", "siblings": [{"rfilename": "a", %s}]}'


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"7", b"null", b"{}", b'{"id": 7}', b'{"id": "org/one"}', b"[" * 100_000),
        *(ROW % (b"", b'"size": 1'), ROW % (b"a" * 65, b'"size": 1'), ROW % (b"a" * 40, b'"size": -1')),
        *(ROW % (b"a" * 40, b'"size": "x"'), ROW % (b"../../etc", b'"size": 1')),
        b'{"id": "org/../one", "sha": "aaaaaaaaaa", "siblings": []}',
        b'{"id": "org/one", "sha": "aaaaaaaaaa", "siblings": [7]}',
        b'{"id": "org/one", "sha": "aaaaaaaaaa", "siblings": [{"rfilename": 7, "size": 1}]}',
        b'{"id": "org/one", "sha": "aaaaaaaaaa", "siblings": [], "lastModified": "yesterday"}',
        b'{"id": "org/one", "sha": "aaaaaaaaaa", "siblings": [], "safetensors": 7}',
    ],
)
async def test_what_cannot_be_read_is_a_bad_response(server: HubServer, body: bytes) -> None:
    server.fault("/api/", sends(body))
    assert isinstance(await error_of(asking(server), "org/one"), BadResponse)


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.hub.session.PACKED_MAX", 1000)
    for packing in ("gzip", "zstd", "br"):
        server.fault("/api/", sends(b" " * 2000, **{"content-encoding": packing}))
        assert isinstance(await error_of(asking(server), "org/one"), BadResponse)
    repo = await asking(server, TOKEN).repo("org/private")
    asked = len(server.requests)
    with pytest.raises(BadResponse):
        await asking(server, TOKEN).contents(repo, "big.json")
    assert len(server.requests) == asked


@pytest.mark.parametrize(("status", "kind"), [(500, UpstreamFailed), (503, UpstreamFailed), (504, TimedOut)])
async def test_a_hub_that_fails_is_not_asked_again(server: HubServer, status: int, kind: type[GatewayError]) -> None:
    server.refuse("/api/", status)
    assert isinstance(await error_of(asking(server), "org/one"), kind)
    assert len(server.requests) == 1


async def test_a_hub_that_is_not_there_is_unreachable() -> None:
    gone = Hub(Settings(endpoint="http://127.0.0.1:9"))
    assert isinstance(await error_of(gone, "org/one"), Unreachable)
    nowhere = Hub(Settings(endpoint="http://no-such-host.invalid"))
    assert isinstance(await error_of(nowhere, "org/one"), Unreachable)


async def test_a_silent_hub_is_given_up_and_whoever_leaves_it_is_free_at_once(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "DEADLINE_S", 0.4)
    hub = asking(server)
    server.hang("/api/", 1.2, times=package.THREADS + 1)
    begin = time.monotonic()
    assert isinstance(await error_of(hub, "org/one"), TimedOut)
    assert time.monotonic() - begin < 1
    # However many hang, the loop goes on, and once they have ended by their deadline the next is served.
    tasks = [asyncio.create_task(hub.repo("org/one", fresh=True)) for _ in range(package.THREADS)]
    await asyncio.sleep(0.1)
    begin = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - begin < 0.1
    monkeypatch.setattr(package, "DEADLINE_S", 5.0)
    assert (await hub.repo("org/one")).id == "org/one"


async def test_a_trickling_hub_is_given_up(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "DEADLINE_S", 0.3)
    ended: list[float] = []

    def trickle(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.02)
        finally:
            ended.append(time.monotonic())
        return True

    server.fault("/api/", trickle)
    begin = time.monotonic()
    assert isinstance(await error_of(asking(server), "org/one"), TimedOut)
    while not ended:
        await asyncio.sleep(0.02)
    # The thread has hung up as well, not only its caller.
    assert ended[0] - begin < 1.5


async def test_offline_is_said(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = await error_of(asking(server), "org/one")
    assert "HF_HUB_OFFLINE" in error.message
    assert not server.requests


async def test_a_folder_comes_with_what_describes_it(server: HubServer) -> None:
    repo = await asking(server).repo("org/folder")
    assert repo.documents["vae/config.json"] == {"a": 1}
    assert choose(repo, Wanted(repo=repo.id), memory_bytes=4 << 30).format == "diffusers"


async def test_a_card_says_what_it_says_and_its_lack_harms_nobody(server: HubServer) -> None:
    hub = asking(server)
    repo = await hub.repo("org/one")
    assert (await hub.enrich(repo)).summary == "A model that is made for these tests and does nothing."
    server.refuse("/org/one/resolve", 500)
    assert await hub.enrich(repo) == repo
    gated = await hub.described("org/gated")
    assert await hub.enrich(gated) == gated


async def test_a_token_does_not_follow_to_another_host(server: HubServer) -> None:
    server.repos["org/private"].push({"big.json": b"{}", "weights.bin": b"w"})
    hub = asking(server, TOKEN)
    repo = await hub.repo("org/private")
    assert await hub.contents(repo, "weights.bin") == b"w"
    there = server.asked(cdn=True)
    assert [one.token for one in there] == [None]
    assert server.asked("/resolve/", cdn=False)[0].token == TOKEN


async def test_a_search_tells_what_it_knows_in_time(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SIZES_S", 0.5)
    server.add(HubRepo("org/slow", {"s-Q4_0.gguf": b"s"}, tags=["gguf"], downloads=9))
    server.hang("/api/models/org/slow", 2.0)
    begin = time.monotonic()
    found, following = await catalogue.search(
        asking(server), query=None, modality=None, limit=9, cursor=None, room=catalogue.Room(1 << 30, None)
    )
    assert time.monotonic() - begin < 1.5
    assert [(one.id, one.fit) for one in found] == [("org/slow", None), ("org/one", "fits")]
    assert following is None


@pytest.mark.parametrize(("lacks", "size"), [((), 5 << 20), (("sizes",), 5 << 20), (("sizes", "tree"), None)])
async def test_a_search_tells_sizes_where_the_hub_has_them(
    server: HubServer, lacks: tuple[Lack, ...], size: int | None
) -> None:
    leave_out(server, *lacks)
    room = catalogue.Room(1 << 30, None)
    found, _ = await catalogue.search(asking(server), query=None, modality=None, limit=9, cursor=None, room=room)
    fit = None if size is None else "fits"
    assert [(one.size_bytes, one.fit) for one in found] == [(size, fit)]
    assert [(one.name, one.fit) for one in found[0].quantizations] == [("Q8_0", fit), ("Q4_K_M", fit)]


def test_addresses_are_quoted() -> None:
    hub = Hub(Settings(endpoint="https://mirror.example/hf/"))
    assert hub.url("o/n", "abc", "a b/ü#?.gguf") == "https://mirror.example/hf/o/n/resolve/abc/a%20b/%C3%BC%23%3F.gguf"


def test_nothing_heavy_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, gateway.hub.catalogue; sys.exit('huggingface_hub' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
