"""A signed URL is good for what was signed, until it expires, and for nothing else."""

from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

import pytest

from compat.canonical.error import Forbidden
from gateway.artifacts.signing import PARAMETERS, Signer, parsed

KEY, OTHER = b"k" * 32, b"o" * 32
PATH = "/v1/artifacts/art_0123/content"
UNTIL = 2_000_000_000
NOW = UNTIL - 60.0
Pairs = list[tuple[str, str]]


def refused(signer: Signer, url: str, *, method: str = "GET", path: str | None = None, now: float = NOW) -> str | None:
    """The code that a URL is refused with; None: it is good."""
    at, _, query = url.partition("?")
    try:
        signer.check(method, path or at, parsed(query.encode()), now)
    except Forbidden as e:
        return e.code
    return None


@pytest.fixture
def signer() -> Signer:
    return Signer([KEY])


@pytest.fixture
def url(signer: Signer) -> str:
    return signer.signed("GET", PATH, [("format", "glb"), ("name", "ä b&c=d")], UNTIL)


def test_a_url_is_good_until_it_expires(signer: Signer, url: str) -> None:
    assert refused(signer, url) is None
    assert refused(signer, url, now=UNTIL - 0.001) is None
    assert refused(signer, url, now=float(UNTIL)) == "url_expired"


def test_every_character_of_a_url_counts(signer: Signer, url: str) -> None:
    begins = len(PATH) - len("art_0123/content")
    for n in range(begins, len(url)):
        for other in "0x=&%":
            if url[n] != other:
                flipped = url[:n] + other + url[n + 1 :]
                if parse_qsl(flipped.partition("?")[2]) != parse_qsl(url.partition("?")[2]) or "?" not in flipped:
                    assert refused(signer, flipped) is not None, flipped


def test_none_of_it_can_be_left_out_or_cut_off(signer: Signer, url: str) -> None:
    for n in range(len(PATH), len(url)):
        assert refused(signer, url[:n]) is not None, url[:n]
    pairs = parsed(url.partition("?")[2].encode())
    for pair in pairs:
        left = [one for one in pairs if one != pair]
        assert refused(signer, f"{PATH}?{urlencode(left)}") == "invalid_signature", pair


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "POST", "get", ""])
def test_it_is_good_for_its_method_only(signer: Signer, url: str, method: str) -> None:
    assert refused(signer, url, method=method) == "invalid_signature"


@pytest.mark.parametrize(
    "path",
    ["/v1/artifacts/art_0124/content", "/v1/artifacts/art_0123", f"{PATH}/", f"/{PATH}", PATH.upper(), PATH[:-1]],
)
def test_it_is_good_for_its_path_only(signer: Signer, url: str, path: str) -> None:
    assert refused(signer, url, path=path) == "invalid_signature"


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: [*pairs, ("download", "1")],
        lambda pairs: [*pairs, ("format", "glb")],
        lambda pairs: [*pairs, ("format", "obj")],
        *(lambda pairs, name=name: [*pairs, (name, dict(pairs)[name])] for name in PARAMETERS),
        *(lambda pairs, name=name: [(name, ""), *pairs] for name in PARAMETERS),
        lambda pairs: [(f" {name}" if name == "format" else name, value) for name, value in pairs],
        lambda pairs: [*pairs, ("", "")],
    ],
)
def test_nothing_can_be_added_or_said_twice(signer: Signer, url: str, change: Callable[[Pairs], Pairs]) -> None:
    pairs = parsed(url.partition("?")[2].encode())
    assert refused(signer, f"{PATH}?{urlencode(change(pairs))}") == "invalid_signature"


@pytest.mark.parametrize(
    "expiry",
    ["+2000000000", " 2000000000", "02000000000", "2000000000.0", "2e9", "-1", "0", "", "٢٠٠٠٠٠٠٠٠٠", "9" * 12],
)
def test_an_expiry_has_one_spelling(signer: Signer, url: str, expiry: str) -> None:
    pairs = [(name, expiry if name == "expires" else value) for name, value in parsed(url.partition("?")[2].encode())]
    assert refused(signer, f"{PATH}?{urlencode(pairs)}") == "invalid_signature"


def test_where_one_field_ends_and_the_next_begins_is_signed(signer: Signer) -> None:
    one = dict(parsed(signer.signed("GET", PATH, [("a", "bc")], UNTIL).partition("?")[2].encode()))
    other = dict(parsed(signer.signed("GET", PATH, [("ab", "c")], UNTIL).partition("?")[2].encode()))
    assert one["signature"] != other["signature"]
    longer = dict(parsed(signer.signed("GETx", PATH[1:], [("a", "bc")], UNTIL).partition("?")[2].encode()))
    assert longer["signature"] != one["signature"]


def test_the_order_of_parameters_does_not_matter(signer: Signer, url: str) -> None:
    pairs = parsed(url.partition("?")[2].encode())
    assert refused(signer, f"{PATH}?{urlencode(pairs[::-1])}") is None


def test_a_forged_url_is_not_told_when_it_would_have_expired(signer: Signer, url: str) -> None:
    assert refused(signer, url.replace("glb", "obj"), now=UNTIL + 1.0) == "invalid_signature"


def test_old_keys_are_believed_and_removed_ones_are_not(url: str) -> None:
    rotated, removed = Signer([OTHER, KEY]), Signer([OTHER])
    assert refused(rotated, url) is None
    assert refused(removed, url) == "invalid_signature"
    fresh = rotated.signed("GET", PATH, [], UNTIL)
    assert refused(removed, fresh) is None
    assert refused(Signer([KEY]), fresh) == "invalid_signature"


def test_the_name_of_a_key_tells_nothing_of_it(url: str) -> None:
    named = dict(parsed(url.partition("?")[2].encode()))["key"]
    assert named.encode() not in KEY
    assert len(named) == 12
    assert named not in Signer([OTHER]).signed("GET", PATH, [], UNTIL)


@pytest.mark.parametrize("keys", [[], [b""], [b"k" * 31], [KEY, b"short"]])
def test_no_short_key_signs(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        Signer(keys)


@pytest.mark.parametrize("query", [b"a=%ff", b"a=\xff", b"&".join(b"a%d=1" % n for n in range(40))])
def test_what_cannot_be_read_is_not_signed(query: bytes) -> None:
    with pytest.raises(Forbidden, match="signature"):
        parsed(query)


@pytest.mark.parametrize("pairs", [[("a", "1"), ("a", "2")], [("expires", "1")], [("signature", "")]])
def test_what_would_be_refused_is_not_signed(signer: Signer, pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="twice"):
        signer.signed("GET", PATH, pairs, UNTIL)
