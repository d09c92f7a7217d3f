"""Artifacts over HTTP: given, found, had in whole and in part and in other formats, by key and by signed URL, ended.

What the store has a part in is tried on a folder and on a bucket.
"""

import hashlib
import io
import random
import re
import time
from collections.abc import Iterator
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest
from PIL import Image

from gateway.artifacts.signing import Signer
from tests import s3
from tests.gateway.conftest import speaking
from tests.gateway.solids import box
from tests.http import error_of, until
from tests.process import Gateway, gateway

ACME, RIVAL, ROOT = "acme-key-canary-aa01", "rival-key-canary-aa02", "root-key-canary-aa03"
SIGNING, OLD, REMOVED = (f"{word}-signing-key-0123456789-0123456789" for word in ("new", "old", "removed"))
BODY_LIMIT = 12_000_000
TREE: dict[str, Any] = {
    "server": {"body_limit_bytes": BODY_LIMIT},
    "backends": {"fake": {"kind": "fake"}},
    "models": {"auto": {"routes": ["fake/fake"]}},
    "auth": {
        "mode": "api_key",
        "keys": [
            {"name": "acme", "key": ACME, "tenant": "acme", "scopes": ["inference"]},
            {"name": "rival", "key": RIVAL, "tenant": "rival", "scopes": ["inference"]},
            {"name": "root", "key": ROOT, "scopes": ["admin"]},
        ],
    },
}
KEPT = {"signing_key": SIGNING, "old_signing_keys": [OLD]}
Http = httpx2.Client


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, Any]]:
    """The settings of artifacts that are kept by an S3 server on loopback."""
    with s3.running() as url:
        yield s3.settings(url, "things")


@pytest.fixture(scope="module")
def on_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("folder"), TREE | {"artifacts": KEPT}) as running:
        yield running


@pytest.fixture(scope="module")
def on_s3(bucket: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("s3"), TREE | {"artifacts": KEPT | bucket}) as running:
        yield running


@pytest.fixture
def keeper(request: pytest.FixtureRequest) -> Gateway:
    """The gateway that keeps them in a folder, unless a test is `everywhere`."""
    running: Gateway = request.getfixturevalue(getattr(request, "param", "on_folder"))
    return running


everywhere = pytest.mark.parametrize("keeper", ["on_folder", "on_s3"], indirect=True)


@pytest.fixture
def acme(keeper: Gateway) -> Iterator[Http]:
    with speaking(keeper, {"authorization": f"Bearer {ACME}"}) as http:
        yield http


@pytest.fixture
def rival(keeper: Gateway) -> Iterator[Http]:
    with speaking(keeper, {"authorization": f"Bearer {RIVAL}"}) as http:
        yield http


@pytest.fixture
def anybody(keeper: Gateway) -> Iterator[Http]:
    with speaking(keeper) as http:
        yield http


def picture(format_: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (7, 5), seed: int = 0) -> bytes:
    """seed: another gives other bytes, which nobody has kept yet."""
    image = Image.new(mode, size, (200, seed % 256, 30, 0)[: len(mode)])
    file = io.BytesIO()
    image.save(file, format=format_)
    return file.getvalue()


DATA = picture(seed=51)


def noise(pixels: int) -> bytes:
    """A PNG of so many pixels a side that takes as much room as they do."""
    file = io.BytesIO()
    data = random.Random(pixels).randbytes(pixels * pixels * 3)  # noqa: S311  the same every time
    Image.frombytes("RGB", (pixels, pixels), data).save(file, format="PNG", compress_level=0)
    return file.getvalue()


def given(http: Http, data: bytes, **query: str) -> dict[str, Any]:
    answer = http.post("/v1/artifacts", content=data, params=query)
    assert answer.status_code == 201, answer.text
    card: dict[str, Any] = answer.json()
    return card


@cache
def kept(url: str) -> dict[str, Any]:
    """A picture that is kept there, for those who only read."""
    with httpx2.Client(base_url=url, headers={"x-api-key": ACME}, timeout=30) as http:
        return given(http, DATA)


def had(http: Http, card: dict[str, Any], headers: dict[str, str] | None = None, **query: str) -> httpx2.Response:
    return http.get(f"/v1/artifacts/{card['id']}/content", params=query, headers=headers)


def target(url: str) -> str:
    """The part of a URL behind its host."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


# Given and found


@everywhere
def test_a_picture_is_given_found_and_had_again(acme: Http, keeper: Gateway) -> None:
    data = picture(seed=1)
    card = given(acme, data, name="cat.png")
    assert card["object"] == "artifact"
    assert (card["kind"], card["mime"], card["name"]) == ("image", "image/png", "cat.png")
    assert (card["bytes"], card["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert card["meta"] == {"width": 7, "height": 5}
    assert card["url"].startswith(f"{keeper.url}/v1/artifacts/{card['id']}/content?")
    assert set(card["formats"]) == {"png", "webp", "jpeg"}
    found = acme.get(f"/v1/artifacts/{card['id']}").json()
    assert {**found, "url": 0, "url_expires_at": 0, "formats": 0} == {
        **card,
        "url": 0,
        "url_expires_at": 0,
        "formats": 0,
    }
    answer = had(acme, card)
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["etag"] == f'"{card["sha256"]}"'


def test_a_mesh_is_measured_and_has_a_poster(acme: Http, anybody: Http) -> None:
    card = given(acme, box(), name="box.glb")
    assert (card["kind"], card["mime"]) == ("mesh", "model/gltf-binary")
    assert (card["meta"]["faces"], card["meta"]["watertight"]) == (12, True)
    poster = anybody.get(card["poster_url"])
    assert poster.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(poster.content)).size == (384, 384)
    assert set(card["formats"]) == {"glb", "obj", "ply", "stl", "png", "webp", "jpeg"}


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "GIF"])
def test_what_a_picture_is_is_seen_from_its_bytes(acme: Http, format_: str) -> None:
    answer = acme.post("/v1/artifacts", content=picture(format_), headers={"content-type": "text/html"})
    assert answer.json()["mime"] == f"image/{format_.lower()}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        picture()[:40],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"\xff\xd8\xff" + b"<script>" * 20,
        picture("BMP"),
        box()[:-40],
        b"glTF" + b"\0" * 40,
    ],
    ids=["empty", "text", "svg", "html", "cut off", "only a beginning", "polyglot", "bmp", "cut mesh", "no mesh"],
)
def test_what_does_not_open_is_refused(acme: Http, data: bytes) -> None:
    answer = acme.post("/v1/artifacts", content=data, headers={"content-type": "image/png"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_value")


def test_a_picture_that_unfolds_to_too_much_is_refused(acme: Http) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG")
    answer = acme.post("/v1/artifacts", content=file.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert "pixels" in answer.json()["error"]["message"]


def test_a_body_that_is_too_large_or_packed_is_refused(acme: Http) -> None:
    assert acme.post("/v1/artifacts", content=b"x" * (BODY_LIMIT + 1)).status_code == 413
    packed = acme.post("/v1/artifacts", content=picture(), headers={"content-encoding": "gzip"})
    assert (packed.status_code, error_of(packed)["code"]) == (415, "unsupported_content_encoding")


@everywhere
def test_a_list_is_the_newest_first_page_by_page(acme: Http, rival: Http) -> None:
    made = [given(acme, picture(seed=n))["id"] for n in (31, 32, 33)]
    first = acme.get("/v1/artifacts", params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == made[:0:-1]
    second = acme.get("/v1/artifacts", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in second["data"]] == made[:1]
    assert "url" in first["data"][0]
    listed = rival.get("/v1/artifacts").text
    assert not any(id_ in listed for id_ in made)
    gif = given(acme, picture("GIF", seed=34))["id"]
    assert acme.get("/v1/artifacts", params={"mime": "image/gif"}).json()["data"][0]["id"] == gif
    assert all(one["kind"] == "mesh" for one in acme.get("/v1/artifacts", params={"kind": "mesh"}).json()["data"])
    for wrong in ({"kind": "video"}, {"limit": "0"}, {"cursor": "%%%"}, {"mime": "a\0"}):
        assert acme.get("/v1/artifacts", params=wrong).status_code == 400, wrong
    foreign = acme.get("/v1/artifacts", params={"cursor": "AAAA"})
    assert foreign.status_code in (200, 400)


# Who may


@everywhere
def test_another_tenants_artifact_is_not_there(acme: Http, rival: Http) -> None:
    card = given(acme, picture(seed=41))
    absent = "art_" + "0" * 32
    for method, tail in (("GET", ""), ("GET", "/content"), ("HEAD", "/content"), ("DELETE", "")):
        theirs = rival.request(method, f"/v1/artifacts/{card['id']}{tail}")
        nobodys = rival.request(method, f"/v1/artifacts/{absent}{tail}")
        assert (theirs.status_code, nobodys.status_code) == (404, 404)
        assert theirs.text.replace(card["id"], "ID") == nobodys.text.replace(absent, "ID")
    assert had(acme, card).status_code == 200


@pytest.mark.parametrize("id_", ["..", "a%00b", "%2e%2e%2f%2e%2e", "x" * 3000, "art_%0d%0a", "art_'--", "%ff"])
def test_a_hostile_id_is_only_not_there(acme: Http, id_: str) -> None:
    for tail in ("", "/content"):
        assert acme.get(f"/v1/artifacts/{id_}{tail}").status_code in (400, 404)


def test_an_id_with_something_behind_it_is_another_one(acme: Http) -> None:
    card = given(acme, picture(seed=44))
    for method in ("GET", "DELETE"):
        assert acme.request(method, f"/v1/artifacts/{card['id']}%00").status_code == 404
    assert had(acme, card).status_code == 200


@pytest.mark.parametrize(
    ("path", "allow"), [("", "GET, POST"), ("/art_1", "DELETE, GET"), ("/art_1/content", "GET, HEAD")]
)
def test_options_says_what_is_allowed(acme: Http, path: str, allow: str) -> None:
    answer = acme.options(f"/v1/artifacts{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


def test_a_form_is_refused_with_the_cure(acme: Http) -> None:
    answer = acme.post("/v1/artifacts", files={"file": ("a.png", DATA, "image/png")})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")
    assert "--data-binary @FILE" in error_of(answer)["message"]


def test_lost_and_damaged_bytes_are_told_and_mended_by_the_same_upload(tmp_path: Path) -> None:
    with gateway(tmp_path, TREE | {"artifacts": KEPT}) as running, speaking(running, {"x-api-key": ACME}) as http:

        def file() -> Path:
            (found,) = [one for one in (tmp_path / "data" / "artifacts").glob("*/*") if one.is_file()]
            return found

        card = given(http, DATA)
        path = f"/v1/artifacts/{card['id']}/content"
        file().unlink()
        assert (http.get(path).status_code, http.head(path).status_code) == (404, 404)
        assert had(http, given(http, DATA)).content == http.get(path).content == DATA
        file().write_bytes(bytes(4) + DATA[4:])
        answer = http.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "checksum_mismatch")
        assert had(http, given(http, DATA)).content == http.get(path).content == DATA


def test_who_comes_by_a_signed_url_is_told_of_no_quota(tmp_path: Path) -> None:
    tree = TREE | {"artifacts": KEPT, "limits": {"default": {"artifact_bytes": 50}}}
    with gateway(tmp_path, tree) as running, speaking(running) as anybody:
        with speaking(running, {"x-api-key": ACME}) as http:
            card = given(http, DATA)
            assert f"artifacts of {len(DATA)} bytes" in error_of(had(http, card, format="webp"))["message"]
        answer = anybody.get(card["formats"]["webp"])
        assert (answer.status_code, error_of(answer)["code"]) == (429, "artifact_quota_exceeded")
        assert not re.search(r"[0-9]", error_of(answer)["message"])


def test_a_full_store_has_no_sdk_try_again(tmp_path: Path) -> None:
    tree = TREE | {"artifacts": KEPT | {"max_bytes": 100}}
    with gateway(tmp_path, tree) as running, speaking(running, {"x-api-key": ACME}) as http:
        given(http, picture(seed=71))
        given(http, picture(seed=72))
        answer = http.post("/v1/artifacts", content=DATA)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (507, "false")
    assert (error_of(answer)["type"], error_of(answer)["code"]) == ("server_error", "insufficient_storage")


def test_without_key_and_signature_nobody_gets_in(acme: Http, anybody: Http) -> None:
    card = given(acme, picture(seed=42))
    queries: list[dict[str, str]] = [{}, {"key": "x"}, {"expires": "2000000000", "key": "x"}, {"format": "webp"}]
    for query in queries:
        assert had(anybody, card, None, **query).status_code == 401, query
    assert anybody.get(f"/v1/artifacts/{card['id']}").status_code == 401


def test_a_signed_url_needs_no_key_and_no_certain_host(acme: Http, anybody: Http) -> None:
    data = picture(seed=43)
    card = given(acme, data)
    assert anybody.get(card["url"]).content == data
    other = anybody.get(card["url"], headers={"host": "pictures.example"})
    assert (other.status_code, other.content) == (200, data)
    elsewhere = acme.get(f"/v1/artifacts/{card['id']}", headers={"host": "pictures.example"}).json()
    assert elsewhere["url"].startswith("http://pictures.example/v1/artifacts/")
    assert anybody.get(target(elsewhere["url"])).content == data


def test_a_signature_that_is_there_must_be_good_whatever_else_is(acme: Http, rival: Http) -> None:
    card = given(acme, picture(seed=44))
    # The signature speaks for itself, whoever sends it along with a key.
    assert rival.get(card["url"]).status_code == 200
    wrong = card["url"][:-1] + ("0" if card["url"][-1] != "0" else "1")
    for http in (acme, rival):
        assert error_of(http.get(wrong))["code"] == "invalid_signature"
    assert error_of(acme.get(f"/v1/artifacts/{card['id']}/content?signature="))["code"] == "invalid_signature"


def test_every_component_of_a_signed_url_counts(acme: Http, keeper: Gateway, request: pytest.FixtureRequest) -> None:
    card = given(acme, picture(seed=45))
    line = HTTPConnection("127.0.0.1", keeper.port, timeout=30)
    request.addfinalizer(line.close)

    def status(at: str, method: str = "GET") -> tuple[int, bytes]:
        line.putrequest(method, at, skip_accept_encoding=True)
        line.endheaders()
        answer = line.getresponse()
        return answer.status, answer.read()

    good = target(card["formats"]["png"])
    assert status(good)[0] == 200
    begins = good.index("/art_") + 1
    seen = set()
    for n in range(begins, len(good)):
        flipped = good[:n] + ("0" if good[n] != "0" else "1") + good[n + 1 :]
        code, body = status(flipped)
        if "&signature=" in flipped and "/content?" in flipped:
            assert code == 403, flipped
            seen.add(body)
        else:
            assert code in (401, 404), flipped
    assert len(seen) == 1
    assert [status(good, method)[0] for method in ("HEAD", "DELETE", "POST", "PUT")] == [403, 405, 405, 405]
    for twice in ("expires", "key", "signature", "format"):
        pair = next(one for one in good.partition("?")[2].split("&") if one.startswith(f"{twice}="))
        assert status(f"{good}&{pair}")[0] == 403, twice
    for added in ("&download=1", "&x=", "&", "&&"):
        assert status(f"{good}{added}")[0] == (403 if "=" in added else 200), added


def test_a_signature_is_checked_before_anything_is_looked_up(acme: Http, anybody: Http, keeper: Gateway) -> None:
    card = given(acme, picture(seed=46))
    absent = card["url"].replace(card["id"], "art_" + "0" * 32)
    forged = card["url"][:-4] + "0000"
    assert anybody.get(absent).text == anybody.get(forged).text
    signer = Signer([SIGNING.encode()])

    def signed(id_: str, expires: float) -> str:
        return signer.signed("GET", f"/v1/artifacts/{id_}/content", [], int(expires))

    now = time.time()
    late = [anybody.get(signed(id_, now - 1)) for id_ in (card["id"], "art_" + "0" * 32)]
    assert [(one.status_code, error_of(one)["code"]) for one in late] == [(403, "url_expired")] * 2
    assert late[0].text == late[1].text
    assert anybody.get(signed(card["id"], now + 60)).status_code == 200
    assert anybody.get(signed("art_" + "0" * 32, now + 60)).status_code == 404


def test_keys_of_signatures_are_rotated(acme: Http, anybody: Http) -> None:
    card = given(acme, picture(seed=47))
    path, soon = f"/v1/artifacts/{card['id']}/content", int(time.time()) + 60
    by_old, by_removed = (Signer([key.encode()]).signed("GET", path, [], soon) for key in (OLD, REMOVED))
    assert anybody.get(by_old).status_code == 200
    assert error_of(anybody.get(by_removed))["code"] == "invalid_signature"


# The bytes


@everywhere
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, None),
        ("bytes=-1", -1, None),
        ("bytes=-10", -10, None),
        ("bytes=-99999999", 0, None),
        ("bytes=10-99999999", 10, None),
        ("Bytes=3-4", 3, 5),
    ],
)
def test_a_part_of_it_can_be_had(acme: Http, asked: str, start: int, end: int | None) -> None:
    card, data = kept(str(acme.base_url)), DATA
    answer = had(acme, card, {"range": asked})
    part = data[start:end]
    begins = start % len(data)
    assert (answer.status_code, answer.content) == (206, part)
    assert answer.headers["content-range"] == f"bytes {begins}-{begins + len(part) - 1}/{len(data)}"
    assert answer.headers["content-length"] == str(len(part))
    assert answer.headers["etag"] == f'"{card["sha256"]}"'


@everywhere
@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-999999999"])
def test_a_range_of_nothing_is_416(acme: Http, asked: str) -> None:
    card, data = kept(str(acme.base_url)), DATA
    answer = had(acme, card, {"range": asked})
    assert (answer.status_code, error_of(answer)["code"]) == (416, "invalid_range")
    assert answer.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,3-4", "0-1", "bytes=1"])
def test_what_is_no_single_range_gives_all(acme: Http, asked: str) -> None:
    card, data = kept(str(acme.base_url)), DATA
    answer = had(acme, card, {"range": asked})
    assert (answer.status_code, answer.content) == (200, data)


@everywhere
def test_a_range_holds_only_for_the_same_bytes(acme: Http) -> None:
    card = kept(str(acme.base_url))
    tag, made = f'"{card["sha256"]}"', had(acme, card).headers["last-modified"]
    for condition, status in (
        (tag, 206),
        (made, 206),
        (f"W/{tag}", 200),
        ('"other"', 200),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
        ("nonsense", 200),
    ):
        answer = had(acme, card, {"range": "bytes=0-1", "if-range": condition})
        assert answer.status_code == status, condition


@everywhere
def test_what_a_client_has_is_not_sent_again(acme: Http) -> None:
    card = kept(str(acme.base_url))
    tag, made = f'"{card["sha256"]}"', had(acme, card).headers["last-modified"]
    for headers in (
        {"if-none-match": tag},
        {"if-none-match": f'"x", W/{tag}'},
        {"if-none-match": "*"},
        {"if-modified-since": made},
        {"if-none-match": tag, "range": "bytes=0-1"},
    ):
        answer = had(acme, card, headers)
        assert (answer.status_code, answer.content) == (304, b""), headers
        assert answer.headers["etag"] == tag
    for headers in (
        {"if-none-match": '"x"'},
        {"if-none-match": '"x"', "if-modified-since": made},
        {"if-modified-since": "Sat, 01 Jan 2000 00:00:00 GMT"},
        {"if-modified-since": "yesterday"},
    ):
        assert had(acme, card, headers).status_code == 200, headers


@everywhere
def test_head_says_what_get_would(acme: Http) -> None:
    card = kept(str(acme.base_url))
    whole, head = had(acme, card), acme.head(f"/v1/artifacts/{card['id']}/content", headers={"range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "last-modified", "content-disposition", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


def test_a_browser_runs_nothing_of_it(acme: Http, anybody: Http) -> None:
    card, mesh = given(acme, picture(seed=52), name="a.png"), given(acme, box(), name="b.glb")
    for answer in (had(acme, card), anybody.get(card["url"]), had(acme, mesh), had(acme, mesh, format="obj")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert had(acme, card).headers["content-disposition"] == 'inline; filename="a.png"'
    assert had(acme, card, download="1").headers["content-disposition"] == 'attachment; filename="a.png"'
    assert had(acme, mesh).headers["content-disposition"] == 'attachment; filename="b.glb"'
    assert had(acme, mesh, format="obj").headers["content-disposition"] == 'attachment; filename="b.obj"'
    assert had(acme, card).headers["cache-control"] == "private, no-cache"
    assert had(acme, card).headers["cross-origin-resource-policy"] == "same-origin"
    signed = anybody.get(card["url"])
    age = int(signed.headers["cache-control"].removeprefix("private, max-age="))
    assert 880 < age <= 900
    assert signed.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../etc/passwd", 'inline; filename="passwd.png"'),
        ("..\\..\\boot.ini", 'inline; filename="boot.ini.png"'),
        ('a";x="b.png', "inline; filename=\"a__x=_b.png\"; filename*=UTF-8''a_%3Bx%3D_b.png"),
        ("évil.html", "inline; filename=\"_vil.html.png\"; filename*=UTF-8''%C3%A9vil.html.png"),
        ("%0d%0ax.png", 'inline; filename="_0d_0ax.png"'),
        ("..", 'inline; filename="artifact.png"'),
    ],
)
def test_a_hostile_name_harms_nobody(acme: Http, name: str, said: str) -> None:
    assert had(acme, given(acme, picture(seed=53), name=name)).headers["content-disposition"] == said


@pytest.mark.parametrize("name", ["a\r\nx: y.png", "a\0b.png", "x" * 301, "a\u202eb", "a\x7fb"])
def test_a_name_that_cannot_be_written_is_refused(acme: Http, name: str) -> None:
    answer = acme.post(f"/v1/artifacts?name={quote(name)}", content=picture(seed=53))
    assert (answer.status_code, error_of(answer)["param"]) == (400, "name")


@everywhere
def test_a_client_that_leaves_is_not_read_for(acme: Http, keeper: Gateway) -> None:
    card = given(acme, noise(1900))
    assert card["bytes"] > 10_000_000
    began, since = time.monotonic(), len(keeper.log)
    with acme.stream("GET", f"/v1/artifacts/{card['id']}/content", headers={"x-request-id": "leaving-1"}) as answer:
        next(answer.iter_raw(1000))
    line = keeper.wait_for("request_finished", 5.0, since=since, request_id="leaving-1")
    assert (line["status"], line["code"]) == (499, "client_gone")
    assert time.monotonic() - began < 2.0
    assert had(acme, card).content == noise(1900)


# In other formats


def test_a_mesh_opens_in_every_format(acme: Http, anybody: Http) -> None:
    import trimesh

    data = box(colours=True)
    card = given(acme, data, name="box.glb")
    for name in ("obj", "ply", "stl"):
        answer = had(acme, card, format=name)
        assert answer.status_code == 200
        mesh = trimesh.load_mesh(io.BytesIO(answer.content), file_type=name)
        assert len(mesh.faces) == 12
        assert sorted(round(float(side), 3) for side in mesh.extents) == [1.0, 2.0, 3.0]
        assert anybody.get(card["formats"][name]).content == answer.content
    assert had(acme, card, format="glb").content == data
    for name in ("png", "webp", "jpeg"):
        answer = had(acme, card, format=name)
        assert answer.headers["content-type"] == f"image/{name}"
        poster = Image.open(io.BytesIO(answer.content))
        poster.load()
        assert (poster.format, poster.size) == (name.upper(), (384, 384))


@everywhere
@pytest.mark.parametrize("source", ["PNG", "WEBP", "GIF", "JPEG"])
def test_a_picture_opens_in_every_format(acme: Http, source: str) -> None:
    card = given(acme, picture(source, seed=61), name=f"dot.{source.lower()}")
    for name in ("png", "webp", "jpeg"):
        answer = had(acme, card, format=name)
        image = Image.open(io.BytesIO(answer.content))
        image.load()
        assert (image.format, image.size) == (name.upper(), (7, 5))
        red, _, blue = image.convert("RGB").getpixel((3, 2))  # type: ignore[misc]
        assert abs(red - 200) < 12
        assert abs(blue - 30) < 25


def test_what_can_be_seen_through_is_white_in_a_jpeg(acme: Http) -> None:
    card = given(acme, picture(mode="RGBA", seed=62))
    image = Image.open(io.BytesIO(had(acme, card, format="jpeg").content))
    assert min(image.getpixel((3, 2))) > 250  # type: ignore[arg-type]
    clear = Image.open(io.BytesIO(had(acme, card, format="webp").content))
    assert clear.convert("RGBA").getpixel((3, 2))[3] == 0  # type: ignore[index]


@everywhere
def test_a_conversion_is_made_once_and_kept(acme: Http) -> None:
    card = given(acme, picture(seed=63), name="dot.png")
    first = had(acme, card, format="webp")
    [child] = [one for one in acme.get("/v1/artifacts").json()["data"] if one["parent_id"] == card["id"]]
    assert (child["mime"], child["name"], child["meta"]["format"]) == ("image/webp", "dot.webp", "webp")
    again = had(acme, card, {"range": "bytes=2-5"}, format="webp")
    assert (again.status_code, again.content) == (206, first.content[2:6])
    assert again.headers["etag"] == first.headers["etag"] == f'"{child["sha256"]}"'
    assert had(acme, card, {"if-none-match": first.headers["etag"]}, format="webp").status_code == 304
    assert acme.head(f"/v1/artifacts/{card['id']}/content?format=webp").headers["content-length"] == str(child["bytes"])
    children = [one for one in acme.get("/v1/artifacts").json()["data"] if one["parent_id"] == card["id"]]
    assert len(children) == 1


def test_many_who_want_the_same_conversion_have_it_made_once(acme: Http, keeper: Gateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    card = given(acme, picture(seed=64))

    def ask(_: int) -> bytes:
        with speaking(keeper, {"x-api-key": ACME}) as http:
            return had(http, card, format="jpeg").content

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(6)))) == 1
    listed = acme.get("/v1/artifacts").json()["data"]
    assert len([one for one in listed if one["parent_id"] == card["id"]]) == 1


@pytest.mark.parametrize("wanted", ["obj", "glb"])
def test_a_picture_is_no_mesh(acme: Http, wanted: str) -> None:
    answer = had(acme, kept(str(acme.base_url)), format=wanted)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "format")
    assert "png, webp, jpeg" in error_of(answer)["message"]


def test_a_format_that_nobody_knows_is_refused(acme: Http) -> None:
    answer = had(acme, kept(str(acme.base_url)), format="exe")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "format")
    assert "glb" in error_of(answer)["message"]


def test_a_picture_in_its_own_format_is_upright_and_says_nothing_else(acme: Http) -> None:
    image, file, exif = Image.new("RGB", (7, 5), "red"), io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera canary"
    image.save(file, format="JPEG", exif=exif)
    card = given(acme, file.getvalue())
    assert had(acme, card).content == file.getvalue()
    for _ in range(2):
        answer = had(acme, card, format="jpeg")
        assert b"canary" not in answer.content
        assert Image.open(io.BytesIO(answer.content)).size == (5, 7)
    [child] = [one for one in acme.get("/v1/artifacts").json()["data"] if one["parent_id"] == card["id"]]
    assert had(acme, child, format="jpeg").content == answer.content
    assert acme.get(f"/v1/artifacts/{child['id']}").json()["sha256"] == child["sha256"]


def test_who_leaves_while_it_is_converted_leaves_nothing_running(acme: Http, keeper: Gateway) -> None:
    file = io.BytesIO()
    Image.effect_noise((5000, 5000), 60).convert("1").save(file, format="PNG")
    card = given(acme, file.getvalue())
    with pytest.raises(httpx2.ReadTimeout), speaking(keeper, {"x-api-key": ACME}) as http:
        http.get(f"/v1/artifacts/{card['id']}/content?format=webp", timeout=0.6)
    until(lambda: not working(keeper), 1.5)
    assert all(one["parent_id"] != card["id"] for one in acme.get("/v1/artifacts").json()["data"])


def working(keeper: Gateway) -> bool:
    """Whether a process looks at a picture for this gateway."""
    from pathlib import Path

    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, status = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        if b"gateway.picturer" in line and int(status.rpartition(")")[2].split()[1]) == keeper.process.pid:
            return True
    return False


# Ended


@everywhere
def test_what_is_deleted_is_gone_with_what_was_made_from_it(acme: Http, anybody: Http, keeper: Gateway) -> None:
    card = given(acme, picture(seed=71), name="gone.png")
    had(acme, card, format="webp")
    [child] = [one for one in acme.get("/v1/artifacts").json()["data"] if one["parent_id"] == card["id"]]
    answer = acme.delete(f"/v1/artifacts/{card['id']}")
    assert answer.json() == {"id": card["id"], "object": "artifact", "deleted": True}
    for id_ in (card["id"], child["id"]):
        assert acme.get(f"/v1/artifacts/{id_}").status_code == 404
        assert acme.get(f"/v1/artifacts/{id_}/content").status_code == 404
    assert anybody.get(card["url"]).status_code == 404
    assert acme.delete(f"/v1/artifacts/{card['id']}").status_code == 404
    with speaking(keeper, {"x-api-key": ROOT}) as root:
        [act] = [
            one
            for one in root.get("/v1/audit", params={"action": "artifact.delete"}).json()["data"]
            if one["target"] == card["id"]
        ]
    assert (act["actor"], act["tenant"], act["detail"]["bytes"]) == ("acme", "acme", card["bytes"])
    # The same bytes, given anew, are there.
    assert had(acme, given(acme, picture(seed=71))).content == picture(seed=71)


# Elsewhere


def test_the_store_hands_it_out_itself_where_it_may(bucket: dict[str, Any], tmp_path: Any) -> None:
    tree = TREE | {"artifacts": KEPT | bucket | {"presign": True}}
    with gateway(tmp_path, tree) as running, speaking(running, {"x-api-key": ACME}) as http:
        data = picture(seed=81)
        card = given(http, data, name="there.png")
        with speaking(running) as anybody:
            for answer in (had(http, card), anybody.get(card["url"])):
                assert answer.status_code == 307
                assert answer.headers["location"].startswith(bucket["s3"]["endpoint"])
                assert answer.headers["cache-control"] == "private, no-store"
                with httpx2.Client(trust_env=False) as plain:
                    there = plain.get(answer.headers["location"])
                assert there.content == data
                assert there.headers["content-type"] == "image/png"
                assert there.headers["content-disposition"] == 'inline; filename="there.png"'
            assert anybody.get(card["url"][:-2] + "00").status_code == 403
        head = http.head(f"/v1/artifacts/{card['id']}/content")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))


def test_where_no_key_is_needed_a_wrong_signature_still_is_wrong(tmp_path: Any) -> None:
    with (
        gateway(tmp_path, {"backends": {"fake": {"kind": "fake"}}, "models": {}}) as running,
        speaking(running) as http,
    ):
        card = given(http, picture(seed=91))
        assert had(http, card).status_code == 200
        assert http.get(card["url"]).status_code == 200
        assert error_of(http.get(card["url"][:-4] + "0000"))["code"] == "invalid_signature"
