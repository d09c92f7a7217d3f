"""The gateway's own secrets are made once, kept from others' eyes, and never made anew over what is there."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.config import decode
from gateway.secrets import own_secrets
from gateway.settings import Config, ConfigError

GIVEN = "a-pepper-from-the-environment-0123456789"


def _config(folder: Path, **secrets: str) -> Config:
    return decode({"data_dir": str(folder), "secrets": secrets}, {})


def test_what_is_not_given_is_made_once_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = own_secrets(_config(tmp_path / "data"))
    path = tmp_path / "data" / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({made.key_pepper, made.master_key, made.signing_key}) == 3
    assert min(map(len, (made.key_pepper, made.master_key, made.signing_key))) >= 32
    assert own_secrets(_config(tmp_path / "data")) == made


def test_what_is_given_is_taken_and_not_written_down(tmp_path: Path) -> None:
    assert own_secrets(_config(tmp_path, key_pepper=GIVEN)).key_pepper == GIVEN.encode()
    assert GIVEN not in (tmp_path / "secrets.json").read_text()


def test_a_gateway_that_is_given_all_of_them_writes_no_file(tmp_path: Path) -> None:
    secrets = {"key_pepper": GIVEN, "master_key": GIVEN}
    own_secrets(decode({"data_dir": str(tmp_path), "secrets": secrets, "artifacts": {"signing_key": GIVEN}}, {}))
    assert not (tmp_path / "secrets.json").exists()


def test_several_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: own_secrets(_config(tmp_path)), range(16)))
    assert len({secrets.master_key for secrets in made}) == 1


@pytest.mark.parametrize("text", ["", "{", '{"key_pepper": "short"}', '{"master_key": ""}', '{"signing_key": 7}', "[]"])
def test_a_damaged_file_stops_the_start_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"secrets\.json"):
        own_secrets(_config(tmp_path))
    assert path.read_text() == text


def test_a_file_that_lacks_one_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"key_pepper": GIVEN}))
    assert own_secrets(_config(tmp_path)).key_pepper == GIVEN.encode()
    assert json.loads(path.read_text())["key_pepper"] == GIVEN


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "secrets.json.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        own_secrets(_config(tmp_path))
    assert (tmp_path / "elsewhere").read_text() == "{}"
