"""What the command line makes of the gateway's words, of addresses that people paste, and of sizes."""

import pytest

from gateway.commands.remote import given_url, size
from gateway.commands.repository import wanted
from gateway.commands.words import spoken
from gateway.settings import ConfigError


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no job 'j'; GET /v1/jobs lists them.", "no job 'j'; `pluggably jobs list` lists them."),
        ("found by GET /v1/models/search.", "found by `pluggably models search`."),
        ("GET /v1/models lists them all.", "`pluggably models list` lists them all."),
        ("PATCH /v1/models/{id} changes it.", "`pluggably models set` changes it."),
        ("POST /v1/models/download brings them.", "`pluggably models download` brings them."),
        ("POST /v1/storage/cleanup frees 1 GiB", "`pluggably storage clean` frees 1 GiB"),
        ("unload it first, or remove it with force=true.", "unload it first, or remove it with --force."),
        ("by hand, or leave files=true out.", "by hand, or leave --files out."),
        ("give this one another 'name'.", "give this one another --name."),
        ("several models: name one by 'file'.  There", "several models: name one by --file.  There"),
        ("leave 'quantization' out.", "leave --quantization out."),
        ("Name the local 'backend' that is to run it", "Name the local --backend that is to run it"),
        ("Invalid value for 'tags[0]': at most 64.", "Invalid value for --tag: at most 64."),
        ("Invalid value for 'defaults.top_p': no.", "Invalid value for --default top_p: no."),
        ("Invalid value for 'source.repo': no.", "Invalid value for --repo: no."),
        ("Invalid value for 'id': no.", "Invalid value for MODEL: no."),
        (
            "'file' goes with 'repo': a registered model has its own.",
            "--file goes with a repository, ORG/NAME: a registered model has its own.",
        ),
        (
            "You didn't provide an API key. Send it in the header 'Authorization', after 'Bearer'.",
            "You didn't provide an API key. Put it in a variable, and name that with --key-env.",
        ),
    ],
)
def test_hints_are_told_in_the_command_lines_words(message: str, said: str) -> None:
    assert spoken(message) == said


@pytest.mark.parametrize(
    "message", ["The model 'name' is not here.", "Invalid value for 'source.files[0]': no.", "GET /v1/modelsx", ""]
)  # fmt: skip
def test_what_is_not_known_stays(message: str) -> None:
    assert spoken(message) == message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("o/n", {"repo": "o/n"}),
        ("o/n:Q4_K_M", {"repo": "o/n", "quantization": "Q4_K_M"}),
        ("https://huggingface.co/o/n", {"repo": "o/n"}),
        ("huggingface.co/o/n/", {"repo": "o/n"}),
        ("hf.co/o/n:Q8_0", {"repo": "o/n", "quantization": "Q8_0"}),
        ("https://huggingface.co/o/n/tree/main", {"repo": "o/n"}),
        ("https://huggingface.co/o/n/tree/v2", {"repo": "o/n", "revision": "v2"}),
        ("https://huggingface.co/o/n/blob/main/a/b.gguf?x=1", {"repo": "o/n", "file": "a/b.gguf"}),
        ("https://hf.co/o/n/resolve/refs%2Fpr%2F1/b.gguf", {"repo": "o/n", "revision": "refs/pr/1", "file": "b.gguf"}),
        ("http://hub.test:81/o/n", {"repo": "o/n"}),
    ],
)  # fmt: skip
def test_a_repository_may_be_named_by_its_address(given: str, said: dict[str, str]) -> None:
    assert wanted(given, "http://hub.test:81") == said


@pytest.mark.parametrize(
    "given", ["https://github.com/o/n", "https://huggingface.co/datasets/o/n", "http://[", "hf.co/o"]
)
def test_an_address_of_something_else_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="ORG/NAME"):
        wanted(given)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("foo", "http://foo"),
        ("localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/v1/", "http://localhost:8080"),
        ("https://host/llm", "https://host/llm"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_address_is_taken_as_people_write_it(given: str, url: str) -> None:
    assert given_url(given) == url


def test_sizes() -> None:
    counts = [None, 0, 1, 98_000, 2**20 - 1, 2**20, 3 * 2**29]
    assert [size(one) for one in counts] == ["-", "0 MiB", "1 KiB", "95 KiB", "1023 KiB", "1 MiB", "1.5 GiB"]
