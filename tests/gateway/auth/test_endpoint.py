"""Addresses that users give: what is refused before anybody is asked."""

import pytest

from compat.canonical.error import InvalidRequest
from gateway.auth.endpoint import endpoint, is_prefix

PREFIX = "http://10.0.0.5:8000/v1"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com",
        "https://API.Example.com:8443/openai/v1",
        "https://1.1.1.1/v1",
        "https://[2606:4700::1111]/v1",
    ],
)
def test_a_public_https_address_may_be_given(url: str) -> None:
    assert endpoint(url, [PREFIX], "base_url").public_only


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "ftp://api.example.com",
        "//api.example.com",
        "api.example.com",
        "https://",
        "",
        "https://127.0.0.1/v1",
        "https://127.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0x7f.1/v1",
        "https://0177.0.0.1/v1",
        "https://127.0.0.1./v1",
        "https://0.0.0.0/v1",
        "https://10.0.0.5/v1",
        "https://169.254.169.254/latest",
        "https://168.63.129.16/",
        "https://192.0.0.192/",
        "https://100.100.100.200/",
        "https://[::1]/v1",
        "https://[::]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[::ffff:8.8.8.8]/v1",
        "https://[64:ff9b::7f00:1]/v1",
        "https://[2002:7f00:1::]/v1",
        "https://[fe80::1%25lo]/v1",
        "https://[fd00::1]/v1",
        "https://user@api.example.com/v1",
        "https://user:pass@api.example.com/v1",
        "https://api.example.com\\@127.0.0.1/v1",
        "https://api.example.com/v1#fragment",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/%2e%2E/admin",
        "https://api.example.com/v1%2fadmin",
        "https://api.example.com//evil",
        "https://api.example.com:22/v1",
        "https://api.example.com:0/v1",
        "https://api.example.com:99999/v1",
        "https://api.example.com:x/v1",
        "https://api.example.com/v1\r\nx: y",
        "https://api.example.com/ v1",
        "https://äpi.example.com/v1",
        "https://api.example.com/" + "a" * 500,
    ],
)
def test_everything_else_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        endpoint(url, [PREFIX], "base_url")
    assert refused.value.param == "base_url"


@pytest.mark.parametrize("url", [PREFIX, f"{PREFIX}/", f"{PREFIX}/deeper"])
def test_what_the_operator_allows_may_be_anywhere(url: str) -> None:
    assert not endpoint(url, [PREFIX], "base_url").public_only


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8000/v10",
        "http://10.0.0.5:8000/",
        "http://10.0.0.5:8001/v1",
        "http://10.0.0.5/v1",
        "http://10.0.0.50:8000/v1",
        "http://10.0.0.5:8000.evil.example/v1",
        "http://10.0.0.5:8000@evil.example/v1",
        "http://evil.example/http://10.0.0.5:8000/v1",
        "http://10.0.0.5:8000/v1/../admin",
        "http://10.0.0.5:8000/v1/%2e%2e/admin",
        "http://10.0.0.5:8000/v1//../admin",
        "https://10.0.0.5:8000/v1",
    ],
)
def test_what_only_looks_like_it_may_not(url: str) -> None:
    with pytest.raises(InvalidRequest):
        endpoint(url, [PREFIX], "base_url")


def test_default_ports_and_the_case_of_hosts_make_no_difference() -> None:
    assert not endpoint("https://box.example/v1", ["https://BOX.example:443/"], "base_url").public_only


def test_a_prefix_needs_a_host() -> None:
    assert is_prefix(PREFIX)
    assert not is_prefix("https://")
    assert not is_prefix("10.0.0.5:8000")
