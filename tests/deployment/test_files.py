"""What `deploy/` promises: its configurations load, and its figures agree with the gateway's own."""

import re
import shutil
import subprocess
from typing import Any

import msgspec
import pytest

from backends.base import Timeouts
from gateway.config import load
from gateway.settings import Server
from tests.process import ROOT

DEPLOY = ROOT / "deploy"
GIVEN = {
    "PUBLIC_HOST": "gateway.example.com",
    "DATABASE_URL": "postgresql+asyncpg://pluggably:password@database/pluggably",
    "VALKEY_URL": "valkey://counters:6379/0",
    "KEY_PEPPER": "p" * 43,
    "MASTER_KEY": "m" * 43,
    "SIGNING_KEY": "s" * 43,
    "ADMIN_KEY": "a" * 43,
    "ARTIFACTS_URL": "s3://artifacts/pluggably",
    "OPENAI_API_KEY": "sk-example",
    "ANTHROPIC_API_KEY": "sk-ant-example",
}
PROXIES = ("nginx.conf", "Caddyfile", "Caddyfile.compose")


def _text(name: str) -> str:
    return (DEPLOY / name).read_text()


@pytest.mark.parametrize("name", ["config.cloud.yaml", "config.home.yaml"])
def test_its_configurations_load_and_let_nobody_in_without_a_key(name: str) -> None:
    config = load(DEPLOY / name, GIVEN)
    assert config.auth.mode == "api_key"
    assert config.server.keep_alive_s == Server().keep_alive_s
    assert not re.search(r"(?:_key|password|pepper): (?!\"?\$\{)", _text(name))  # secrets come from outside


def test_what_is_shared_between_replicas_is_not_in_the_process() -> None:
    config = load(DEPLOY / "config.cloud.yaml", GIVEN)
    assert config.database_url.startswith("postgresql")
    assert config.limits.store.startswith("valkey")
    own = config.secrets
    assert None not in (own.key_pepper, own.master_key, config.artifacts.signing_key)


@pytest.mark.parametrize("name", PROXIES)
def test_proxies_take_what_the_gateway_takes_and_wait_as_long(name: str) -> None:
    text = _text(name)
    (size,) = re.findall(r"(?:client_max_body_size|max_size) (\d+)", text)
    (kept,) = re.findall(r"keepalive(?:_timeout)? (\d+)s", text)
    (wait,) = re.findall(r"(?:proxy_read_timeout|response_header_timeout) (\d+)s", text)
    assert int(size) == Server().body_limit_bytes
    assert int(kept) < Server().keep_alive_s
    assert int(wait) > Timeouts().total_s
    assert "flush_interval" not in re.sub(r"#.*", "", text)  # it would keep a client's leaving from the gateway


def test_supervisors_wait_longer_than_answers_may_take_to_finish() -> None:
    graces = re.findall(r"^TimeoutStopSec=(\d+)$", _text("pluggably.service"), re.MULTILINE)
    graces += re.findall(r"stop_grace_period: (\d+)s  .*drain_s", _text("compose.yaml"))
    graces += re.findall(r"docker stop -t (\d+)", _text("Containerfile"))
    assert len(graces) == 3
    assert all(int(grace) > Server().drain_s + 5 for grace in graces)


def test_the_image_has_what_it_copies_and_no_secret() -> None:
    text = _text("Containerfile")
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    assert "--require-hashes" in text
    assert "USER 10001:10001" in text
    assert not re.search(r"^(?:ARG|ENV).*(?:KEY|TOKEN|SECRET|PASSWORD)", text, re.MULTILINE)


def test_compose_names_files_that_exist() -> None:
    tree: dict[str, Any] = msgspec.yaml.decode(_text("compose.yaml"))
    for name, service in tree["services"].items():
        assert service["profiles"] in (["home"], ["cloud"]), name
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert (DEPLOY / volume.partition(":")[0]).exists(), volume


def test_every_test_that_the_security_page_names_exists() -> None:
    named = re.findall(r"`(tests/\S+?\.py)::(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit() -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(DEPLOY / "pluggably.service")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    assert "pluggably.service" not in told.replace("/opt/pluggably/bin/pluggably", ""), told
