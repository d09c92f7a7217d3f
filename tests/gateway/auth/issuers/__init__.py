"""Real identity providers for Node, in one process: oidc-provider beneath a path, oauth2-mock-server at its root."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.node import install

HERE = Path(__file__).parent


class Issuers:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        said = self._said()
        self.provider: str = said["provider"]
        """oidc-provider's issuer."""
        self.mock: str = said["mock"]
        """oauth2-mock-server's."""

    def rotate(self) -> str:
        """Give the second one a further key, with which it signs every other token; returns the key's id."""
        assert self._process.stdin is not None
        self._process.stdin.write("rotate\n")
        self._process.stdin.flush()
        kid: str = self._said()["kid"]
        return kid

    def provided(self, scope: str, resource: str = "urn:gateway:RS256", client: str = "batch-job") -> str:
        """A token of oidc-provider's, for a client's own use."""
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        return _token(f"{self.provider}/token", form, (client, "a-secret-of-the-client"))

    def mocked(self, **claims: Any) -> str:
        """A token of oauth2-mock-server's, with these claims."""
        return _token(f"{self.mock}/token", {"grant_type": "client_credentials", "claims": json.dumps(claims)})

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the issuers have ended"
        said: dict[str, Any] = json.loads(line)
        return said


def _token(url: str, form: dict[str, str], auth: tuple[str, str] | None = None) -> str:
    answer = httpx2.post(url, data=form, auth=auth, timeout=30, verify=False)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def header_of(token: str) -> dict[str, Any]:
    part = token.split(".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return header


@contextmanager
def real_issuers() -> Iterator[Issuers]:
    """Install and run them.  Skips the test where there is no Node."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    install(HERE)
    process = subprocess.Popen(
        ["node", str(HERE / "issuers.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # both warn that they are not for production
        text=True,
    )
    try:
        yield Issuers(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
